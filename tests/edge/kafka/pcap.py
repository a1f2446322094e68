"""Conversations over TCP, written as a capture file that was never on a wire.

    pcap    magic a1b2c3d4, version 2.4, link type 101 (bare IPv4); each packet: seconds, microseconds, size twice
    packet  20 bytes of IPv4, 20 of TCP, data; checksums are 0, which readers take for left to the hardware

Source: draft-ietf-opsawg-pcap, RFC 791, RFC 9293.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

FIRST_CLIENT_PORT = 40_000
SEGMENT_BYTES_MAX = 60_000
_LOOPBACK = bytes((127, 0, 0, 1))
_SYN, _ACK, _PUSH = 0x02, 0x10, 0x08


class Sent(NamedTuple):
    """What one side wrote."""

    by_client: bool
    data: bytes


def write_pcap(path: Path, server_port: int, conversations: Iterable[Sequence[Sent]]) -> None:
    """Write each conversation as a connection of its own, one packet for each write."""
    packets: list[bytes] = []
    for number, conversation in enumerate(conversations):
        ports = (server_port, FIRST_CLIENT_PORT + number)  # by whether the client sends
        next_seq = [1000, 2000]

        def add(by_client: bool, flags: int, data: bytes = b"", ports=ports, next_seq=next_seq) -> None:  # type: ignore[no-untyped-def]
            tcp = struct.pack(
                ">HHIIBBHHH",
                ports[by_client],
                ports[not by_client],
                next_seq[by_client],
                next_seq[not by_client] if flags & _ACK else 0,
                5 << 4,
                flags,
                65_535,
                0,
                0,
            )
            size = 20 + len(tcp) + len(data)
            ip = struct.pack(">BBHHHBBH", 0x45, 0, size, len(packets) & 0xFFFF, 0, 64, 6, 0) + _LOOPBACK + _LOOPBACK
            packets.append(ip + tcp + data)
            next_seq[by_client] += len(data) + (1 if flags & _SYN else 0)

        add(True, _SYN)
        add(False, _SYN | _ACK)
        add(True, _ACK)
        for by_client, data in conversation:
            for start in range(0, len(data), SEGMENT_BYTES_MAX):
                add(by_client, _ACK | _PUSH, data[start : start + SEGMENT_BYTES_MAX])
    with path.open("wb") as file:
        file.write(struct.pack(">IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 101))
        for number, packet in enumerate(packets):
            file.write(struct.pack(">IIII", number // 1000, number % 1000 * 1000, len(packet), len(packet)) + packet)
