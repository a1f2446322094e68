"""One device's MQTT 3.1.1 session: QoS 1, a window, reconnects, and what was not acknowledged sent again in order.

Small on purpose: it knows the five packets that a publisher needs. Thread: its asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import cast

KEEP_ALIVE_S = 30
RECONNECT_S = 0.2
CONNECT_TIMEOUT_S = 10.0
PENDING_MAX = 5000  # readings a device keeps while nothing is acknowledged; then it measures no more

_CONNACK, _PUBACK, _PINGRESP = 0x20, 0x40, 0xD0
_PUBLISH_QOS1, _DUP = 0x32, 0x08


def _string(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text


def _packet(kind: int, body: bytes) -> bytes:
    """Return a packet with its remaining length, MQTT-2.2.3."""
    length, left = bytearray(), len(body)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (0x80 if left else 0))
        if not left:
            return bytes([kind]) + bytes(length) + body


class Message:
    """One message on its way. `sent_s` is when it was first written to a socket."""

    __slots__ = ("packet_id", "payload", "sent_s", "seq", "topic", "transmissions")

    def __init__(self, seq: int, topic: bytes, payload: bytes) -> None:
        self.seq = seq
        self.topic = topic
        self.payload = payload
        self.packet_id = 0
        self.sent_s = 0.0
        self.transmissions = 0

    def encode(self) -> bytes:
        kind = _PUBLISH_QOS1 | (_DUP if self.transmissions else 0)
        return _packet(kind, _string(self.topic) + struct.pack(">H", self.packet_id) + self.payload)


class Publisher(asyncio.Protocol):
    """Publish one device's messages, each at least once.

    Args:
        on_acknowledged: Called with each message and the seconds from its first transmission to its PUBACK.

    Attributes:
        published: Messages taken.
        transmissions: By sequence number, of messages sent more than once.
    """

    def __init__(
        self, host: str, port: int, client_id: str, window: int, on_acknowledged: Callable[[Message, float], None]
    ) -> None:
        self._address = host, port
        self._client_id = client_id
        self._window = window
        self._on_acknowledged = on_acknowledged
        self._transport: asyncio.Transport | None = None
        self._accepted = False
        self._unread = b""
        self._pending: deque[Message] = deque()
        self._in_flight: dict[int, Message] = {}  # by packet id, in the order of their first transmission
        self._packet_id = 0
        self._lost = asyncio.Event()
        self._heard_s = 0.0
        self._wrote_s = 0.0
        self.published = 0
        self.acknowledged = 0
        self.connects = 0
        self.resent = 0
        self.refused = ""
        self.transmissions: dict[int, int] = {}

    @property
    def connected(self) -> bool:
        return self._accepted

    @property
    def unacknowledged(self) -> list[int]:
        """Sequence numbers without a PUBACK."""
        return [message.seq for message in (*self._in_flight.values(), *self._pending)]

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def idle(self) -> bool:
        """Whether everything taken is acknowledged."""
        return not self._in_flight and not self._pending

    @property
    def full(self) -> bool:
        """Whether the device can keep no more."""
        return len(self._pending) >= PENDING_MAX

    def publish(self, topic: bytes, payload: bytes) -> None:
        """Take one message; it gets the next sequence number."""
        self._pending.append(Message(self.published, topic, payload))
        self.published += 1
        self._send()

    async def run(self) -> None:
        """Stay connected until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._lost.clear()
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        await loop.create_connection(lambda: self, *self._address)
                    await self._lost.wait()
                await asyncio.sleep(RECONNECT_S)
        finally:
            if self._transport is not None:
                self._transport.write(b"\xe0\x00")  # DISCONNECT
                self._transport.close()

    def tick(self, now_s: float) -> None:
        """Keep the connection alive, or give one up that is dead."""
        if self._transport is None:
            return
        if now_s - self._heard_s > KEEP_ALIVE_S * 1.5 and now_s - self._wrote_s < KEEP_ALIVE_S:
            self._transport.abort()
        elif self._accepted and now_s - self._wrote_s > KEEP_ALIVE_S / 2:
            self._write(b"\xc0\x00")  # PINGREQ

    # ---- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without being its subclass
        self._accepted = False
        self._unread = b""
        self._heard_s = time.monotonic()
        self.connects += 1
        flags = 0x00  # not a clean session: the gateway knows what it acknowledged
        variable = _string(b"MQTT") + struct.pack(">BBH", 4, flags, KEEP_ALIVE_S)
        self._write(_packet(0x10, variable + _string(self._client_id.encode())))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._accepted = False
        self._lost.set()

    def data_received(self, data: bytes) -> None:
        self._heard_s = time.monotonic()
        data, at = self._unread + data, 0
        while len(data) - at >= 2 and len(data) - at >= 2 + data[at + 1]:
            self._take(data[at] & 0xF0, data[at + 2 : at + 2 + data[at + 1]])  # none is longer than 127 bytes
            at += 2 + data[at + 1]
        self._unread = data[at:]
        self._send()

    def _take(self, kind: int, body: bytes) -> None:
        if kind == _PUBACK:
            message = self._in_flight.pop(int.from_bytes(body[:2], "big"), None)
            if message is not None:
                self.acknowledged += 1
                if message.transmissions > 1:
                    self.transmissions[message.seq] = message.transmissions
                self._on_acknowledged(message, self._heard_s - message.sent_s)
        elif kind == _CONNACK:
            if body[1]:
                self.refused = f"CONNACK return code {body[1]}"
                assert self._transport is not None
                self._transport.abort()
                return
            self._accepted = True
            for message in self._in_flight.values():  # in their order, MQTT-4.6.0-1
                self.resent += 1
                self._transmit(message)

    def _send(self) -> None:
        """Send what the window has room for."""
        if not self._accepted:
            return
        while self._pending and len(self._in_flight) < self._window:
            message = self._pending.popleft()
            self._packet_id = self._packet_id % 65535 + 1
            message.packet_id = self._packet_id
            self._in_flight[self._packet_id] = message
            self._transmit(message)

    def _transmit(self, message: Message) -> None:
        if not message.transmissions:
            message.sent_s = time.monotonic()
        packet = message.encode()
        message.transmissions += 1
        if message.transmissions > 1:
            self.transmissions[message.seq] = message.transmissions
        self._write(packet)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._wrote_s = time.monotonic()
        self._transport.write(data)
