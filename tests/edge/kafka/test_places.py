"""Where every broker id is found: the same at every process of a gateway, whenever it heard of the broker."""

from __future__ import annotations

from typing import Any

import pytest

from edge.kafka.config import KafkaConfig
from edge.kafka.places import Place, Places, protocol_of
from ingest.wire.messages import BrokerMetadata


def brokers(*broker_ids: int, **fields: Any) -> dict[int, BrokerMetadata]:
    return {one: BrokerMetadata(one, 1, ["tcp://x"], "m", "/d", "/p", 7, **fields) for one in broker_ids}


def test_this_machines_brokers_have_the_ports_that_were_picked_and_others_the_next() -> None:
    places = Places(KafkaConfig(bootstrap="x", port=19000, broker_ports={5: 19000, 6: 20001}))
    assert places.missing({}) == [Place(5, 19000, 0), Place(6, 20001, 0)]
    assert places.missing(brokers(1, 5, 6, 9))[2:] == [Place(1, 19004, 0), Place(9, 19006, 0)]
    places.told |= {5: 19000, 6: 20001, 1: 19004}
    assert places.missing(brokers(9, 6, 5, 1)) == [Place(9, 19006, 0)]


def test_a_gateway_alone_has_all_of_them() -> None:
    registered = brokers(2, 1, kafka_endpoints=["PLAINTEXT://elsewhere:9092"])
    places = Places(KafkaConfig(bootstrap="x", port=9092))
    assert places.missing(registered) == [Place(1, 9092, 0), Place(2, 9094, 0)]
    assert places.elsewhere(registered[1]) is None
    assert Places(KafkaConfig(bootstrap="x", port=0)).missing(registered) == [Place(1, 0, 0), Place(2, 0, 0)]


def test_what_clients_are_told_behind_a_forwarding_goes_up_alike() -> None:
    places = Places(KafkaConfig(bootstrap="x", port=9092, advertised_port=31000))
    assert places.missing(brokers(1, 2)) == [Place(1, 9092, 31000), Place(2, 9094, 31002)]


def test_other_machines_brokers_are_at_their_own_gateways_and_here_while_those_have_none_or_are_gone() -> None:
    places = Places(KafkaConfig(bootstrap="x", port=9092, broker_ports={2: 9092}))
    endpoints = ["SSL://a:9093", "PLAINTEXT://[fd00::1]:9092", "SASL_SSL://a:no port"]
    known = brokers(1, 2, 5, kafka_endpoints=endpoints) | brokers(3)
    assert places.elsewhere(known[1]) == ("fd00::1", 9092)
    tls: dict[str, Any] = {"bootstrap": "x", "tls_port": 9093, "broker_ports": {2: 9092}, "broker_tls_ports": {2: 9093}}
    assert Places(KafkaConfig(**tls), tls=True).elsewhere(known[1]) == ("a", 9093)
    for of_tls in (False, True):  # with passwords these are other listeners, which that machine has not
        assert Places(KafkaConfig(**tls, password_file="users"), tls=of_tls).elsewhere(known[1]) is None
    assert places.elsewhere(known[2]) is None
    assert places.elsewhere(known[3]) is None
    assert places.missing(known) == [Place(2, 9092, 0), Place(3, 9096, 0)]
    places.told |= {2: 9092, 3: 9096}

    gone = known | brokers(1, kafka_endpoints=endpoints, alive=False)
    assert places.elsewhere(gone[1]) is None
    assert places.missing(gone) == [Place(1, 9094, 0)], "its place is its own, whoever is at home"


def test_ports_with_tls_are_counted_on_their_own() -> None:
    config = KafkaConfig(bootstrap="x", port=9092, tls_port=9093, advertised_port=31000, advertised_tls_port=32001)
    assert Places(config).missing(brokers(1, 2)) == [Place(1, 9092, 31000), Place(2, 9094, 31002)]
    assert Places(config, tls=True).missing(brokers(1, 2)) == [Place(1, 9093, 32001), Place(2, 9095, 32003)]


@pytest.mark.parametrize(
    ("sasl", "tls", "protocol"),
    [(False, False, "PLAINTEXT"), (False, True, "SSL"), (True, False, "SASL_PLAINTEXT"), (True, True, "SASL_SSL")],
)
def test_kafkas_names_of_protocols(sasl: bool, tls: bool, protocol: str) -> None:
    assert protocol_of(sasl=sasl, tls=tls) == protocol
