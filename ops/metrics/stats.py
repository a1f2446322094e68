"""What the monitor reads of the stats of gateways, and what it tells of itself.

Fields it doesn't know are ignored and absent ones take the default, so that a monitor reads processes of another
version, which an adopted appliance may hold.
"""

from __future__ import annotations

import msgspec

from ingest.latency import Histogram


class GatewayView(msgspec.Struct, frozen=True):
    """An input. Each record received is in exactly one of acknowledged, refused and in flight."""

    received_total: int = 0
    acknowledged_total: int = 0
    refused_total: int = 0
    unanswered_total: int = 0
    appended_total: int = 0
    in_flight: int = 0
    bytes_in_total: int = 0
    connections: int = 0
    held_bytes: int = 0
    dead_lettered_total: int = 0
    resends_attached_total: int = 0
    retried_total: int = 0
    connections_refused_total: int = 0
    auth_failures_total: int = 0
    malformed_total: int = 0
    takeovers_total: int = 0
    keep_alive_timeouts_total: int = 0
    sessions_lost_total: int = 0
    stale_acks_dropped_total: int = 0
    failed_total: int = 0


class RequestView(msgspec.Struct, frozen=True):
    """The requests of one API of Kafka's protocol."""

    seconds: Histogram
    errors_total: dict[str, int] = {}


class KafkaView(msgspec.Struct, frozen=True):
    """What a Kafka gateway counts beside what every input does."""

    apis: dict[str, RequestView] = {}
    bytes_in_total: int = 0
    bytes_out_total: int = 0
    connections: int = 0
    connections_opened_total: int = 0
    fetched_total: int = 0


GATEWAY_EVENTS = (
    "dead_lettered",
    "resends_attached",
    "retried",
    "connections_refused",
    "auth_failures",
    "malformed",
    "takeovers",
    "keep_alive_timeouts",
    "sessions_lost",
    "stale_acks_dropped",
    "failed",
)


class Balance(msgspec.Struct, frozen=True):
    """What came in by one input and what became of it: received = acknowledged + refused + in_flight.

    Attributes:
        refused: The sender was told no, or was never told.
        unanswered: Of those refused, the ones never told: their session or their gateway ended first.
    """

    received: int = 0
    acknowledged: int = 0
    refused: int = 0
    unanswered: int = 0
    in_flight: int = 0
    appended: int = 0


class MonitorStats(msgspec.Struct, frozen=True):
    """The monitor's own stats; `reasons` say why the appliance is not ready."""

    http_port: int
    ready: bool
    reasons: list[str]
    balance: dict[str, Balance]
    scrapes_total: int = 0
