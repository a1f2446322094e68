"""A device on a plain socket: sends the bytes a test wants, reads packet by packet."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from tests.edge.mqtt import client_packets as c


class RawDevice:
    """One connection. Thread: the test's."""

    def __init__(
        self, port: int, *, tls: ssl.SSLContext | None = None, timeout: float = 10, receive_buffer: int = 0
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self._read = b""

    def __enter__(self) -> RawDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes] | None:
        """Read one packet; None: the gateway closed the connection."""
        while True:
            packet = self._whole()
            if packet is not None:
                return packet
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._read += data

    def _whole(self) -> tuple[int, bytes] | None:
        length, shift, at = 0, 0, 1
        while at < len(self._read):
            byte = self._read[at]
            length |= (byte & 127) << shift
            shift, at = shift + 7, at + 1
            if byte < 128:
                if len(self._read) < at + length:
                    return None
                packet = self._read[0], self._read[at : at + length]
                self._read = self._read[at + length :]
                return packet
        return None

    def connect(self, *args: Any, **options: Any) -> bytes:
        """Send CONNECT and return the body of the CONNACK."""
        self.send(c.connect(*args, **options))
        packet = self.receive()
        assert packet is not None
        assert packet[0] == 0x20
        return packet[1]
