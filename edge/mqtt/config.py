"""What the gateway and the bridge are told at their start; parsed and merged by ops, frozen here."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge.mqtt.mapping import BRIDGE_RULES, GATEWAY_RULES, Mapping, Rule
from edge.security.listener import check_listener
from ingest.errors import ConfigError, RemoteError
from ingest.limits import KIB, MIB
from ingest.topic_name import check_topic_name

DAY_S = 86_400


class MqttConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One MQTT gateway.

    Attributes:
        bootstrap: The data directory of an appliance on this machine, or tcp://host:port,…
        port: 0: any free one, told by stats; -1: no listener without TLS.
        tls_port: The same for the listener with TLS; it needs `tls_cert_file` and `tls_key_file`.
        tls_client_ca_file: Only clients with a certificate signed by these may connect.
        password_file: Users and scrypt hashes, mode 0600; empty: everybody may publish.
        client_id_of_user: "any"; "equal": a client id is its user's name; "prefix": it may go on after one of - : / .
        allow_insecure: Listen beyond loopback without passwords, or without TLS.
        rules: First match wins.
        record_mid: Add the packet identifier as record header `mqtt.mid`.
        receive_maximum: QoS 1 and 2 messages of one connection that may be unacknowledged.
        packet_bytes_max: The largest packet of a client that is let in.
        held_bytes_max: Messages of one connection the log has no room for; beyond, its socket is not read.
        held_bytes_total_max: The same of all connections together, packets that are not whole included.
        unauthenticated_per_ip_max: Connections of one address without CONNECT; less than `unauthenticated_max`, or one
            address could shut out the others.
        connect_timeout_ms: From accepting a connection to its CONNECT, TLS and password included.
        failed_login_delay_ms: How long the answer to a wrong password is held back.
        stop_timeout_ms: How long a clean stop waits for acknowledgements.
    """

    bootstrap: str
    host: str = "127.0.0.1"
    port: int = 1883
    tls_port: int = -1
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_client_ca_file: str = ""
    password_file: str = ""
    client_id_of_user: str = "any"
    allow_insecure: bool = False
    rules: tuple[Rule, ...] = GATEWAY_RULES
    topics_max: int = 1000
    dead_letter_topic: str = "mqtt.dead-letter"
    record_mid: bool = False
    receive_maximum: int = 1000
    topic_alias_maximum: int = 32
    packet_bytes_max: int = 2 * MIB
    session_expiry_s_max: int = DAY_S
    sessions_max: int = 100_000
    connections_max: int = 10_000
    connections_per_ip_max: int = 10_000
    unauthenticated_max: int = 1_000
    unauthenticated_per_ip_max: int = 500
    connect_timeout_ms: int = 10_000
    failed_login_delay_ms: int = 1_000
    held_bytes_max: int = 256 * KIB
    held_bytes_total_max: int = 64 * MIB
    buffer_memory: int = 64 * MIB
    batch_size: int = 64 * KIB
    compression_type: str = "none"
    stop_timeout_ms: int = 5_000

    def check(self) -> None:
        """Check what the fields' types don't.

        Raises:
            ConfigError: names the field, its value and what to do.
        """
        if self.client_id_of_user not in ("any", "equal", "prefix"):
            raise ConfigError(f"mqtt: client_id_of_user={self.client_id_of_user!r} is none of any, equal, prefix")
        if self.client_id_of_user != "any" and not self.password_file:
            raise ConfigError(f"mqtt: client_id_of_user={self.client_id_of_user} needs password_file")
        if not 1 <= self.receive_maximum <= 65_535:
            raise ConfigError(f"mqtt: receive_maximum={self.receive_maximum} is not in 1..65535")
        if not 0 <= self.topic_alias_maximum <= 65_535:
            raise ConfigError(f"mqtt: topic_alias_maximum={self.topic_alias_maximum} is not in 0..65535")
        if not 1 * KIB <= self.packet_bytes_max <= self.buffer_memory // 4:
            most = self.buffer_memory // 4
            raise ConfigError(f"mqtt: packet_bytes_max={self.packet_bytes_max} is not in 1024..buffer_memory/4={most}")
        _check_topic("dead_letter_topic", self.dead_letter_topic)
        Mapping(self.rules, topics_max=self.topics_max)
        check_listener("mqtt", self)


class BridgeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One bridge: subscribes to an MQTT broker that already runs, and appends what comes.

    Attributes:
        filters: What to subscribe to; always QoS 1.
        share: Name of the MQTT 5 shared subscription, `$share/<share>/…`; empty: a subscription of its own.
        client_id: Fixed: the broker keeps this client's session while the bridge is away.
        password_file: A file of mode 0600 that holds the password alone.
        receive_maximum: Messages the broker may have sent that are not in the log yet.
        state_dir: Where the bridge notes that the broker holds a session for it; empty: nowhere.
    """

    bootstrap: str
    host: str = "127.0.0.1"
    port: int = 1883
    tls_ca_file: str = ""
    filters: tuple[str, ...] = ("#",)
    share: str = "forebay"
    client_id: str = "forebay-bridge"
    user: str = ""
    password_file: str = ""
    keep_alive_s: int = 30
    session_expiry_s: int = 7 * DAY_S
    receive_maximum: int = 1000
    rules: tuple[Rule, ...] = BRIDGE_RULES
    topics_max: int = 1000
    dead_letter_topic: str = "mqtt.dead-letter"
    record_mid: bool = False
    state_dir: str = ""
    held_bytes_max: int = 16 * MIB
    buffer_memory: int = 64 * MIB
    batch_size: int = 64 * KIB
    compression_type: str = "none"
    stop_timeout_ms: int = 5_000

    def check(self) -> None:
        """Check what the fields' types don't.

        Raises:
            ConfigError: names the field, its value and what to do.
        """
        if not self.client_id:
            raise ConfigError("bridge: client_id is empty: the broker could not keep a session")
        if not self.filters:
            raise ConfigError("bridge: filters is empty: nothing to subscribe to")
        if not 1 <= self.receive_maximum <= 65_535:
            raise ConfigError(f"bridge: receive_maximum={self.receive_maximum} is not in 1..65535")
        if any(mark in self.share for mark in "/+#"):
            raise ConfigError(f"bridge: share={self.share!r} holds one of / + #")
        _check_topic("dead_letter_topic", self.dead_letter_topic)
        Mapping(self.rules, topics_max=self.topics_max, with_client=False)


def read_secret(path: str) -> str:
    """Read a file that holds one secret.

    Raises:
        ConfigError: it can't be read, or others may read it.
    """
    try:
        if Path(path).stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others can read it; chmod 600 {path}")
        return Path(path).read_text().strip()
    except OSError as error:
        raise ConfigError(f"can't read the password file {path}: {error.strerror}") from None


def _check_topic(field: str, topic: str) -> None:
    try:
        check_topic_name(topic)
    except RemoteError as error:
        raise ConfigError(f"mqtt: {field}={topic!r}: {error}") from None
