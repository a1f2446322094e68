"""Ports: all are looked at before anything starts; what nobody asked for gives way, and says so."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ingest.errors import ConfigError
from ops.config.settings import load_settings
from ops.supervisor.compose import listeners
from ops.supervisor.ports import Listener, address, pick_ports

HOST = "127.0.0.1"
KAFKA = ("kafka", "kafka-2")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def kafka(*ports: int, optional: bool) -> list[Listener]:
    return [
        Listener("kafka" if index == 0 else f"kafka-broker-{index + 1}", KAFKA, HOST, port, "--kafka-port", optional)
        for index, port in enumerate(ports)
    ]


def test_a_taken_port_that_was_asked_for_is_an_error_which_names_the_setting(taken: int) -> None:
    with pytest.raises(ConfigError, match=f"kafka-broker-2 port {taken} on .* is taken by .*--kafka-port"):
        pick_ports(kafka(0, taken, optional=False), {}, set())


def test_what_nobody_asked_for_is_left_out_whole_where_one_of_its_ports_is_taken(taken: int) -> None:
    http = Listener("http", ("monitor",), HOST, 0, "--http-port")
    picked = pick_ports([*kafka(0, taken, optional=True), http], {}, set())
    assert picked.ports.keys() == {"http"}
    (warning,) = picked.warnings
    assert f"kafka-broker-2 port {taken} on {HOST} is taken by " in warning
    assert "--kafka-port" in warning
    assert "kafka and kafka-2 does not run" in warning


def test_what_nobody_asked_for_gives_way_to_what_was_asked_for() -> None:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    native = Listener("tcp", ("broker-1",), HOST, port, "listeners under [broker]")
    picked = pick_ports([*kafka(port, optional=True), native], {}, set())
    assert picked.ports == {"tcp": port}
    with pytest.raises(ConfigError, match=f"tcp port {port} is asked for twice"):
        pick_ports([*kafka(port, optional=False), native], {}, set())


def test_ports_of_processes_that_live_stay_theirs(taken: int) -> None:
    picked = pick_ports(kafka(taken, 0, optional=True), {"kafka": taken, "kafka-broker-2": 7}, {"kafka-2"})
    assert picked.ports == {"kafka": taken, "kafka-broker-2": 7}
    assert not picked.warnings


def test_every_broker_has_a_kafka_port_two_above_the_one_before() -> None:
    def of(port: int | None, *broker_ids: int) -> list[tuple[str, int, bool]]:
        flags = {} if port is None else {("kafka", "port"): ("--kafka-port", port)}
        asked = listeners(load_settings(flags=flags), broker_ids)
        return [(one.name, one.port, one.optional) for one in asked if one.name.startswith("kafka")]

    assert of(None, 4, 7) == [("kafka", 9092, True), ("kafka-broker-7", 9094, True)]
    assert of(19092, 4, 7) == [("kafka", 19092, False), ("kafka-broker-7", 19094, False)]
    assert of(0, 4, 7) == [("kafka", 0, False), ("kafka-broker-7", 0, False)]
    assert of(-1, 4, 7) == []


def test_ports_with_tls_lie_between_those_without() -> None:
    tls: dict[str, Any] = {"tls_port": 9093, "tls_cert_file": "c", "tls_key_file": "k"}
    flags = {("kafka", key): (key, value) for key, value in tls.items()}
    asked = listeners(load_settings(flags=flags), [4, 7])
    found = [(one.name, one.port, one.optional) for one in asked if one.name.startswith("kafka")]
    plain = [("kafka", 9092, False), ("kafka-broker-7", 9094, False)]
    assert found == [*plain, ("kafkas", 9093, False), ("kafkas-broker-7", 9095, False)]


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_stands_in_brackets(host: str) -> None:
    assert address(host, 9092) == "[::1]:9092"
    assert address("log.example", 9092) == "log.example:9092"
