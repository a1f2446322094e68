"""Answers on their way out: what the request handlers produce and the loop sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ingest.limits import LIMITS
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import encode_response
from ingest.wire.message import Message

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Peer(NamedTuple):
    """Who asked what and when: the socket it came in by and the ROUTER's name for the connection."""

    socket: int
    identity: bytes
    api_key: int = -1
    received_ns: int = 0

    @property
    def connection(self) -> tuple[int, bytes]:
        return self.socket, self.identity


class Answer(NamedTuple):
    """One message to send to one peer."""

    peer: Peer
    header: bytes
    payload: list[Buffer]


class Outbox:
    """Collect answers in the order they were decided. Thread: the broker loop."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def answer(self, peer: Peer, correlation_id: int, body: Message, payload: list[Buffer] | None = None) -> None:
        """Answer; what its peer could not take, as an answer too large for a header, is refused instead."""
        header = encode_response(correlation_id, body)
        if len(header) > LIMITS.response_header_bytes_max:
            text = f"the answer has {len(header)} bytes, more than {LIMITS.response_header_bytes_max}; ask for less"
            self.refuse(peer, correlation_id, ErrorCode.MESSAGE_TOO_LARGE, text)
            return
        self.answers.append(Answer(peer, header, payload or []))

    def refuse(self, peer: Peer, correlation_id: int, code: ErrorCode, message: str) -> None:
        self.answers.append(Answer(peer, encode_response(correlation_id, None, code, message), []))

    def pass_on(self, peer: Peer, header: bytes) -> None:
        """Send a header frame that is encoded already."""
        self.answers.append(Answer(peer, header, []))

    def take(self) -> list[Answer]:
        answers, self.answers = self.answers, []
        return answers
