"""Where every broker id is found: the same at every process of a gateway, whenever it heard of the broker."""

from __future__ import annotations

from edge.kafka.config import KafkaConfig
from edge.kafka.places import Place, Places


def test_this_machines_brokers_have_the_ports_that_were_picked_and_others_the_next() -> None:
    places = Places(KafkaConfig(bootstrap="x", port=19000, broker_ports={5: 19000, 6: 20001}))
    assert places.missing([]) == [Place(5, 19000, 0), Place(6, 20001, 0)]
    assert places.missing([1, 5, 6, 9])[2:] == [Place(1, 19004, 0), Place(9, 19006, 0)]
    places.told |= {5: 19000, 6: 20001, 1: 19004}
    assert places.missing([9, 6, 5, 1]) == [Place(9, 19006, 0)]


def test_a_gateway_alone_has_all_of_them() -> None:
    assert Places(KafkaConfig(bootstrap="x", port=9092)).missing([2, 1]) == [Place(1, 9092, 0), Place(2, 9094, 0)]
    assert Places(KafkaConfig(bootstrap="x", port=0)).missing([2, 1]) == [Place(1, 0, 0), Place(2, 0, 0)]


def test_what_clients_are_told_behind_a_forwarding_goes_up_alike() -> None:
    places = Places(KafkaConfig(bootstrap="x", port=9092, advertised_port=31000))
    assert places.missing([1, 2]) == [Place(1, 9092, 31000), Place(2, 9094, 31002)]
