"""What a Kafka client sees first of a gateway: which APIs it serves, and where it says that brokers are.

Written by hand, of two old versions that every broker answers: the library takes a third of a second to be loaded.
Source: Kafka's ApiVersionsRequest (version 0) and MetadataRequest (version 1).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import NamedTuple

from edge.kafka.fields import Malformed

_METADATA, _API_VERSIONS = 3, 18
_ANSWER_BYTES_MAX = 1 << 20
_NO_TOPICS = struct.pack(">i", 0)


class CertificateWanted(Exception):
    """The gateway lets in only clients that have a certificate."""


class Seen(NamedTuple):
    """What a gateway told.

    Attributes:
        versions: By API key, the lowest and the highest.
        brokers: By id, host and port; None: it did not say without a login.
    """

    versions: dict[int, tuple[int, int]]
    brokers: dict[int, tuple[str, int]] | None


def look(host: str, port: int, *, timeout_s: float, tls: bool = False) -> Seen:
    """Connect and ask; whose certificate it is does not matter.

    Raises:
        CertificateWanted: there is TLS, and it closes before anything is said.
        OSError: nobody answers, or not by TLS.
        Malformed: who answers does not speak Kafka's protocol.
    """
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(socket.create_connection((host, port), timeout_s))
        if tls:
            trusting_all = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trusting_all.check_hostname, trusting_all.verify_mode = False, ssl.CERT_NONE
            peer = stack.enter_context(trusting_all.wrap_socket(peer, server_hostname=host))
        try:
            versions = _versions(_ask(peer, _API_VERSIONS, 0, b""))
        except (ConnectionError, ssl.SSLError) as error:
            if tls:
                raise CertificateWanted(str(error)) from None
            raise
        try:
            brokers = _brokers(_ask(peer, _METADATA, 1, _NO_TOPICS))
        except ConnectionError:
            brokers = None
    return Seen(versions, brokers)


def _ask(peer: socket.socket, api_key: int, version: int, body: bytes) -> bytes:
    client_id = b"forebay-doctor"
    head = struct.pack(">hhih", api_key, version, api_key, len(client_id)) + client_id
    peer.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
    (size,) = struct.unpack(">i", _receive(peer, 4))
    if not 4 <= size <= _ANSWER_BYTES_MAX:
        raise Malformed(f"an answer of {size} bytes")
    return _receive(peer, size)[4:]


def _receive(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise ConnectionError("it closed the connection")
        data += more
    return data


def _versions(answer: bytes) -> dict[int, tuple[int, int]]:
    try:
        error, count = struct.unpack_from(">hi", answer)
        if error:
            raise Malformed(f"error {error} to ApiVersions")
        found = [struct.unpack_from(">hhh", answer, 6 + 6 * index) for index in range(count)]
    except struct.error as error:
        raise Malformed(f"ApiVersions: {error}") from None
    return {key: (lowest, highest) for key, lowest, highest in found}


def _brokers(answer: bytes) -> dict[int, tuple[str, int]]:
    found = {}
    try:
        (count,) = struct.unpack_from(">i", answer)
        position = 4
        for _ in range(count):
            broker_id, size = struct.unpack_from(">ih", answer, position)
            host = answer[position + 6 : position + 6 + size].decode()
            position += 6 + size
            port, rack = struct.unpack_from(">ih", answer, position)
            position += 6 + max(rack, 0)
            found[broker_id] = (host, port)
    except (struct.error, UnicodeDecodeError) as error:
        raise Malformed(f"Metadata: {error}") from None
    return found
