"""Which port every broker id has at a gateway, and where clients are told to find it. Pure.

Many clients take two ids at one address for one broker: librdkafka's `rd_kafka_broker_update` gives a known address the
id that was named last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edge.kafka.config import KafkaConfig
from ingest.wire.messages import BrokerMetadata

PORTS_A_BROKER = 2  # one without TLS, and the next one for TLS


def port_of(first: int, index: int) -> int:
    """Return the port of a broker by its place in the order of ids; 0 stays any free one."""
    return first + PORTS_A_BROKER * index if first else 0


def protocol_of(*, sasl: bool, tls: bool) -> str:
    """Return Kafka's name of what a listener speaks."""
    return ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT")


class Place(NamedTuple):
    """Where a broker id is found: the port to listen on, 0 for any, and the one clients are told, 0 for the same."""

    broker_id: int
    port: int
    told: int


class Places:
    """Where clients of one gateway find brokers: those who came without TLS, or those with it. Thread: the loop's.

    Attributes:
        protocol: Kafka's name of what these clients speak.
        first, advertised: The first port, and what clients are told it is; 0 for the same.
        told: By broker id, the port at this gateway that clients are told.
    """

    def __init__(self, config: KafkaConfig, *, tls: bool = False) -> None:
        self._own = config.broker_tls_ports if tls else config.broker_ports
        self.protocol = protocol_of(sasl=bool(config.password_file), tls=tls)
        self.first = config.tls_port if tls else config.port
        self.advertised = config.advertised_tls_port if tls else config.advertised_port
        self.told: dict[int, int] = {}

    def elsewhere(self, broker: BrokerMetadata) -> tuple[str, int] | None:
        """Return host and port of its own machine's gateway; None: clients find the broker at this one.

        So it is with brokers of this machine, of one without a gateway for that protocol, and of one that is gone.
        """
        own = self._own
        if not own or broker.broker_id in own or not broker.alive:
            return None
        for endpoint in broker.kafka_endpoints:
            name, _, address = endpoint.partition("://")
            host, _, port = address.rpartition(":")
            if name == self.protocol and host and port.isdecimal():
                return host.strip("[]"), int(port)
        return None

    def missing(self, brokers: Mapping[int, BrokerMetadata]) -> list[Place]:
        """Return where to listen for those of all brokers that are found here and have no port yet."""
        own = self._own
        here = own.keys() | {one for one, broker in brokers.items() if not self.elsewhere(broker)}
        ids = [*own, *sorted(brokers.keys() - own.keys())]  # new ids are higher, so that each keeps its place
        return [
            Place(one, own.get(one) or port_of(self.first, index), port_of(self.advertised, index))
            for index, one in enumerate(ids)
            if one in here and one not in self.told
        ]
