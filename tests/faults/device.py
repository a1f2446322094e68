"""A device that publishes QoS 1 over MQTT 3.1.1 and keeps its session: what it sends, what it makes of answers. Pure.

After a reconnect it sends what is unacknowledged again, in the first order, with DUP where it was sent before
(MQTT-4.4.0-1). A message counts as sent when its last byte went to the system.
"""

from __future__ import annotations

from collections import deque

from tests.edge.mqtt.client_packets import connect, publish
from tests.faults.history import History

_CONNACK, _PUBACK = 0x20, 0x40
_MIDS = 65_535


class BrokenProtocol(Exception):
    """The gateway sent what no MQTT server may send."""


class Device:
    """One device. Thread: its fleet's.

    Args:
        number: Also its client id, `dev-NNNN`.
        count: How many messages it has to publish.
        window: How many may be unacknowledged.
    """

    def __init__(self, number: int, count: int, window: int, history: History) -> None:
        self.number = number
        self.count = count
        self.client_id = f"dev-{number:04d}"
        self._window = window
        self._history = history
        self._next_seq = 0
        self._unacknowledged: dict[int, int] = {}  # packet id -> sequence number, oldest first
        self._out: deque[tuple[bytes, int]] = deque()  # what is to be sent, and whose it is; -1: no message's
        self._received = b""
        self.accepted = False
        self.connections = 0
        self.answers = 0

    @property
    def done(self) -> bool:
        """Everything is published and acknowledged."""
        return self._next_seq >= self.count and not self._unacknowledged

    @property
    def waits(self) -> bool:
        """The gateway owes it an answer."""
        return not self.accepted or bool(self._unacknowledged)

    def stop(self) -> None:
        """Publish nothing new. Thread: any."""
        self.count = 0

    # ---- out

    def connected(self) -> None:
        """A connection was made; nothing of the last one is left but the session."""
        self._received = b""
        self.accepted = False
        self.connections += 1
        self._out = deque([(connect(self.client_id, clean=False), -1)])

    def publish_some(self, count: int) -> int:
        """Publish up to `count` new messages as far as the window allows; return how many."""
        if not self.accepted:
            return 0
        room = min(count, self._window - len(self._unacknowledged), self.count - self._next_seq)
        for _ in range(room):
            seq = self._next_seq
            self._next_seq += 1
            self._unacknowledged[seq % _MIDS + 1] = seq
            self._queue(seq, dup=False)
        return max(0, room)

    def _queue(self, seq: int, *, dup: bool) -> None:
        value = self._history.value(self.number, seq)
        topic = f"plant/{self.client_id}"
        self._out.append((publish(topic, value, qos=1, mid=seq % _MIDS + 1, dup=dup), seq))

    def unsent(self) -> bytes:
        """Return what is to go to the socket now."""
        return b"".join(packet for packet, _ in self._out)

    def sent(self, size: int) -> None:
        """So many bytes of `unsent` went out."""
        while size:
            packet, seq = self._out[0]
            if size < len(packet):
                self._out[0] = (packet[size:], seq)
                return
            self._out.popleft()
            size -= len(packet)
            if seq >= 0:
                self._history.transmitted(self.number, seq)

    # ---- in

    def receive(self, data: bytes, now_s: float) -> int:
        """Take what came; return how many messages it acknowledged.

        Raises:
            BrokenProtocol: it is not what a server may send; the connection is to be closed.
        """
        self.answers += 1
        self._received += data
        acknowledged = 0
        while len(self._received) >= 4:
            packet, self._received = self._received[:4], self._received[4:]
            kind, length, first, second = packet
            if length != 2 or kind not in (_CONNACK, _PUBACK):
                raise BrokenProtocol(f"{self.client_id}: {packet.hex()}")
            if kind == _CONNACK:
                if second or self.accepted:
                    raise BrokenProtocol(f"{self.client_id}: CONNACK {packet.hex()}")
                self.accepted = True
                for seq in self._unacknowledged.values():
                    self._queue(seq, dup=self._history.was_transmitted(self.number, seq))
                continue
            seq = self._unacknowledged.pop(first << 8 | second, -1)
            if seq < 0:
                raise BrokenProtocol(f"{self.client_id}: PUBACK for {first << 8 | second}, which is not in flight")
            if not self._history.was_transmitted(self.number, seq):
                raise BrokenProtocol(f"{self.client_id}: PUBACK for {seq}, which was never sent")
            self._history.acknowledged(self.number, seq, now_s)
            acknowledged += 1
        return acknowledged
