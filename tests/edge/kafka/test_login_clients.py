"""Clients that were written by others log in: librdkafka by confluent-kafka, aiokafka, and Debian's kcat."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from edge.kafka.gateway import Gateway
from edge.kafka.places import protocol_of
from ingest import Admin
from tests.cluster import Cluster
from tests.edge.kafka.running_gateway import running_gateway
from tests.edge.kafka.users import OLD, PASSWORDS, make_users
from tests.edge.security.certificates import certificate, expired_certificate

confluent = pytest.importorskip("confluent_kafka")
confluent_admin = pytest.importorskip("confluent_kafka.admin")

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
WRONG = [("carol", "wrong"), ("nobody", "alice-secret"), ("carol", "alice-secret")]  # guesses bar a user from there
COUNT = 50
_names = itertools.count()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the users, a certificate and its key."""
    folder = tmp_path_factory.mktemp("files")
    make_users(folder / "users")
    certificate(folder, "server")
    return folder


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, files: Path) -> Iterator[Gateway]:
    """Listens with TLS and without."""
    options: dict[str, Any] = {"password_file": str(files / "users"), "failed_login_delay_ms": 50}
    with running_gateway(cluster.bootstrap, tls_port=0, **options, **tls_files(files)) as opened:
        yield opened


def tls_files(folder: Path, name: str = "server") -> dict[str, Any]:
    return {"tls_cert_file": str(folder / f"{name}.pem"), "tls_key_file": str(folder / f"{name}.key")}


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"logins-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 3)
    return name


class Librdkafka:
    """One set of credentials; what went wrong is collected in `errors`."""

    def __init__(self, gateway: Gateway, login: tuple[str, str, str] | None = None, *, ca: str = "") -> None:
        self.errors: list[Any] = []
        self.options: dict[str, Any] = {
            "bootstrap.servers": f"127.0.0.1:{gateway.tls_port if ca else gateway.port}",
            "security.protocol": protocol_of(sasl=login is not None, tls=bool(ca)),
            "error_cb": self.errors.append,
            "log_level": 0,
        }
        if login is not None:
            self.options |= dict(zip(("sasl.mechanism", "sasl.username", "sasl.password"), login, strict=True))
        if ca:
            self.options["ssl.ca.location"] = ca

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


def aiokafka_options(gateway: Gateway, login: tuple[str, str, str] | None, *, ca: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {
        "bootstrap_servers": f"127.0.0.1:{gateway.tls_port if ca else gateway.port}",
        "security_protocol": protocol_of(sasl=login is not None, tls=bool(ca)),
        "ssl_context": ssl.create_default_context(cafile=ca) if ca else None,
    }
    if login is not None:
        found |= dict(zip(("sasl_mechanism", "sasl_plain_username", "sasl_plain_password"), login, strict=True))
    return found


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


def aiokafka_is_refused(options: dict[str, Any]) -> bool:
    async def run() -> bool:
        producer = AIOKafkaProducer(**options)
        try:
            await producer.start()
        except KafkaConnectionError:
            return True
        finally:
            await producer.stop()
        return False

    return asyncio.run(run())


def kcat(gateway: Gateway, login: tuple[str, str, str], *arguments: str, text: str = "", ca: str = "") -> Any:
    mechanism, user, password = login
    command = ["kcat", "-b", f"127.0.0.1:{gateway.tls_port if ca else gateway.port}"]
    command += ["-X", f"security.protocol={protocol_of(sasl=True, tls=bool(ca))}", "-X", f"ssl.ca.location={ca}"]
    command += ["-X", f"sasl.mechanism={mechanism}", "-X", f"sasl.username={user}", "-X", f"sasl.password={password}"]
    return subprocess.run([*command, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)


def told_ports(gateway: Gateway, *, ca: str = "") -> set[int]:
    """Return the ports of all brokers as a client is told them that came with or without TLS."""
    admin = confluent_admin.AdminClient(Librdkafka(gateway, ("PLAIN", "alice", "alice-secret"), ca=ca).options)
    found = {broker.port for broker in admin.list_topics(timeout=10).brokers.values()}
    described = admin.describe_cluster(request_timeout=10).result()
    groups = admin.describe_consumer_groups([f"g{number}" for number in range(4)], request_timeout=10)
    for node in (*described.nodes, *(one.result().coordinator for one in groups.values())):
        assert node.port in found
    return found


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("user", ["alice", "zoë,="])
def test_librdkafka_logs_in(gateway: Gateway, files: Path, topic: str, mechanism: str, user: str, tls: bool) -> None:
    client = Librdkafka(gateway, (mechanism, user, PASSWORDS[user]), ca=str(files / "server.pem") if tls else "")
    assert len(client.round_trip(topic)) == COUNT


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("user", ["alice", "zoë,="])
def test_aiokafka_logs_in(gateway: Gateway, files: Path, topic: str, mechanism: str, user: str, tls: bool) -> None:
    options = aiokafka_options(gateway, (mechanism, user, PASSWORDS[user]), ca=str(files / "server.pem") if tls else "")
    assert len(asyncio.run(aiokafka_round_trip(options, topic))) == COUNT


@pytest.mark.needs("kcat", "openssl")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kcat_logs_in_with_a_librdkafka_that_sends_its_nonce_twice(
    gateway: Gateway, files: Path, topic: str, mechanism: str, tls: bool
) -> None:
    lines, ca = "".join(f"{number}\n" for number in range(COUNT)), str(files / "server.pem") if tls else ""
    written = kcat(gateway, (mechanism, "alice", "alice-secret"), "-P", "-t", topic, text=lines, ca=ca)
    assert written.returncode == 0, written.stderr
    options = ("-C", "-t", topic, "-o", "beginning", "-e", "-q")
    read = kcat(gateway, (mechanism, "bob", "bob-secret"), *options, ca=ca)
    assert sorted(read.stdout.split()) == sorted(lines.split())


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("user", "password"), WRONG)
def test_librdkafka_with_a_wrong_password_is_told(gateway: Gateway, mechanism: str, user: str, password: str) -> None:
    assert Librdkafka(gateway, (mechanism, user, password)).is_refused("_AUTHENTICATION")


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("user", "password"), WRONG)
def test_aiokafka_with_a_wrong_password_is_refused(gateway: Gateway, mechanism: str, user: str, password: str) -> None:
    before = gateway.stats().auth_failures_total
    assert aiokafka_is_refused(aiokafka_options(gateway, (mechanism, user, password)))
    assert gateway.stats().auth_failures_total > before


@pytest.mark.needs("kcat", "openssl")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kcat_with_a_wrong_password_is_told(gateway: Gateway, mechanism: str) -> None:
    refused = kcat(gateway, (mechanism, "carol", "wrong"), "-L", "-m", "3")
    assert refused.returncode != 0
    assert "uthentication" in refused.stderr


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("tls", [False, True])
def test_librdkafka_without_credentials_is_closed(gateway: Gateway, files: Path, tls: bool) -> None:
    client = Librdkafka(gateway, ca=str(files / "server.pem") if tls else "")
    assert client.is_refused("_ALL_BROKERS_DOWN")


@pytest.mark.needs("openssl")
def test_a_user_from_before_there_was_scram_logs_in_by_plain_alone(gateway: Gateway, topic: str) -> None:
    assert len(Librdkafka(gateway, ("PLAIN", OLD, OLD)).round_trip(topic)) == COUNT
    assert Librdkafka(gateway, ("SCRAM-SHA-256", OLD, OLD)).is_refused("_AUTHENTICATION")


@pytest.mark.needs("openssl")
def test_clients_are_told_the_ports_of_their_kind(gateway: Gateway, files: Path) -> None:
    plain, tls = told_ports(gateway), told_ports(gateway, ca=str(files / "server.pem"))
    assert len(plain) == len(tls) == 2  # brokers
    assert not plain & tls
    assert gateway.port in plain
    assert gateway.tls_port in tls


def free_ports(count: int) -> int:
    """Return the first of some ports in a row that nobody uses, below those that the system hands out."""
    while True:
        first = random.randrange(10_000, 32_000)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first


@pytest.mark.needs("openssl")
def test_ports_with_tls_lie_between_those_without(cluster: Cluster, files: Path) -> None:
    port, options = free_ports(4), {"password_file": str(files / "users"), **tls_files(files)}
    with running_gateway(cluster.bootstrap, port=port, tls_port=port + 1, **options) as opened:
        assert told_ports(opened) == {port, port + 2}
        assert told_ports(opened, ca=str(files / "server.pem")) == {port + 1, port + 3}


@pytest.mark.needs("openssl")
def test_behind_a_forwarding_clients_are_told_ports_of_their_kind(cluster: Cluster, files: Path) -> None:
    options = {"advertised_port": 31000, "advertised_tls_port": 32001, **tls_files(files)}
    with running_gateway(cluster.bootstrap, tls_port=0, **options) as opened:
        for ca, expected in (("", {31000, 31002}), (str(files / "server.pem"), {32001, 32003})):
            admin = confluent_admin.AdminClient(Librdkafka(opened, ca=ca).options)
            assert {broker.port for broker in admin.list_topics(timeout=10).brokers.values()} == expected


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("problem", ["untrusted", "expired"])
def test_clients_do_not_take_a_certificate_that_is_not_trusted_or_has_expired(
    cluster: Cluster, tmp_path: Path, problem: str
) -> None:
    trusted, _ = (certificate if problem == "untrusted" else expired_certificate)(tmp_path, "server")
    if problem == "untrusted":
        trusted, _ = certificate(tmp_path, "strange")
    with running_gateway(cluster.bootstrap, port=-1, tls_port=0, **tls_files(tmp_path)) as opened:
        assert Librdkafka(opened, ca=trusted).is_refused("_SSL")
        assert aiokafka_is_refused(aiokafka_options(opened, None, ca=trusted))
        assert opened.stats().requests_total == 0


@pytest.mark.needs("openssl")
def test_where_client_certificates_are_asked_for_nobody_comes_in_without_one(
    cluster: Cluster, files: Path, topic: str, tmp_path: Path
) -> None:
    mine, my_key = certificate(tmp_path, "mine")
    strange, strange_key = certificate(tmp_path, "strange")
    options = {"tls_client_ca_file": mine, **tls_files(files)}
    with running_gateway(cluster.bootstrap, port=-1, tls_port=0, **options) as opened:
        for more in ({}, {"ssl.certificate.location": strange, "ssl.key.location": strange_key}):
            client = Librdkafka(opened, ca=str(files / "server.pem"))
            client.options |= more
            with pytest.raises(confluent.KafkaException):
                confluent.Producer(client.options).list_topics(timeout=2)
        assert opened.stats().requests_total == 0
        client = Librdkafka(opened, ca=str(files / "server.pem"))
        client.options |= {"ssl.certificate.location": mine, "ssl.key.location": my_key}
        assert len(client.round_trip(topic)) == COUNT


@pytest.mark.needs("openssl")
def test_a_new_certificate_is_used_without_a_restart(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.kafka.gateway.LOOK_S", 0.05)
    monkeypatch.setattr("edge.kafka.gateway.CERTIFICATE_LOOKS", 1)
    certificate(tmp_path, "server")
    with running_gateway(cluster.bootstrap, port=-1, tls_port=0, **tls_files(tmp_path)) as opened:
        address = ("127.0.0.1", opened.tls_port)
        before = ssl.get_server_certificate(address)
        certificate(tmp_path, "server")
        deadline = time.monotonic() + 10
        while ssl.get_server_certificate(address) == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.needs("openssl")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_plain_text_and_silence_do_not_pass_the_listener_with_tls(cluster: Cluster, files: Path) -> None:
    with running_gateway(cluster.bootstrap, port=-1, tls_port=0, connect_timeout_ms=500, **tls_files(files)) as opened:
        address = ("127.0.0.1", opened.tls_port)
        context = ssl.create_default_context(cafile=str(files / "server.pem"))
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(address, 5) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            context.wrap_socket(plain, server_hostname="localhost")
        for said in (struct.pack(">ihhih", 10, 18, 0, 1, -1), b""):
            with socket.create_connection(address, 5) as plain:
                plain.sendall(said)
                while plain.recv(100):  # an alert, and the end
                    pass
        assert opened.stats().requests_total == 0
