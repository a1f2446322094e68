"""One produce request, and just what the broker answers to it: clients would try again behind the test's back."""

from __future__ import annotations

from pathlib import Path

import zmq

from ingest.wire.codes import ErrorCode
from ingest.wire.frames import decode_body, decode_response, encode_request
from ingest.wire.messages import ApiKey, ProducePartition, ProduceRequest
from tests.brokerd.storage.stores import make_batch

ANSWER_MS = 10_000


def produce_once(endpoint: Path, topic_id: bytes, partition: int, body_bytes: int) -> tuple[ErrorCode, str]:
    """Send one batch, which no reader could decode: it must be refused; return the partition's error code and message.

    Args:
        endpoint: The broker's ipc socket.
    """
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    try:
        peer.set(zmq.LINGER, 0)
        peer.connect(f"ipc://{endpoint}")
        body = ProduceRequest(-1, [ProducePartition(topic_id, partition)])
        peer.send_multipart([encode_request(body, 1, ANSWER_MS), make_batch(bytes(body_bytes))])
        assert peer.poll(ANSWER_MS), "no answer"
        response = decode_response(peer.recv_multipart())
        if response.error_code:
            return ErrorCode(response.error_code), response.message
        produced = decode_body(response, ApiKey.PRODUCE).partitions[0]
        return ErrorCode(produced.error_code), produced.message
    finally:
        peer.close()
        context.term()
