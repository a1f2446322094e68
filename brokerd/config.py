"""What a broker process is told at its start; parsed and merged by ops, frozen here."""

from __future__ import annotations

import msgspec


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One broker process.

    Attributes:
        log_dir: The broker's own directory; it takes its lock before anything else.
        page_path: The state page, on tmpfs.
        failed_dir: Where a durable mark is left when the log directory fails; outside its disk if possible.
        endpoint: ZeroMQ endpoint for clients on this machine, ipc://…
        tcp_endpoint: ZeroMQ endpoint for clients elsewhere, tcp://host:port, empty for none.
        advertised_tcp_endpoint: What clients elsewhere are told, where there is a `tcp_endpoint`.
        peer_endpoint, peer_tcp_endpoint, advertised_peer_tcp_endpoint: The same for other brokers.
        kafka_endpoints: Where this machine's Kafka gateway has clients elsewhere find the broker: PLAINTEXT://host:port.
        site: The machine as a failure domain: the same for all brokers of one data directory.
        controller_endpoint: Where the controller listens.
        machine: The boot id of this machine.
    """

    broker_id: int
    cluster_id: str
    log_dir: str
    page_path: str
    failed_dir: str
    endpoint: str
    controller_endpoint: str
    machine: str = ""
    tcp_endpoint: str = ""
    advertised_tcp_endpoint: str = ""
    peer_endpoint: str = ""
    peer_tcp_endpoint: str = ""
    advertised_peer_tcp_endpoint: str = ""
    kafka_endpoints: list[str] = []
    site: str = ""
    rack: str = ""
    local_read: str = "group"
    auto_create_topics_enable: bool = True
    request_bytes_max: int = 104857600
    response_bytes_max: int = 16777216  # what one Fetch answer may hold, however much was asked for
    unsent_bytes_max: int = 268435456  # answers handed to ZeroMQ and not yet read by their peers, all together
