"""MQTT packets as values: those a client sends, decoded; those the gateway sends, encoded.

Source: MQTT 3.1.1 and MQTT 5.0, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from edge.mqtt.codes import CONNACK_311, MQTT_5, MQTT_311, SUBACK_FAILURE_311, PacketType, Reason
from edge.mqtt.fields import (
    Violated,
    encode_packet,
    malformed,
    read_binary,
    read_byte,
    read_string,
    read_uint16,
)
from edge.mqtt.properties import ALLOWED, WILL, Properties, Property, encode_properties, read_properties

NO_PROPERTIES: Mapping[Property, Any] = {}
PINGRESP = b"\xd0\x00"


class Will(msgspec.Struct, frozen=True):
    """What the gateway publishes for a client that went without a DISCONNECT."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties = NO_PROPERTIES


class Connect(msgspec.Struct, frozen=True):
    """CONNECT. `version` other than 4 and 5: nothing but the version was read."""

    version: int
    client_id: str = ""
    clean_start: bool = True
    keep_alive_s: int = 0
    user: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = NO_PROPERTIES


class Publish(msgspec.Struct, gc=False):
    """PUBLISH, and what became of it while it is in flight.

    Attributes:
        flags: The first byte of the packet: type, DUP, QoS and RETAIN.
        topic: Its raw bytes; not checked.
        packet_id: Two bytes, empty for QoS 0.
        destination: Where it goes in the log.
        outcome: None: not known yet; 0: in the log; else the reason code it is refused with.
        orphan: Its connection is gone.
        counted: The balance has it already, as unanswered: its session ended before the log took it.
        digest: Of topic and payload, of an orphan whose payload was let go.
    """

    flags: int
    topic: bytes
    packet_id: bytes
    payload: bytes
    properties: dict[Property, Any] | None = None
    destination: Any = None
    outcome: int | None = None
    text: str = ""
    orphan: bool = False
    dead_letter: bool = False
    will: bool = False
    counted: bool = False
    digest: int = 0

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 3

    @property
    def dup(self) -> bool:
        return bool(self.flags & 8)


class PubRel(msgspec.Struct, frozen=True):
    packet_id: bytes


class Subscribe(msgspec.Struct, frozen=True):
    packet_id: bytes
    filters: list[str]


class Unsubscribe(msgspec.Struct, frozen=True):
    packet_id: bytes
    filters: list[str]


class PingReq(msgspec.Struct, frozen=True):
    pass


class Disconnect(msgspec.Struct, frozen=True):
    reason: int = 0
    session_expiry_s: int | None = None


class Violation(msgspec.Struct, frozen=True):
    """Not a packet: what the client broke. Nothing after it is read."""

    reason: Reason
    text: str


Packet = Connect | Publish | PubRel | Subscribe | Unsubscribe | PingReq | Disconnect | Violation
_PINGREQ = PingReq()


# ---- what a client sends ---------------------------------------------------------------------------------------------


def decode_packet(first: int, body: bytes, version: int) -> Packet:
    """Decode one packet that is not a PUBLISH.

    Raises:
        Violated: the reason code for the client.
    """
    decode = _DECODERS.get(first)
    if decode is None:
        if first >> 4 == PacketType.AUTH:
            raise Violated(Reason.PROTOCOL_ERROR, "AUTH without an authentication method")
        if first >> 4 in _CLIENT_TYPES:
            raise malformed(f"packet type {first >> 4} with flags {first & 15}")
        raise Violated(Reason.PROTOCOL_ERROR, f"packet type {first >> 4} from a client")
    return decode(body, version)


def _connect(body: bytes, _: int) -> Connect:
    name, at = read_string(body, 0)
    version, at = read_byte(body, at)
    if name != "MQTT":
        if name == "MQIsdp":
            return Connect(3)
        raise Violated(Reason.UNSUPPORTED_PROTOCOL_VERSION, f"protocol name {name[:20]!r} is not MQTT")
    if version not in (MQTT_311, MQTT_5):
        return Connect(version)
    flags, at = read_byte(body, at)
    if flags & 1:
        raise malformed("the reserved connect flag is set")  # MQTT-3.1.2-3
    will_qos = flags >> 3 & 3
    if will_qos == 3 or (not flags & 4 and flags & 0x38):
        raise malformed(f"connect flags 0x{flags:02x} make no sense for a will")  # MQTT-3.1.2-11 to -15
    if version == MQTT_311 and flags & 0x40 and not flags & 0x80:
        raise malformed("a password without a user name")  # MQTT-3.1.2-22 of 3.1.1
    keep_alive_s, at = read_uint16(body, at)
    properties: Properties = NO_PROPERTIES
    if version == MQTT_5:
        properties, at = read_properties(body, at, ALLOWED[PacketType.CONNECT])
    client_id, at = read_string(body, at)
    will = None
    if flags & 4:
        will, at = _will(body, at, flags, version)
    user = password = None
    if flags & 0x80:
        user, at = read_string(body, at)
    if flags & 0x40:
        password, at = read_binary(body, at)
    _check_end(body, at)
    return Connect(version, client_id, bool(flags & 2), keep_alive_s, user, password, will, properties)


def _will(body: bytes, at: int, flags: int, version: int) -> tuple[Will, int]:
    properties: Properties = NO_PROPERTIES
    if version == MQTT_5:
        properties, at = read_properties(body, at, WILL)
    topic, at = read_string(body, at)
    payload, at = read_binary(body, at)
    return Will(topic, payload, flags >> 3 & 3, bool(flags & 0x20), properties), at


def _pubrel(body: bytes, version: int) -> PubRel:
    packet_id, at = _packet_id(body)
    if version == MQTT_5 and at < len(body):
        _, at = read_byte(body, at)
        if at < len(body):
            _, at = read_properties(body, at, ALLOWED[PacketType.PUBREL])
    _check_end(body, at)
    return PubRel(packet_id)


def _subscribe(body: bytes, version: int) -> Subscribe:
    packet_id, at = _packet_id(body)
    if version == MQTT_5:
        _, at = read_properties(body, at, ALLOWED[PacketType.SUBSCRIBE])
    filters = []
    while at < len(body):
        name, at = read_string(body, at)
        options, at = read_byte(body, at)
        if options & (0xC0 if version == MQTT_5 else 0xFC) or options & 3 == 3:
            raise malformed(f"subscription options 0x{options:02x}")
        filters.append(name)
    if not filters:
        raise Violated(Reason.PROTOCOL_ERROR, "SUBSCRIBE without a topic filter")  # MQTT-3.8.3-2
    return Subscribe(packet_id, filters)


def _unsubscribe(body: bytes, version: int) -> Unsubscribe:
    packet_id, at = _packet_id(body)
    if version == MQTT_5:
        _, at = read_properties(body, at, ALLOWED[PacketType.UNSUBSCRIBE])
    filters = []
    while at < len(body):
        name, at = read_string(body, at)
        filters.append(name)
    if not filters:
        raise Violated(Reason.PROTOCOL_ERROR, "UNSUBSCRIBE without a topic filter")  # MQTT-3.10.3-2
    return Unsubscribe(packet_id, filters)


def _pingreq(body: bytes, _: int) -> PingReq:
    _check_end(body, 0)
    return _PINGREQ


def _disconnect(body: bytes, version: int) -> Disconnect:
    reason, at, properties = 0, 0, NO_PROPERTIES
    if version == MQTT_5 and body:
        reason, at = read_byte(body, at)
        if at < len(body):
            properties, at = read_properties(body, at, ALLOWED[PacketType.DISCONNECT])
    _check_end(body, at)
    return Disconnect(reason, properties.get(Property.SESSION_EXPIRY_INTERVAL))


def _packet_id(body: bytes) -> tuple[bytes, int]:
    number, at = read_uint16(body, 0)
    if number == 0:
        raise Violated(Reason.PROTOCOL_ERROR, "packet identifier 0")
    return body[:2], at


def _check_end(body: bytes, at: int) -> None:
    if at != len(body):
        raise malformed(f"{len(body) - at} bytes too many")


# the whole first byte: MQTT 5.0 section 2.1.3 fixes the flags of each type
_DECODERS: dict[int, Callable[[bytes, int], Packet]] = {
    0x10: _connect,
    0x62: _pubrel,
    0x82: _subscribe,
    0xA2: _unsubscribe,
    0xC0: _pingreq,
    0xE0: _disconnect,
}
_CLIENT_TYPES = frozenset(first >> 4 for first in _DECODERS)


# ---- what the gateway sends ------------------------------------------------------------------------------------------


def encode_connack(
    version: int, reason: Reason, *, present: bool = False, properties: Properties = NO_PROPERTIES
) -> bytes:
    """Encode CONNACK; empty when MQTT 3.1.1 has no code for the reason: then only closing is left."""
    if version == MQTT_5:
        return encode_packet(0x20, bytes((present, reason)) + encode_properties(properties))
    code = CONNACK_311.get(reason)
    return b"" if code is None else bytes((0x20, 2, present, code))


def encode_ack(kind: PacketType, packet_id: bytes, reason: int = 0, text: str = "") -> bytes:
    """Encode PUBACK, PUBREC or PUBCOMP; a reason other than 0 only for MQTT 5."""
    if not reason:
        return bytes((kind << 4, 2)) + packet_id
    properties = encode_properties({Property.REASON_STRING: text}) if text else b""
    return encode_packet(kind << 4, packet_id + bytes((reason,)) + properties)


def encode_suback(version: int, packet_id: bytes, reasons: Sequence[Reason], text: str = "") -> bytes:
    """Encode a SUBACK that refuses."""
    if version == MQTT_311:
        return encode_packet(0x90, packet_id + bytes((SUBACK_FAILURE_311,)) * len(reasons))
    properties = encode_properties({Property.REASON_STRING: text} if text else NO_PROPERTIES)
    return encode_packet(0x90, packet_id + properties + bytes(reasons))


def encode_unsuback(version: int, packet_id: bytes, count: int) -> bytes:
    """Encode the UNSUBACK of somebody who has no subscriptions."""
    if version == MQTT_311:
        return encode_packet(0xB0, packet_id)
    return encode_packet(0xB0, packet_id + b"\0" + bytes((Reason.NO_SUBSCRIPTION_EXISTED,)) * count)


def encode_disconnect(version: int, reason: Reason, text: str = "") -> bytes:
    """Encode DISCONNECT; empty for MQTT 3.1.1, where a server can only close."""
    if version != MQTT_5:
        return b""
    return encode_packet(0xE0, bytes((reason,)) + encode_properties({Property.REASON_STRING: text} if text else {}))
