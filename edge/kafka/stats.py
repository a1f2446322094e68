"""What a Kafka gateway counted."""

from __future__ import annotations

import msgspec

from edge.kafka.request_counts import RequestCounts, RequestStats


class Counters:
    """Counts of one process. Thread: its loop writes; any may read.

    Attributes:
        connections_opened: All that were accepted so far, those that were refused at once too.
        malformed: Connections closed for bytes that are no request.
        auth_failures: Logins that failed.
        failed: Requests that ended in an error of ours; their connections were closed.
        received: Records of Produce requests; of a batch that is not one, 1.
        acknowledged: In the log, and the client was told, or asked for no answer (acks=0).
        refused: The client was told no.
        unanswered: Its connection ended before the log had answered.
        appended: Records acknowledged by the log.
        fetched: Records sent to clients.
    """

    __slots__ = (
        "acknowledged",
        "apis",
        "appended",
        "auth_failures",
        "bytes_in",
        "bytes_out",
        "connections",
        "connections_opened",
        "connections_refused",
        "failed",
        "fetched",
        "malformed",
        "received",
        "refused",
        "requests",
        "unanswered",
    )

    def __init__(self) -> None:
        self.apis = RequestCounts()
        self.requests = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.connections = 0
        self.connections_opened = 0
        self.connections_refused = 0
        self.malformed = 0
        self.auth_failures = 0
        self.failed = 0
        self.received = 0
        self.acknowledged = 0
        self.refused = 0
        self.unanswered = 0
        self.appended = 0
        self.fetched = 0

    def stats(self, *, port: int = -1, tls_port: int = -1) -> KafkaStats:
        """Return a snapshot in which the balance holds, also while the loop goes on counting."""
        acknowledged, unanswered = self.acknowledged, self.unanswered  # first these: received only runs ahead
        refused = self.refused + unanswered
        received, appended = self.received, self.appended
        return KafkaStats(
            port=port,
            tls_port=tls_port,
            apis=self.apis.stats(),
            requests_total=self.requests,
            bytes_in_total=self.bytes_in,
            bytes_out_total=self.bytes_out,
            connections=self.connections,
            connections_opened_total=self.connections_opened,
            connections_refused_total=self.connections_refused,
            malformed_total=self.malformed,
            auth_failures_total=self.auth_failures,
            failed_total=self.failed,
            received_total=received,
            acknowledged_total=acknowledged,
            refused_total=refused,
            unanswered_total=unanswered,
            appended_total=appended,
            in_flight=received - acknowledged - refused,
            fetched_total=self.fetched,
        )


class KafkaStats(msgspec.Struct, frozen=True, kw_only=True):
    """`Counters` as they were at a moment, and where the gateway listens.

    Attributes:
        apis: By Kafka's name.
        refused_total: Told no, or never told: those are `unanswered_total` of them.
    """

    port: int
    tls_port: int
    apis: dict[str, RequestStats]
    requests_total: int
    bytes_in_total: int
    bytes_out_total: int
    connections: int
    connections_opened_total: int
    connections_refused_total: int
    malformed_total: int
    auth_failures_total: int
    failed_total: int
    received_total: int
    acknowledged_total: int
    refused_total: int
    unanswered_total: int
    appended_total: int
    in_flight: int
    fetched_total: int
