"""While another machine's process is the controller, tell this machine's brokers where it is."""

from __future__ import annotations

import threading
from collections.abc import Callable

import zmq

from brokerd.control.limits import REQUEST_LIMITS
from brokerd.sockets import BoundPaths, bind_router
from ingest.errors import ProtocolError, StorageError
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import BadRequest, decode_request, encode_response

POLL_MS = 100  # how long the end of the guide may have to wait for it


class Guide:
    """Answer each request on the controller's endpoint with NOT_CONTROLLER and the endpoint of the one that is.

    A context manager with a thread and sockets of its own, so that a store that waits for an answer holds nobody up.
    Who enters holds the lock of the directory, so binding steals no one's endpoint.

    Args:
        active: Returns where the controller serves, "" if that is not known; called in the thread.
    Raises:
        ConfigError: the endpoint can't be bound.
    """

    def __init__(self, endpoint: str, active: Callable[[], str]) -> None:
        self._active = active
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._endpoint = endpoint
        self._bind()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="guide", daemon=True)

    def _bind(self) -> None:
        limit = REQUEST_LIMITS.request_header_bytes_max
        self._socket = bind_router(self._context, self._endpoint, message_bytes_max=limit)
        self._bound = BoundPaths(self._endpoint)

    def __enter__(self) -> Guide:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._socket.close(linger=POLL_MS)
        self._context.term()

    def _serve(self) -> None:
        while not self._ending.is_set():
            if not self._socket.poll(POLL_MS):
                try:
                    self._bound.check()
                except StorageError:
                    self._socket.close(linger=0)
                    self._bind()
                continue
            peer, *frames = self._socket.recv_multipart()
            try:
                correlation_id = decode_request(frames, REQUEST_LIMITS).correlation_id
            except BadRequest as error:
                correlation_id = error.correlation_id
            except ProtocolError:
                continue
            answer = encode_response(correlation_id, None, ErrorCode.NOT_CONTROLLER, self._active())
            try:
                self._socket.send_multipart([peer, answer], zmq.NOBLOCK)
            except zmq.ZMQError:
                continue  # it has gone, or reads nothing
