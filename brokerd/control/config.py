"""What a controller process is told at its start; parsed and merged by ops, frozen here."""

from __future__ import annotations

import msgspec


class ControllerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate for controller.

    Attributes:
        directory: <data-dir>/controller; all candidates of a cluster on one machine share it.
        endpoint: Where brokers reach the active controller, ipc://…; bound only once the lock is held.
        broker_configs: Settings under Kafka's broker names, already checked; the defaults of every topic.
        session_timeout_ms: A broker that says nothing for so long is marked dead; Kafka's broker.session.timeout.ms.
    """

    directory: str
    cluster_id: str
    endpoint: str
    broker_configs: dict[str, str] = {}
    session_timeout_ms: int = 2500
