"""Ask a control socket, one line for one line."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import msgspec

from ingest.errors import ForebayError, TransportError
from ingest.limits import MIB

ANSWER_BYTES_MAX = 32 * MIB


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of the appliance says of itself.

    Attributes:
        state: starting, running or stopping.
        ready: It has said that it serves; a standby that waits for its turn is running and not ready.
        supervised: Its supervisor lives.
        digest: Of the spec it was started with.
    """

    name: str
    role: str
    pid: int
    incarnation: int
    state: str
    uptime_s: float
    ready: bool = False
    supervised: bool = True
    digest: str = ""
    stats: msgspec.Raw = msgspec.Raw(b"null")


BACKLOG_RETRY_S = 0.01


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Connect to a control socket.

    Raises:
        TransportError: nobody listens.
    """
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    peer.settimeout(timeout_s)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            peer.connect(str(path))
        except BlockingIOError as error:  # its backlog is full; with a time-out connect() does not wait for that
            if time.monotonic() >= deadline:
                peer.close()
                raise TransportError(f"{path}: nobody takes the connection") from error
            time.sleep(BACKLOG_RETRY_S)
        except OSError as error:
            peer.close()
            raise TransportError(f"{path}: {error.strerror or error}") from None
        else:
            return peer


def ask(path: Path, command: str, *, timeout_s: float = 2.0) -> bytes:
    """Send a command and return the line that is answered.

    Raises:
        TransportError: nobody listens, or no whole answer came in time.
    """
    with connect(path, timeout_s) as peer:
        return ask_on(peer, command, timeout_s=timeout_s)


def ask_on(peer: socket.socket, command: str, *, timeout_s: float) -> bytes:
    """Like `ask`, over a connection that stays open."""
    deadline = time.monotonic() + timeout_s
    try:
        peer.sendall(command.encode() + b"\n")
        answer = bytearray()
        while not answer.endswith(b"\n"):
            peer.settimeout(max(0.001, deadline - time.monotonic()))
            data = peer.recv(1 << 16)
            if not data:
                raise TransportError(f"{command}: the process closed the connection")
            answer += data
            if len(answer) > ANSWER_BYTES_MAX:
                raise TransportError(f"{command}: the answer has no end")
    except OSError as error:
        raise TransportError(f"{command}: no answer within {timeout_s:g} s ({error.strerror or error})") from None
    return bytes(answer)


def decode_identity(line: bytes) -> Identity:
    """Read a process's answer to `stats` or `supervise`.

    Raises:
        ForebayError: it is none.
    """
    try:
        return msgspec.json.decode(line, type=Identity)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ForebayError(f"not a control socket's answer: {error}") from None
