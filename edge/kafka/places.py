"""Which port every broker id has at a gateway, and where clients are told to find it. Pure.

Many clients take two ids at one address for one broker: librdkafka's `rd_kafka_broker_update` gives a known address the
id that was named last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edge.kafka.config import KafkaConfig
from ingest.wire.messages import BrokerMetadata

PLAINTEXT = "PLAINTEXT"  # Kafka's name of a listener that neither encrypts nor asks who it is
PORTS_A_BROKER = 2  # one without TLS, and the next one for TLS


def port_of(first: int, index: int) -> int:
    """Return the port of a broker by its place in the order of ids; 0 stays any free one."""
    return first + PORTS_A_BROKER * index if first else 0


class Place(NamedTuple):
    """Where a broker id is found: the port to listen on, 0 for any, and the one clients are told, 0 for the same."""

    broker_id: int
    port: int
    told: int


class Places:
    """Where clients of one gateway find brokers. Thread: the loop's.

    Attributes:
        told: By broker id, the port at this gateway that clients are told.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self.told: dict[int, int] = {}

    def elsewhere(self, broker: BrokerMetadata, protocol: str) -> tuple[str, int] | None:
        """Return host and port of its own machine's gateway; None: clients find the broker at this one.

        So it is with brokers of this machine, of one without a gateway for that protocol, and of one that is gone.
        """
        own = self._config.broker_ports
        if not own or broker.broker_id in own or not broker.alive:
            return None
        for endpoint in broker.kafka_endpoints:
            name, _, address = endpoint.partition("://")
            host, _, port = address.rpartition(":")
            if name == protocol and host and port.isdecimal():
                return host.strip("[]"), int(port)
        return None

    def missing(self, brokers: Mapping[int, BrokerMetadata]) -> list[Place]:
        """Return where to listen for those of all brokers that are found here and have no port yet."""
        config, own = self._config, self._config.broker_ports
        here = own.keys() | {one for one, broker in brokers.items() if not self.elsewhere(broker, PLAINTEXT)}
        ids = [*own, *sorted(brokers.keys() - own.keys())]  # new ids are higher, so that each keeps its place
        return [
            Place(one, own.get(one) or port_of(config.port, index), port_of(config.advertised_port, index))
            for index, one in enumerate(ids)
            if one in here and one not in self.told
        ]
