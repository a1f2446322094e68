"""Produce requests, and just what the broker answers to them: clients would try again behind the test's back."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import zmq

from ingest.wire.codes import ErrorCode
from ingest.wire.frames import decode_body, decode_response, encode_request
from ingest.wire.messages import ApiKey, ProducePartition, ProduceRequest
from tests.brokerd.storage.stores import make_batch

ANSWER_MS = 10_000


class RawProducer:
    """A connection to one broker for batches that no reader could decode: they must never be committed.

    Args:
        endpoint: The broker's ipc socket.
    """

    def __init__(self, endpoint: Path) -> None:
        self._context = zmq.Context()
        self._peer = self._context.socket(zmq.DEALER)
        self._peer.set(zmq.LINGER, 0)
        self._peer.connect(f"ipc://{endpoint}")
        self._sent = 0

    def __enter__(self) -> RawProducer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._peer.close()
        self._context.term()

    def send(self, topic_id: bytes, partition: int, body: bytes, *, acks: int = -1) -> int:
        """Send one batch; return the number its answer will have."""
        self._sent += 1
        request = ProduceRequest(acks, [ProducePartition(topic_id, partition)])
        self._peer.send_multipart([encode_request(request, self._sent, ANSWER_MS), make_batch(body)])
        return self._sent

    def answer(self, timeout_ms: int = ANSWER_MS) -> tuple[int, ErrorCode, str]:
        """Wait for the next answer; return its number, and the partition's error code and message."""
        assert self._peer.poll(timeout_ms), "no answer"
        response = decode_response(self._peer.recv_multipart())
        if response.error_code:
            return response.correlation_id, ErrorCode(response.error_code), response.message
        produced = decode_body(response, ApiKey.PRODUCE).partitions[0]
        return response.correlation_id, ErrorCode(produced.error_code), produced.message
