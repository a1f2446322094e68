"""What the Kafka gateway is told at its start; parsed and merged by ops, frozen here."""

from __future__ import annotations

import msgspec

from edge.security.listener import check_listener
from ingest.errors import ConfigError
from ingest.limits import MIB

PROCESSES_MAX = 16
PORTS_OF_BROKERS = 128  # two for each of as many as an appliance may have


class KafkaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One Kafka gateway.

    Attributes:
        bootstrap: The data directory of an appliance on this machine, or tcp://host:port,…
        port: Of the first broker id, the others' are each two higher; 0: any free ones; -1: there is no gateway.
        broker_ports: By id, of the brokers of this machine; empty: of a gateway that stands alone, which has all ids.
        processes: How many listen on the same ports, for more cores.
        tls_port, broker_tls_ports: The same of the listeners with TLS; they need `tls_cert_file` and `tls_key_file`.
        tls_client_ca_file: Only clients with a certificate signed by these may connect.
        password_file: Users, mode 0600; they log in by SASL. Empty: everybody may do everything.
        allow_insecure: Listen beyond loopback without passwords, or without TLS.
        advertised_host, advertised_port: Where clients are told to connect to; empty and 0: where they have connected.
        advertised_tls_port: The same of those who came by TLS.
        request_bytes_max: The largest Produce; other requests are `other_bytes_max` at most.
        queued_max_request_bytes: Of all requests that wait for their answers, of all that are not whole yet, and of
            answers that are not read.
        connections_max, connections_per_ip_max: At once; others are closed at once.
        unauthenticated_max, unauthenticated_per_ip_max: The same of those that have not logged in.
        connect_timeout_ms: From accepting a connection to its login, and as long for TLS before.
        failed_login_delay_ms: How long the answer to a wrong password is held back.
        auto_create_topics: Of names that clients ask for and allow to be created.
    """

    bootstrap: str
    host: str = "127.0.0.1"
    port: int = 9092
    broker_ports: dict[int, int] = {}
    processes: int = 1
    tls_port: int = -1
    broker_tls_ports: dict[int, int] = {}
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_client_ca_file: str = ""
    password_file: str = ""
    allow_insecure: bool = False
    advertised_host: str = ""
    advertised_port: int = 0
    advertised_tls_port: int = 0
    request_bytes_max: int = 100 * MIB
    other_bytes_max: int = 1 * MIB
    queued_max_request_bytes: int = 128 * MIB
    connections_max: int = 10_000
    connections_per_ip_max: int = 10_000
    unauthenticated_max: int = 1_000
    unauthenticated_per_ip_max: int = 500
    connect_timeout_ms: int = 10_000
    failed_login_delay_ms: int = 1_000
    auto_create_topics: bool = True

    def check(self) -> None:
        """Check what the fields' types don't.

        Raises:
            ConfigError: names the field, its value and what to do.
        """
        if not 1 * MIB <= self.other_bytes_max <= self.request_bytes_max <= 1024 * MIB:
            raise ConfigError(
                f"kafka: request_bytes_max={self.request_bytes_max} and other_bytes_max={self.other_bytes_max}: "
                "expected 1 MiB <= other_bytes_max <= request_bytes_max <= 1 GiB"
            )
        if self.queued_max_request_bytes < self.request_bytes_max:
            raise ConfigError(
                f"kafka: queued_max_request_bytes={self.queued_max_request_bytes} is less than one request may have, "
                f"request_bytes_max={self.request_bytes_max}"
            )
        if not 1 <= self.processes <= PROCESSES_MAX:
            raise ConfigError(f"kafka: processes={self.processes}: expected 1 to {PROCESSES_MAX}")
        if not 0 <= self.advertised_port <= 65_535:
            raise ConfigError(f"kafka: advertised_port={self.advertised_port} is no port")
        if not 0 <= self.advertised_tls_port <= 65_535:
            raise ConfigError(f"kafka: advertised_tls_port={self.advertised_tls_port} is no port")
        between = abs(self.port - self.tls_port)
        if min(self.port, self.tls_port) > 0 and between % 2 == 0 and between < PORTS_OF_BROKERS:
            raise ConfigError(
                f"kafka: port={self.port}, tls_port={self.tls_port}: brokers take every other port from each on; "
                "set an even and an odd one, as 9092 and 9093"
            )
        check_listener("kafka", self)
