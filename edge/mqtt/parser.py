"""The bytes of one connection in, packets out: a whole socket read at a time.

PUBLISH is by far the most frequent packet: it is taken apart in line, and everything else goes to packets.py.
"""

from __future__ import annotations

from edge.mqtt.codes import MQTT_5, PacketType, Reason
from edge.mqtt.fields import Violated, malformed, read_varint
from edge.mqtt.packets import Connect, Packet, Publish, Violation, decode_packet
from edge.mqtt.properties import ALLOWED, read_properties

CONNECT_BYTES_MAX = 128 * 1024  # a will of 64 KiB, the most its length can say, and room for the names
CONTROL_BYTES_MAX = 64 * 1024  # any packet but CONNECT and PUBLISH
_PUBLISH = ALLOWED[PacketType.PUBLISH]


class Parser:
    """Cut a stream of bytes into packets. It stops behind CONNECT until `accept`, and for good at a violation.

    Attributes:
        version: 4 or 5 once a CONNECT was read, before that 0.
        buffered_bytes: What is held of a packet that is not whole; at most `packet_bytes_max`.
    """

    __slots__ = ("_closed", "_needed", "_packet_bytes_max", "_tail", "_waiting", "version")

    def __init__(self, packet_bytes_max: int = CONNECT_BYTES_MAX) -> None:
        self._packet_bytes_max = min(packet_bytes_max, CONNECT_BYTES_MAX)
        self._tail = bytearray()
        self._needed = 0
        self._waiting = False
        self._closed = False
        self.version = 0

    @property
    def buffered_bytes(self) -> int:
        return len(self._tail)

    def accept(self, packet_bytes_max: int) -> list[Packet]:
        """Go on behind CONNECT, with the limit for clients that are let in; return what had already come."""
        self._packet_bytes_max = packet_bytes_max
        self._waiting = False
        self._needed = 0
        return self.feed(b"")

    def feed(self, data: bytes) -> list[Packet]:
        """Take what one socket read gave and return the packets that are whole.

        The last one may be a Violation; nothing comes after it.
        Cost: one copy of topic and payload; a packet that comes in pieces is copied once more.
        """
        if self._closed:
            return []
        tail = self._tail
        if tail or self._waiting:
            tail += data
            if self._waiting or len(tail) < self._needed:
                return []
            data = bytes(tail)
            tail.clear()
        packets: list[Packet] = []
        try:
            at = self._cut(data, packets)
        except Violated as error:
            self._closed = True
            packets.append(Violation(error.reason, str(error)))
            return packets
        if at < len(data):
            tail += memoryview(data)[at:]
        return packets

    def _cut(self, data: bytes, packets: list[Packet]) -> int:
        """Append the whole packets of `data` and return where the first that is not whole begins."""
        append = packets.append
        version = self.version
        at, end = 0, len(data)
        self._needed = 2
        while end - at >= 2:
            first, length, body = data[at], data[at + 1], at + 2
            if length > 127:
                if end - at < 5 and data[end - 1] > 127:  # the length itself is not whole
                    self._needed = end - at + 1
                    return at
                length, body = read_varint(data, at + 1)
                if length > CONTROL_BYTES_MAX or length > self._packet_bytes_max:
                    self._check_length(first, length)
            stop = body + length
            if stop > end:
                if not version and first != 0x10:
                    break
                self._needed = stop - at
                return at
            if first & 0xF0 == 0x30 and version:
                if length < 2:
                    raise malformed(f"a PUBLISH of {length} bytes")
                topic_end = body + 2 + (data[body] << 8 | data[body + 1])
                packet_id = b""
                payload = topic_end
                if first & 6:
                    payload += 2
                    packet_id = data[topic_end:payload]
                    if packet_id == b"\0\0" or first & 6 == 6:
                        raise malformed("PUBLISH with packet identifier 0 or QoS 3")  # MQTT-2.2.1-2, MQTT-3.3.1-4
                elif first & 8:
                    raise malformed("PUBLISH with DUP and QoS 0")  # MQTT-3.3.1-2
                if payload > stop:
                    raise malformed("the topic of a PUBLISH is longer than the packet")
                if version == MQTT_5:
                    if payload == stop:
                        raise malformed("a PUBLISH without properties")
                    if data[payload]:
                        packet = data[:stop]
                        found, payload = read_properties(packet, payload, _PUBLISH)
                        append(Publish(first, data[body + 2 : topic_end], packet_id, data[payload:stop], found))
                        at = stop
                        continue
                    payload += 1
                append(Publish(first, data[body + 2 : topic_end], packet_id, data[payload:stop]))
                at = stop
                continue
            if not version and first != 0x10:
                break
            packet_ = decode_packet(first, data[body:stop], version)
            append(packet_)
            at = stop
            if type(packet_) is Connect and not version:
                self.version = packet_.version
                self._waiting = True
                return at
        if end > at and not version and data[at] != 0x10:
            raise Violated(Reason.PROTOCOL_ERROR, f"the first packet is of type {data[at] >> 4}, not a CONNECT")
        return at

    def _check_length(self, first: int, length: int) -> None:
        limit = self._packet_bytes_max
        if first & 0xF0 != 0x30 and first != 0x10:
            limit = min(limit, CONTROL_BYTES_MAX)
        if length > limit:
            raise Violated(Reason.PACKET_TOO_LARGE, f"a packet of {length} bytes > {limit}")
