"""The Kafka gateway as a part of the appliance: several processes on the same ports, one of which is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import running_cluster
from tests.edge.kafka.users import PASSWORDS, make_users
from tests.edge.security.certificates import certificate
from tests.ops.cli.conftest import Forebay
from tests.ops.supervisor.conftest import until
from tests.processes import Processes

confluent_kafka = pytest.importorskip("confluent_kafka")
AdminClient = pytest.importorskip("confluent_kafka.admin").AdminClient

TOPIC = "t"
SAYING_LITTLE = {"log_level": 0}


def configured(forebay: Forebay, text: str) -> tuple[str, str]:
    file = forebay.data_dir.with_suffix(".toml")
    file.write_text(text)
    return "--config", str(file)


def bootstrap(status: dict[str, Any]) -> str:
    return f"127.0.0.1:{status['ports']['kafka']}"


def advertised(address: str) -> dict[int, int]:
    """Return the port of each broker id, as one connection is told."""
    admin = AdminClient({"bootstrap.servers": address, **SAYING_LITTLE})
    return {broker.id: broker.port for broker in admin.list_topics(timeout=20).brokers.values()}


@pytest.mark.needs("openssl")
def test_an_appliance_with_passwords_and_tls(forebay: Forebay, tmp_path: Path) -> None:
    users, (cert, key) = make_users(tmp_path / "users"), certificate(tmp_path, "server")
    text = f'password_file = "{users}"\ntls_cert_file = "{cert}"\ntls_key_file = "{key}"\ntls_port = 0\n'
    forebay.up("--brokers", "2", "--kafka-port", "-1", *configured(forebay, f"[kafka]\n{text}"))
    ports = forebay.status()["ports"]
    assert ports["kafka"] is None
    login = {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "alice", "sasl.password": PASSWORDS["alice"]}
    options = {"security.protocol": "SASL_SSL", "ssl.ca.location": cert, **login, **SAYING_LITTLE}
    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{ports['kafkas']}", **options})
    found = {broker.port for broker in admin.list_topics(timeout=20).brokers.values()}
    assert found == {ports["kafkas"], ports["kafkas-broker-2"]}


def test_a_gateway_alone_has_every_broker(processes: Processes, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ops.cli.main", "gateway", "run", "kafka", "--port", "0"]
    with running_cluster(tmp_path, brokers=3) as cluster:
        gateway = processes.start([*command, "--bootstrap", cluster.bootstrap], stdout=subprocess.PIPE, text=True)
        assert gateway.stdout is not None
        told = next(line for line in gateway.stdout if line.startswith("{"))
        address = f"127.0.0.1:{json.loads(told)['port']}"
        ports = advertised(address)
        assert ports.keys() == {1, 2, 3}
        assert len(set(ports.values())) == 3
        lost: list[Any] = []
        producer = confluent_kafka.Producer({"bootstrap.servers": address, **SAYING_LITTLE})
        for number in range(30):
            producer.produce(TOPIC, b"%d" % number, on_delivery=lambda error, _: error and lost.append(error))
        assert producer.flush(30) == 0
        assert not lost
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(20) == 0


def test_several_processes_share_the_ports_and_clients_outlive_one(forebay: Forebay) -> None:
    options = configured(forebay, "[kafka]\nprocesses = 3\n")
    forebay.up("--brokers", "2", *options)
    status = forebay.status()
    gateways = ("kafka", "kafka-2", "kafka-3")
    assert set(gateways) <= forebay.pids().keys()
    ports = {1: status["ports"]["kafka"], 2: status["ports"]["kafka-broker-2"]}
    # the kernel deals connections out by their addresses: some 30 reach each of three
    assert all(advertised(bootstrap(status)) == ports for _ in range(30))

    lost: list[Any] = []
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": bootstrap(status), "enable.idempotence": True, **SAYING_LITTLE}
    )
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": bootstrap(status), "group.id": "g", "auto.offset.reset": "earliest", **SAYING_LITTLE}
    )
    sent, seen = [], []
    try:
        consumer.subscribe([TOPIC])
        for name in gateways:
            for _ in range(50):
                sent.append(uuid.uuid4().bytes)
                producer.produce(TOPIC, sent[-1], on_delivery=lambda error, _: error and lost.append(error))
            assert producer.flush(30) == 0
            os.kill(forebay.pids()[name], signal.SIGKILL)

        def all_seen() -> bool:
            seen.extend(message.value() for message in consumer.consume(100, 0.5) if not message.error())
            return len(seen) >= len(sent)

        until(all_seen, 60)
    finally:
        consumer.close()
    assert not lost
    assert sorted(seen) == sorted(sent)
    after = until(lambda: status if (status := forebay.status())["ready"] else None)
    assert {p["name"]: p["restarts"] for p in after["processes"] if p["role"] == "kafka"} == dict.fromkeys(gateways, 1)
    assert all(advertised(bootstrap(after)) == ports for _ in range(10))
