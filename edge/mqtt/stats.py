"""What a gateway or bridge counted, and the balance that must hold: received = acknowledged + refused + in flight."""

from __future__ import annotations

import msgspec


class Counters:
    """Counts of one process. Thread: its loop writes; any may read.

    Attributes:
        received: PUBLISHes that are not a resend of one in flight.
        acknowledged: In the log, and its sender was told, or asked for no answer (QoS 0).
        refused: Its sender was told no, or went before the message was even given to the log: it will send it again.
        unanswered: In the log or on its way there, and its session ended before its sender came back for the answer.
        appended: Records acknowledged by the log: messages, dead letters, wills.
    """

    __slots__ = (
        "acknowledged",
        "appended",
        "auth_failures",
        "bytes_in",
        "connections",
        "connections_refused",
        "dead_lettered",
        "held_bytes",
        "malformed",
        "paused",
        "received",
        "refused",
        "resends_attached",
        "retried",
        "sessions",
        "takeovers",
        "timeouts",
        "unanswered",
        "wills",
    )

    def __init__(self) -> None:
        self.received = 0
        self.acknowledged = 0
        self.refused = 0
        self.unanswered = 0
        self.appended = 0
        self.dead_lettered = 0
        self.wills = 0
        self.resends_attached = 0
        self.retried = 0
        self.bytes_in = 0
        self.connections = 0
        self.connections_refused = 0
        self.auth_failures = 0
        self.malformed = 0
        self.takeovers = 0
        self.timeouts = 0
        self.held_bytes = 0
        self.paused = 0
        self.sessions = 0

    def stats(self, *, port: int = -1, tls_port: int = -1) -> MqttStats:
        """Return a snapshot in which the balance holds, also while the loop goes on counting."""
        acknowledged, unanswered = (
            self.acknowledged,
            self.unanswered,
        )  # first these: received and appended only run ahead
        refused = self.refused + unanswered
        received, appended = self.received, self.appended
        return MqttStats(
            received_total=received,
            acknowledged_total=acknowledged,
            refused_total=refused,
            unanswered_total=unanswered,
            appended_total=appended,
            in_flight=received - acknowledged - refused,
            bytes_in_total=self.bytes_in,
            dead_lettered_total=self.dead_lettered,
            wills_total=self.wills,
            resends_attached_total=self.resends_attached,
            retried_total=self.retried,
            connections=self.connections,
            connections_refused_total=self.connections_refused,
            auth_failures_total=self.auth_failures,
            malformed_total=self.malformed,
            takeovers_total=self.takeovers,
            keep_alive_timeouts_total=self.timeouts,
            held_bytes=self.held_bytes,
            paused_connections=self.paused,
            sessions=self.sessions,
            port=port,
            tls_port=tls_port,
        )


class MqttStats(msgspec.Struct, frozen=True):
    """A gateway's stats; `_total` only rises in the life of its process.

    Attributes:
        refused_total: Told no, or never told: those are `unanswered_total` of them.
        held_bytes: Messages that wait in the gateway since the producer has no room.
        paused_connections: Sockets not read for that reason.
        port, tls_port: Where it listens, -1 nowhere.
    """

    received_total: int
    acknowledged_total: int
    refused_total: int
    unanswered_total: int
    appended_total: int
    in_flight: int
    bytes_in_total: int
    dead_lettered_total: int
    wills_total: int
    resends_attached_total: int
    retried_total: int
    connections: int
    connections_refused_total: int
    auth_failures_total: int
    malformed_total: int
    takeovers_total: int
    keep_alive_timeouts_total: int
    held_bytes: int
    paused_connections: int
    sessions: int
    port: int
    tls_port: int


class BridgeStats(msgspec.Struct, frozen=True):
    """A bridge's stats.

    Attributes:
        connections: 1 while the broker answers.
        sessions_lost_total: The broker had forgotten the session: what it had acknowledged for us is gone. Alarm.
        stale_acks_dropped_total: Acknowledgements of messages of an earlier connection; the broker sends those again.
    """

    received_total: int
    acknowledged_total: int
    refused_total: int
    unanswered_total: int
    appended_total: int
    in_flight: int
    bytes_in_total: int
    dead_lettered_total: int
    resends_attached_total: int
    retried_total: int
    connections: int
    connects_total: int
    sessions_lost_total: int
    stale_acks_dropped_total: int
    held_bytes: int
