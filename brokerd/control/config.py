"""What a controller process is told at its start; parsed and merged by ops, frozen here."""

from __future__ import annotations

import msgspec

SESSION_TIMEOUT_MS = 18_000  # Kafka's zookeeper.session.timeout.ms


class ZookeeperConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata store of a cluster of several machines.

    Attributes:
        connect: host:port,host:port/folder; Kafka's zookeeper.connect.
        credentials: "user:password", or nothing.
        machine: Tells this machine from the others of the cluster, for ever.
        broker_ids: The brokers of this machine; candidates elsewhere see whether it reaches the servers.
        kafka_endpoints: By broker id, where its machine's Kafka gateway is: PLAINTEXT://host:port.
    """

    connect: str
    credentials: str = ""
    session_timeout_ms: int = SESSION_TIMEOUT_MS
    machine: str
    broker_ids: list[int] = []
    kafka_endpoints: dict[int, list[str]] = {}


class ControllerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate for controller.

    Attributes:
        directory: <data-dir>/controller; all candidates of a cluster on one machine share it.
        endpoint: Where brokers of this machine reach the controller or hear where it is, ipc://…; bound only once the
            lock is held.
        tcp_endpoint: Where brokers of other machines reach it, tcp://host:port; empty with one machine.
        advertised_tcp_endpoint: What they are told.
        zookeeper: The store of several machines; None: a file in `directory`.
        broker_configs: Settings under Kafka's broker names, already checked; the defaults of every topic.
        session_timeout_ms: A broker that says nothing for so long is marked dead; Kafka's broker.session.timeout.ms.
    """

    directory: str
    cluster_id: str
    endpoint: str
    broker_configs: dict[str, str] = {}
    session_timeout_ms: int = 2500
    tcp_endpoint: str = ""
    advertised_tcp_endpoint: str = ""
    zookeeper: ZookeeperConfig | None = None
