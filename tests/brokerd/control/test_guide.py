"""The guide to another machine's controller."""

from __future__ import annotations

import time
from pathlib import Path

import zmq

from brokerd.control.guide import Guide
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import decode_response, encode_request
from ingest.wire.messages import ApiVersionsRequest


def ask(path: Path) -> tuple[int, str]:
    """Ask over a new connection."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 0)
        socket.connect(f"ipc://{path}")
        socket.send(encode_request(ApiVersionsRequest(), 1, 1000))
        assert socket.poll(5000), "no answer"
        response = decode_response(socket.recv_multipart())
        return response.error_code, response.message


def test_a_guide_whose_socket_was_removed_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "guide.sock"
    with Guide(f"ipc://{path}", lambda: "tcp://there:1"):
        assert ask(path) == (ErrorCode.NOT_CONTROLLER, "tcp://there:1")
        path.unlink()
        deadline = time.monotonic() + 10
        while not path.exists():
            assert time.monotonic() < deadline, "it is not bound again"
            time.sleep(0.01)
        assert ask(path) == (ErrorCode.NOT_CONTROLLER, "tcp://there:1")
