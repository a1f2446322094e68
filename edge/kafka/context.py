"""What an API needs to serve a request: the brokers, who asks, and by which address."""

from __future__ import annotations

from dataclasses import dataclass

from edge.kafka.brokers import Brokers
from edge.kafka.config import KafkaConfig
from edge.kafka.coordinators import Coordinators


@dataclass(slots=True)
class Context:
    """One connection, as APIs know it.

    Attributes:
        host, port: Where this client reaches the gateway: every broker is advertised there.
        client_ip: Of the peer.
    """

    brokers: Brokers
    coordinators: Coordinators
    config: KafkaConfig
    host: str
    port: int
    client_ip: str
