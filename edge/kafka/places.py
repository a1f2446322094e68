"""Which port every broker id has at a gateway, and where clients are told to find it. Pure.

Many clients take two ids at one address for one broker: librdkafka's `rd_kafka_broker_update` gives a known address the
id that was named last.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from edge.kafka.config import KafkaConfig

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
    """The ports of one gateway. Thread: the loop's.

    Attributes:
        told: By broker id, the port that clients are told.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self.told: dict[int, int] = {}

    def missing(self, broker_ids: Iterable[int]) -> list[Place]:
        """Return where to listen for those of all brokers that have no port yet, this machine's first."""
        config, own = self._config, self._config.broker_ports
        ids = [*own, *sorted(set(broker_ids) - own.keys())]  # new ids are higher, so that each keeps its place
        return [
            Place(one, own.get(one) or port_of(config.port, index), port_of(config.advertised_port, index))
            for index, one in enumerate(ids)
            if one not in self.told
        ]
