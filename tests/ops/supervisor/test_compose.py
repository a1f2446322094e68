"""What an appliance is composed of: where its brokers are told to be found by Kafka's clients."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from brokerd.config import BrokerConfig
from edge.kafka.config import KafkaConfig
from ops.config.settings import load_settings
from ops.supervisor.compose import Site, compose
from ops.supervisor.membership import Member

PORTS = {"kafka": 9092, "kafka-broker-7": 9094, "http": 9644, "mqtt": 1883, "tcp": 9192, "tcp-2": 9194}
LISTENERS = '[broker]\nlisteners = "tcp://10.0.0.2:9192"\n"allow.insecure.listeners" = true\n'
OPEN = "[kafka]\nallow_insecure = true\n"


def composed(tmp_path: Path, text: str, ports: dict[str, int] = PORTS) -> tuple[list[list[str]], list[KafkaConfig]]:
    """Return the Kafka endpoints of each broker, and what each of the gateway's processes is told."""
    file = tmp_path / "forebay.toml"
    file.write_text(text)
    member = Member(cluster_id="c", site="s", broker_ids=[4, 7], kept_by=[])
    site = Site(data_dir=tmp_path, run_dir=tmp_path, page_dir=tmp_path, machine="m", member=member)
    specs = compose(load_settings(file), site, ports)
    brokers = [msgspec.json.decode(spec.config, type=BrokerConfig) for spec in specs if spec.role == "broker"]
    gateways = [msgspec.json.decode(spec.config, type=KafkaConfig) for spec in specs if spec.role == "kafka"]
    return [broker.kafka_endpoints for broker in brokers], gateways


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("", None),
        (LISTENERS, None),
        (LISTENERS + OPEN + 'host = "10.0.0.2"\n', "10.0.0.2"),
        (LISTENERS + '"advertised.listeners" = "tcp://log1:9192"\n' + OPEN + 'host = "0.0.0.0"\n', "log1"),
        (LISTENERS + '"advertised.listeners" = "tcp://log1:9192"\n' + OPEN + 'host = "10.1.0.2"\n', "10.1.0.2"),
        (OPEN + 'host = "0.0.0.0"\n', None),
        ('[broker]\nlisteners = "tcp://127.0.0.1:9192"\n', "127.0.0.1"),  # several directories on one machine
        ('[broker]\nlisteners = "tcp://127.0.0.1:9192"\n"advertised.listeners" = "tcp://log1:9192"\n', None),
        ('[kafka]\nadvertised_host = "kafka1"\n', "kafka1"),
    ],
)
def test_brokers_are_told_where_other_machines_reach_the_gateway(tmp_path: Path, text: str, hosts: str | None) -> None:
    found, _ = composed(tmp_path, text)
    assert found == ([[f"PLAINTEXT://{hosts}:9092"], [f"PLAINTEXT://{hosts}:9094"]] if hosts else [[], []])


def test_an_advertised_port_goes_up_with_the_brokers(tmp_path: Path) -> None:
    found, _ = composed(tmp_path, '[kafka]\nadvertised_host = "kafka1"\nadvertised_port = 31000\n')
    assert found == [["PLAINTEXT://kafka1:31000"], ["PLAINTEXT://kafka1:31002"]]


@pytest.mark.parametrize(("users", "sasl"), [("", ""), ('password_file = "users"\n', "SASL_")])
def test_listeners_with_tls_have_ports_and_a_protocol_of_their_own(tmp_path: Path, users: str, sasl: str) -> None:
    text = '[kafka]\nadvertised_host = "kafka1"\nadvertised_tls_port = 32001\ntls_cert_file = "c"\ntls_key_file = "k"\n'
    tls = {"kafkas": 9093, "kafkas-broker-7": 9095}
    found, (gateway,) = composed(tmp_path, text + "tls_port = 9093\n" + users, PORTS | tls)
    assert found == [
        [f"{sasl}PLAINTEXT://kafka1:9092", f"{sasl}SSL://kafka1:32001"],
        [f"{sasl}PLAINTEXT://kafka1:9094", f"{sasl}SSL://kafka1:32003"],
    ]
    assert (gateway.tls_port, gateway.broker_tls_ports) == (9093, {4: 9093, 7: 9095})
    without = {name: port for name, port in PORTS.items() if not name.startswith("kafka")}
    found, (gateway,) = composed(tmp_path, text + "port = -1\ntls_port = 9093\n" + users, without | tls)
    assert found == [[f"{sasl}SSL://kafka1:32001"], [f"{sasl}SSL://kafka1:32003"]]
    assert (gateway.port, gateway.broker_ports) == (-1, {})


def test_every_process_of_the_gateway_has_the_same_ports(tmp_path: Path) -> None:
    _, gateways = composed(tmp_path, "[kafka]\nport = 0\nprocesses = 2\n")
    assert gateways[0] == gateways[1]
    assert gateways[0].broker_ports == {4: 9092, 7: 9094}


def test_without_its_ports_there_is_no_gateway_and_nobody_is_told_of_one(tmp_path: Path) -> None:
    without = {name: port for name, port in PORTS.items() if not name.startswith("kafka")}
    assert composed(tmp_path, LISTENERS, without) == ([[], []], [])
