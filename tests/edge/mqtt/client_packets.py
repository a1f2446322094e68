"""Packets as a device encodes them: the other half of edge/mqtt/packets.py."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from edge.mqtt.fields import encode_binary, encode_packet, encode_string
from edge.mqtt.packets import Will
from edge.mqtt.properties import Property, encode_properties

NONE: Mapping[Property, Any] = {}


def connect(
    client_id: str = "dev",
    *,
    version: int = 4,
    clean: bool = True,
    keep_alive: int = 60,
    user: str | None = None,
    password: bytes | None = None,
    will: Will | None = None,
    properties: Mapping[Property, Any] = NONE,
) -> bytes:
    flags = clean << 1 | (user is not None) << 7 | (password is not None) << 6
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
    body = encode_string("MQTT") + struct.pack(">BBH", version, flags, keep_alive)
    if version == 5:
        body += encode_properties(properties)
    body += encode_string(client_id)
    if will is not None:
        if version == 5:
            body += encode_properties(will.properties)
        body += encode_string(will.topic) + encode_binary(will.payload)
    if user is not None:
        body += encode_string(user)
    if password is not None:
        body += encode_binary(password)
    return encode_packet(0x10, body)


def publish(
    topic: str | bytes,
    payload: bytes = b"",
    *,
    qos: int = 0,
    mid: int = 0,
    dup: bool = False,
    retain: bool = False,
    version: int = 4,
    properties: Mapping[Property, Any] = NONE,
) -> bytes:
    raw = topic.encode() if isinstance(topic, str) else topic
    body = encode_binary(raw) + (mid.to_bytes(2, "big") if qos else b"")
    if version == 5:
        body += encode_properties(properties)
    return encode_packet(0x30 | dup << 3 | qos << 1 | retain, body + payload)


def pubrel(mid: int) -> bytes:
    return encode_packet(0x62, mid.to_bytes(2, "big"))


def subscribe(mid: int, filters: Sequence[str], *, version: int = 4) -> bytes:
    body = mid.to_bytes(2, "big") + (b"\0" if version == 5 else b"")
    return encode_packet(0x82, body + b"".join(encode_string(name) + b"\1" for name in filters))


def unsubscribe(mid: int, filters: Sequence[str], *, version: int = 4) -> bytes:
    body = mid.to_bytes(2, "big") + (b"\0" if version == 5 else b"")
    return encode_packet(0xA2, body + b"".join(encode_string(name) for name in filters))


def disconnect(*, version: int = 4, reason: int = 0, properties: Mapping[Property, Any] = NONE) -> bytes:
    if version == 4:
        return b"\xe0\x00"
    return encode_packet(0xE0, bytes((reason,)) + encode_properties(properties))


PINGREQ = b"\xc0\x00"


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Cut what the gateway sent into (first byte, body)."""
    packets, at = [], 0
    while at < len(data):
        length, shift, body = 0, 0, at + 1
        while True:
            byte = data[body]
            length |= (byte & 127) << shift
            shift, body = shift + 7, body + 1
            if byte < 128:
                break
        assert body + length <= len(data), "the gateway sent half a packet"
        packets.append((data[at], data[body : body + length]))
        at = body + length
    return packets
