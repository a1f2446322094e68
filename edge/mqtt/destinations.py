"""Where the messages of one client go, with the record headers they get; made once for each kind of message."""

from __future__ import annotations

from typing import Any

import msgspec

from edge.mqtt.codes import Reason
from edge.mqtt.fields import Violated, decode_utf8
from edge.mqtt.mapping import Mapping, Unmapped
from edge.mqtt.packets import Publish
from edge.mqtt.properties import Property
from edge.mqtt.topics import name_problem

CACHED_MAX = 32  # kinds of message a client; a device has a few, and 10,000 connections must not cost gigabytes
RESERVED = "mqtt."
RESERVED_AS = "user."  # user property mqtt.x becomes header user.mqtt.x: nobody forges our headers

Header = tuple[str, bytes]


class Destination(msgspec.Struct, frozen=True, gc=False):
    """Topic, key and headers of a record."""

    topic: str
    key: bytes | None
    headers: tuple[Header, ...]


class BadTopic(msgspec.Struct, frozen=True, gc=False):
    """A topic name MQTT forbids."""

    reason: Reason
    text: str


def record_headers(topic: str, flags: int, client_id: str | None) -> tuple[Header, ...]:
    """Return the headers of every record that came over MQTT; `flags` is the first byte of its PUBLISH."""
    qos = (b"0", b"1", b"2")[flags >> 1 & 3]
    origin = () if client_id is None else (("mqtt.clientid", client_id.encode()),)
    return (
        ("mqtt.topic", topic.encode()),
        ("mqtt.qos", qos),
        *origin,
        ("mqtt.dup", b"1" if flags & 8 else b"0"),
        ("mqtt.retain", b"1" if flags & 1 else b"0"),
    )


def user_headers(properties: Any) -> tuple[Header, ...]:
    """Return MQTT 5 user properties as headers."""
    pairs = properties.get(Property.USER_PROPERTY, ())
    return tuple((RESERVED_AS + key if key.startswith(RESERVED) else key, value.encode()) for key, value in pairs)


class Destinations:
    """Find the destination of a client's messages. Thread: one.

    Args:
        client_id: None: a bridge never sees who published.

    Attributes:
        plain: By (flags & 15), then by raw topic: destinations of messages without properties. Callers look here first.
    """

    __slots__ = ("_cached", "_client_id", "_dead_letter_topic", "_mapping", "_with_mid", "plain")

    def __init__(self, client_id: str | None, mapping: Mapping, dead_letter_topic: str, *, with_mid: bool) -> None:
        self._client_id = client_id
        self._mapping = mapping
        self._dead_letter_topic = dead_letter_topic
        self._with_mid = with_mid
        self._cached = 0
        self.plain: dict[int, dict[bytes, Destination]] = {}

    def find(self, publish: Publish) -> Destination | Unmapped | BadTopic:
        """Return where a message goes, Unmapped for a reason to refuse it, BadTopic to end the connection."""
        try:
            topic = decode_utf8(publish.topic)
        except Violated as error:
            return BadTopic(error.reason, str(error))
        if problem := name_problem(topic):
            return BadTopic(Reason.TOPIC_NAME_INVALID, problem)
        route = self._mapping.route(topic, self._client_id or "")
        if isinstance(route, Unmapped):
            return route
        headers = record_headers(topic, publish.flags, self._client_id)
        if publish.will:
            headers += (("mqtt.will", b"1"),)
        if publish.properties is None and not self._with_mid and not publish.will:
            destination = Destination(route.topic, route.key, headers)
            self._keep(publish, destination)
            return destination
        if self._with_mid and publish.packet_id:
            headers += (("mqtt.mid", b"%d" % int.from_bytes(publish.packet_id, "big")),)
        if publish.properties is not None:
            headers += user_headers(publish.properties)
        return Destination(route.topic, route.key, headers)

    def dead_letter(self, publish: Publish, text: str) -> Destination:
        """Return where a message goes that can't go where it should, with the reason in its headers."""
        topic = publish.topic.decode(errors="replace")
        headers = (*record_headers(topic, publish.flags, self._client_id), ("mqtt.reason", text.encode()))
        if publish.properties is not None:
            headers += user_headers(publish.properties)
        key = topic if self._client_id is None else self._client_id
        return Destination(self._dead_letter_topic, key.encode() or None, headers)

    def _keep(self, publish: Publish, destination: Destination) -> None:
        if self._cached >= CACHED_MAX:
            self.plain.clear()
            self._cached = 0
        self.plain.setdefault(publish.flags, {})[publish.topic] = destination
        self._cached += 1
