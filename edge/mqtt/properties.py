"""MQTT 5 properties: which there are, of what type, and in which packets.

Source: MQTT 5.0 table 2-4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from edge.mqtt.codes import PacketType, Reason
from edge.mqtt.fields import (
    Violated,
    encode_binary,
    encode_string,
    encode_varint,
    malformed,
    read_binary,
    read_byte,
    read_string,
    read_uint16,
    read_uint32,
    read_varint,
)

USER_PROPERTIES_MAX = 200  # with ours they stay below the log's record_headers_max

Properties = Mapping["Property", Any]
UserProperties = Sequence[tuple[str, str]]


class Property(IntEnum):
    PAYLOAD_FORMAT_INDICATOR = 0x01
    MESSAGE_EXPIRY_INTERVAL = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY_INTERVAL = 0x11
    ASSIGNED_CLIENT_IDENTIFIER = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY_INTERVAL = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


P = Property
_BYTES = frozenset(
    {
        P.PAYLOAD_FORMAT_INDICATOR,
        P.REQUEST_PROBLEM_INFORMATION,
        P.REQUEST_RESPONSE_INFORMATION,
        P.MAXIMUM_QOS,
        P.RETAIN_AVAILABLE,
        P.WILDCARD_SUBSCRIPTION_AVAILABLE,
        P.SUBSCRIPTION_IDENTIFIER_AVAILABLE,
        P.SHARED_SUBSCRIPTION_AVAILABLE,
    }
)
_UINT16 = frozenset({P.SERVER_KEEP_ALIVE, P.RECEIVE_MAXIMUM, P.TOPIC_ALIAS_MAXIMUM, P.TOPIC_ALIAS})
_UINT32 = frozenset(
    {P.MESSAGE_EXPIRY_INTERVAL, P.SESSION_EXPIRY_INTERVAL, P.WILL_DELAY_INTERVAL, P.MAXIMUM_PACKET_SIZE}
)
_BINARY = frozenset({P.CORRELATION_DATA, P.AUTHENTICATION_DATA})
_NOT_ZERO = frozenset({P.RECEIVE_MAXIMUM, P.MAXIMUM_PACKET_SIZE, P.SUBSCRIPTION_IDENTIFIER})

_MESSAGE = frozenset(
    {
        P.PAYLOAD_FORMAT_INDICATOR,
        P.MESSAGE_EXPIRY_INTERVAL,
        P.CONTENT_TYPE,
        P.RESPONSE_TOPIC,
        P.CORRELATION_DATA,
        P.USER_PROPERTY,
    }
)
_ANSWER = frozenset({P.REASON_STRING, P.USER_PROPERTY})

WILL: frozenset[Property] = _MESSAGE | {P.WILL_DELAY_INTERVAL}
# what a client may send
ALLOWED: dict[PacketType, frozenset[Property]] = {
    PacketType.CONNECT: frozenset(
        {
            P.SESSION_EXPIRY_INTERVAL,
            P.AUTHENTICATION_METHOD,
            P.AUTHENTICATION_DATA,
            P.REQUEST_PROBLEM_INFORMATION,
            P.REQUEST_RESPONSE_INFORMATION,
            P.RECEIVE_MAXIMUM,
            P.TOPIC_ALIAS_MAXIMUM,
            P.USER_PROPERTY,
            P.MAXIMUM_PACKET_SIZE,
        }
    ),
    PacketType.PUBLISH: _MESSAGE | {P.TOPIC_ALIAS},
    PacketType.PUBREL: _ANSWER,
    PacketType.SUBSCRIBE: frozenset({P.SUBSCRIPTION_IDENTIFIER, P.USER_PROPERTY}),
    PacketType.UNSUBSCRIBE: frozenset({P.USER_PROPERTY}),
    PacketType.DISCONNECT: _ANSWER | {P.SESSION_EXPIRY_INTERVAL},
}


def read_properties(data: bytes, at: int, allowed: frozenset[Property]) -> tuple[dict[Property, Any], int]:
    """Read the properties at `at`; USER_PROPERTY becomes a list of pairs, in order.

    Raises:
        Violated: 0x81 unknown, not allowed here or cut; 0x82 twice or a forbidden value; 0x97 too many.
    """
    length, at = read_varint(data, at)
    end = at + length
    if end > len(data):
        raise malformed(f"{length} bytes of properties are announced, {len(data) - at} are left")
    found: dict[Property, Any] = {}
    region = data[:end]  # a property must not read beyond the properties
    while at < end:
        number, at = read_varint(region, at)
        if number not in allowed:
            raise malformed(f"property 0x{number:02x} can't be in this packet")
        name = Property(number)
        value: Any
        if name is P.USER_PROPERTY:
            key, at = read_string(region, at)
            value, at = read_string(region, at)
            pairs = found.setdefault(name, [])
            if len(pairs) >= USER_PROPERTIES_MAX:
                raise Violated(Reason.QUOTA_EXCEEDED, f"more than {USER_PROPERTIES_MAX} user properties")
            pairs.append((key, value))
            continue
        if name in found:
            raise Violated(Reason.PROTOCOL_ERROR, f"property {name.name} is there twice")
        value, at = _read_value(name, region, at)
        found[name] = value
    return found, end


def _read_value(name: Property, data: bytes, at: int) -> tuple[Any, int]:
    value: Any
    if name in _BYTES:
        value, at = read_byte(data, at)
        if value > 1:
            raise Violated(Reason.PROTOCOL_ERROR, f"{name.name} is {value}, neither 0 nor 1")
    elif name in _UINT16:
        value, at = read_uint16(data, at)
    elif name in _UINT32:
        value, at = read_uint32(data, at)
    elif name is P.SUBSCRIPTION_IDENTIFIER:
        value, at = read_varint(data, at)
    elif name in _BINARY:
        value, at = read_binary(data, at)
    else:
        value, at = read_string(data, at)
    if value == 0 and name in _NOT_ZERO:
        raise Violated(Reason.PROTOCOL_ERROR, f"{name.name} is 0")
    return value, at


def encode_properties(properties: Properties) -> bytes:
    """Encode properties with their length; USER_PROPERTY is a sequence of pairs."""
    out = bytearray()
    for name, value in properties.items():
        if name is P.USER_PROPERTY:
            for key, text in value:
                out += encode_varint(name) + encode_string(key) + encode_string(text)
            continue
        out += encode_varint(name)
        if name in _BYTES:
            out.append(value)
        elif name in _UINT16:
            out += value.to_bytes(2, "big")
        elif name in _UINT32:
            out += value.to_bytes(4, "big")
        elif name is P.SUBSCRIPTION_IDENTIFIER:
            out += encode_varint(value)
        elif name in _BINARY:
            out += encode_binary(value)
        else:
            out += encode_string(value)
    return encode_varint(len(out)) + bytes(out)
