"""What an API needs to serve a request: the brokers, who asks, and by which address."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass, field

from edge.kafka.brokers import Brokers
from edge.kafka.client_quotas import ClientQuotas
from edge.kafka.config import KafkaConfig
from edge.kafka.coordinators import Coordinators
from edge.kafka.doorbells import Doorbells
from edge.kafka.local_logs import LocalLogs
from edge.kafka.memory import Memory
from edge.kafka.places import Places
from edge.kafka.stats import Counters
from ingest.client.cluster import monotonic_ms

THROTTLE_MS_MAX = 30_000  # a connection is not read


@dataclass(slots=True)
class Context:
    """One connection, as APIs know it.

    Attributes:
        host: Where this client reaches the gateway.
        port: The gateway's first.
        places: Where brokers are found.
        client_ip: Of the peer.
        own_port: By which this client came, as clients are told it.
        is_tls: This client came by TLS.
        decoding: Of one thread, for what would keep the loop.
        principal: The user who has logged in, "" where nobody has to.
        checking: Held while batches of a Produce are checked.
        throttled_until_ms: The client is over its quota: its connection is not read before (KIP-219); monotonic.
    """

    brokers: Brokers
    coordinators: Coordinators
    logs: LocalLogs
    doorbells: Doorbells
    quotas: ClientQuotas
    counters: Counters
    memory: Memory
    config: KafkaConfig
    host: str
    port: int
    places: Places
    client_ip: str
    own_port: int
    is_tls: bool
    decoding: Executor
    throttled_until_ms: int = 0
    principal: str = ""
    checking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def throttle(self, throttle_ms: int) -> None:
        """Take note that a broker wants nothing from this client for a while."""
        if throttle_ms > 0:
            until_ms = monotonic_ms() + min(throttle_ms, THROTTLE_MS_MAX)
            self.throttled_until_ms = max(self.throttled_until_ms, until_ms)

    @property
    def throttle_ms(self) -> int:
        """Return for how long it wants nothing, 0: it may send."""
        return max(0, self.throttled_until_ms - monotonic_ms())

    def address(self, broker_id: int) -> tuple[str, int]:
        """Return where this client finds a broker: at its machine's gateway; at this one if that has none."""
        broker = self.brokers.all.get(broker_id)
        elsewhere = self.places.elsewhere(broker) if broker else None
        return elsewhere or (self.host, self.places.told.get(broker_id, self.port))

    def addressed(self, broker_id: int) -> bool:
        """Whether this client, by the port where it came, speaks to a broker; several may have one port."""
        return self.address(broker_id) == (self.host, self.own_port)

    def asked(self) -> list[int]:
        """Return the brokers that this client speaks to; all, where its port is no broker's."""
        known = list(self.brokers.all)
        return [broker_id for broker_id in known if self.addressed(broker_id)] or known
