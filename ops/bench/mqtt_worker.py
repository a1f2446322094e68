"""Raw-socket MQTT 3.1.1 publishers with a window, as fast as Python can: the same against any broker.

Each connection keeps `window` QoS 1 messages under way; the packets are made beforehand, so a PUBACK costs a slice.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import sys
import time
from typing import Any

IDS = 1000


def _string(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text


def _packet(kind: int, body: bytes) -> bytes:
    length, remaining = b"", len(body)
    while True:
        byte, remaining = remaining & 127, remaining >> 7
        length += bytes([byte | (128 if remaining else 0)])
        if not remaining:
            return bytes([kind]) + length + body


def connect(host: str, port: int, client_id: bytes) -> socket.socket:
    """Return a connected MQTT 3.1.1 session."""
    connection = socket.create_connection((host, port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(_packet(0x10, _string(b"MQTT") + bytes([4, 2]) + struct.pack(">H", 60) + _string(client_id)))
    answer = connection.recv(4)
    assert answer[:1] == b"\x20" and answer[3] == 0, f"CONNACK {answer!r}"  # noqa: PT018
    return connection


def subscribe_all(connection: socket.socket) -> None:
    """Subscribe to everything at QoS 1."""
    connection.sendall(_packet(0x82, struct.pack(">H", 1) + _string(b"#") + b"\x01"))


def topic_of(device: int) -> bytes:
    """Return a device's topic; all have one length."""
    return b"bench/device-%03d" % device


def publish_packet(topic: bytes, packet_id: int, size: int) -> bytes:
    """Return a QoS 1 PUBLISH of `size` bytes."""
    return _packet(0x32, _string(topic) + struct.pack(">H", packet_id) + bytes([65]) * size)


class _Publisher:
    def __init__(self, connection: socket.socket, topic: bytes, size: int, window: int) -> None:
        packets = [publish_packet(topic, packet_id + 1, size) for packet_id in range(IDS)]
        self._length = len(packets[0])
        self._ring = b"".join(packets) * 2
        self._next = 0
        self._window = window
        self._unsent = b""
        self._half = 0
        self.connection = connection
        self.acknowledged = 0

    def send(self, count: int) -> None:
        start = self._next * self._length
        self._unsent += self._ring[start : start + count * self._length]
        self._next = (self._next + count) % IDS
        sent = self.connection.send(self._unsent)
        self._unsent = self._unsent[sent:]

    def receive(self) -> int:
        data = self.connection.recv(65536)
        if not data:
            raise SystemExit("the broker closed the connection")
        acknowledged, self._half = divmod(self._half + len(data), 4)
        self.acknowledged += acknowledged
        return acknowledged


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    selector = selectors.DefaultSelector()
    publishers = []
    for index in range(arguments["connections"]):
        connection = connect(arguments["host"], arguments["port"], b"bench-%d" % index)
        publisher = _Publisher(connection, topic_of(index), arguments["size"], arguments["window"])
        selector.register(connection, selectors.EVENT_READ, publisher)
        publishers.append(publisher)
    start, start_monotonic, cpu = time.perf_counter(), time.monotonic(), time.process_time()
    for publisher in publishers:
        publisher.send(arguments["window"])
    end = start + arguments["seconds"]
    warm = start + 0.5
    warm_count = 0
    while (now := time.perf_counter()) < end:
        if warm and now > warm:
            warm_count, warm_at, warm = sum(p.acknowledged for p in publishers), now, 0.0
        for key, _ in selector.select(0.1):
            acknowledged = key.data.receive()
            if acknowledged:
                key.data.send(acknowledged)
    seconds = time.perf_counter() - warm_at
    total = sum(p.acknowledged for p in publishers) - warm_count
    for publisher in publishers:
        publisher.connection.close()
    return {
        "pubacks_per_s": total / seconds,
        "pubacks": total,
        "published": sum(p.acknowledged for p in publishers),
        "start_monotonic_s": start_monotonic,
        "seconds": seconds,
        "publisher_cpu_cores": (time.process_time() - cpu) / (time.perf_counter() - start),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
