"""Clients that were written by others log in: librdkafka by confluent-kafka, aiokafka, and Debian's kcat."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from edge.kafka.gateway import Gateway
from ingest import Admin
from tests.cluster import Cluster
from tests.edge.kafka.running_gateway import running_gateway
from tests.edge.kafka.users import OLD, PASSWORDS, make_users

confluent = pytest.importorskip("confluent_kafka")

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
WRONG = [("carol", "wrong"), ("nobody", "alice-secret"), ("carol", "alice-secret")]  # guesses bar a user from there
COUNT = 50
_names = itertools.count()


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    users = make_users(tmp_path_factory.mktemp("users") / "users")
    with running_gateway(cluster.bootstrap, password_file=users, failed_login_delay_ms=50) as opened:
        yield opened


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"logins-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 3)
    return name


class Librdkafka:
    """One set of credentials; what went wrong is collected in `errors`."""

    def __init__(self, gateway: Gateway, mechanism: str, user: str, password: str, **options: Any) -> None:
        self.errors: list[Any] = []
        self.options = {
            "bootstrap.servers": f"127.0.0.1:{gateway.port}",
            "security.protocol": "SASL_PLAINTEXT" if mechanism else "PLAINTEXT",
            "error_cb": self.errors.append,
            "log_level": 0,
            **({"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password} if mechanism else {}),
            **options,
        }

    def round_trip(self, topic: str) -> set[bytes]:
        """Write records and read them back, of all partitions; both need every broker's connection."""
        producer = confluent.Producer({**self.options, "enable.idempotence": True})
        for number in range(COUNT):
            producer.produce(topic, b"%d" % number, key=b"%d" % number)
        assert producer.flush(20) == 0
        consumer = confluent.Consumer({**self.options, "group.id": topic, "auto.offset.reset": "earliest"})
        consumer.subscribe([topic])
        found: set[bytes] = set()
        deadline = time.monotonic() + 20
        while len(found) < COUNT and time.monotonic() < deadline:
            found |= {message.value() for message in consumer.consume(100, 0.2)}
        consumer.close()
        return found

    def is_refused(self, code: str) -> bool:
        """Tell whether it gets nothing, and is told why."""
        producer = confluent.Producer(self.options)
        deadline = time.monotonic() + 10
        while not any(error.name() == code for error in self.errors) and time.monotonic() < deadline:
            producer.poll(0.1)
        with pytest.raises(confluent.KafkaException):
            producer.list_topics(timeout=0.5)
        return any(error.name() == code for error in self.errors)


def aiokafka_options(gateway: Gateway, mechanism: str, user: str, password: str, **options: Any) -> dict[str, Any]:
    found = {"bootstrap_servers": f"127.0.0.1:{gateway.port}", "security_protocol": "SASL_PLAINTEXT", **options}
    return {**found, "sasl_mechanism": mechanism, "sasl_plain_username": user, "sasl_plain_password": password}


async def aiokafka_round_trip(options: dict[str, Any], topic: str) -> set[bytes]:
    producer = AIOKafkaProducer(**options)
    await producer.start()
    for number in range(COUNT):
        await producer.send(topic, b"%d" % number, key=b"%d" % number)
    await producer.stop()
    consumer = AIOKafkaConsumer(topic, **options, group_id=topic, auto_offset_reset="earliest")
    await consumer.start()
    found: set[bytes] = set()
    try:
        async with asyncio.timeout(20):
            while len(found) < COUNT:
                batches = await consumer.getmany(timeout_ms=200)
                found |= {record.value for records in batches.values() for record in records}
    finally:
        await consumer.stop()
    return found


def kcat(gateway: Gateway, mechanism: str, user: str, password: str, *arguments: str, text: str = "") -> Any:
    command = ["kcat", "-b", f"127.0.0.1:{gateway.port}", "-X", "security.protocol=SASL_PLAINTEXT"]
    command += ["-X", f"sasl.mechanism={mechanism}", "-X", f"sasl.username={user}", "-X", f"sasl.password={password}"]
    return subprocess.run([*command, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("user", ["alice", "zoë,="])
def test_librdkafka_logs_in(gateway: Gateway, topic: str, mechanism: str, user: str) -> None:
    assert len(Librdkafka(gateway, mechanism, user, PASSWORDS[user]).round_trip(topic)) == COUNT


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("user", "password"), WRONG)
def test_librdkafka_with_a_wrong_password_is_told(gateway: Gateway, mechanism: str, user: str, password: str) -> None:
    assert Librdkafka(gateway, mechanism, user, password).is_refused("_AUTHENTICATION")


def test_librdkafka_without_credentials_is_closed(gateway: Gateway) -> None:
    assert Librdkafka(gateway, "", "", "").is_refused("_ALL_BROKERS_DOWN")


def test_a_user_from_before_there_was_scram_logs_in_by_plain_alone(gateway: Gateway, topic: str) -> None:
    assert len(Librdkafka(gateway, "PLAIN", OLD, OLD).round_trip(topic)) == COUNT
    assert Librdkafka(gateway, "SCRAM-SHA-256", OLD, OLD).is_refused("_AUTHENTICATION")


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("user", ["alice", "zoë,="])
def test_aiokafka_logs_in(gateway: Gateway, topic: str, mechanism: str, user: str) -> None:
    options = aiokafka_options(gateway, mechanism, user, PASSWORDS[user])
    assert len(asyncio.run(aiokafka_round_trip(options, topic))) == COUNT


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("user", "password"), WRONG)
def test_aiokafka_with_a_wrong_password_is_refused(gateway: Gateway, mechanism: str, user: str, password: str) -> None:
    before = gateway.stats().auth_failures_total
    with pytest.raises(KafkaConnectionError):
        asyncio.run(aiokafka_round_trip(aiokafka_options(gateway, mechanism, user, password), "nothing"))
    assert gateway.stats().auth_failures_total > before


@pytest.mark.needs("kcat")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kcat_logs_in_with_a_librdkafka_that_sends_its_nonce_twice(
    gateway: Gateway, topic: str, mechanism: str
) -> None:
    lines = "".join(f"{number}\n" for number in range(COUNT))
    written = kcat(gateway, mechanism, "alice", "alice-secret", "-P", "-t", topic, text=lines)
    assert written.returncode == 0, written.stderr
    read = kcat(gateway, mechanism, "bob", "bob-secret", "-C", "-t", topic, "-o", "beginning", "-e", "-q")
    assert sorted(read.stdout.split()) == sorted(lines.split())


@pytest.mark.needs("kcat")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kcat_with_a_wrong_password_is_told(gateway: Gateway, mechanism: str) -> None:
    refused = kcat(gateway, mechanism, "carol", "wrong", "-L", "-m", "3")
    assert refused.returncode != 0
    assert "uthentication" in refused.stderr
