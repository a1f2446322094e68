"""What an API needs to serve a request: the brokers, who asks, and by which address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge.kafka.brokers import Brokers
from edge.kafka.config import KafkaConfig
from edge.kafka.coordinators import Coordinators
from edge.kafka.doorbells import Doorbells
from edge.kafka.local_logs import LocalLogs


@dataclass(slots=True)
class Context:
    """One connection, as APIs know it.

    Attributes:
        host: Where this client reaches the gateway.
        port: The gateway's first.
        ports: By broker id, of those that have one of their own.
        client_ip: Of the peer.
        own_port: By which this client came, as `ports` has it.
    """

    brokers: Brokers
    coordinators: Coordinators
    logs: LocalLogs
    doorbells: Doorbells
    config: KafkaConfig
    host: str
    port: int
    ports: Mapping[int, int]
    client_ip: str
    own_port: int

    def address(self, broker_id: int) -> tuple[str, int]:
        """Return where this client finds a broker: at the gateway, whose listeners are all alike."""
        return self.host, self.ports.get(broker_id, self.port)

    def addressed(self, broker_id: int) -> bool:
        """Whether this client, by the port where it came, speaks to a broker; several may have one port."""
        return self.address(broker_id)[1] == self.own_port
