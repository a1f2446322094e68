"""One DEALER to one broker, with a monitor that tells when the broker has gone. Thread: its owner's."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zmq

from ingest.errors import ProtocolError, TransportError
from ingest.wire.frames import Response, decode_response

if TYPE_CHECKING:
    from typing_extensions import Buffer

_EVENT = struct.Struct("=Hi")  # event, value; zmq_socket_monitor(3). pyzmq's helper imports asyncio, 40 ms
_WATCHED = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED


def nearest_endpoint(endpoints: Sequence[str], machine: str, own_machine: str) -> str | None:
    """Return the nearest endpoint of a broker: ipc on the same machine where we may use it, tcp otherwise.

    Args:
        machine, own_machine: The boot ids of the broker's machine and of this one.
    """
    for endpoint in endpoints:
        if not endpoint.startswith("ipc://"):
            return endpoint
        if machine == own_machine and os.access(endpoint.removeprefix("ipc://"), os.W_OK):
            return endpoint
    return None


class Connection:
    """A connection that re-connects by itself; what was under way when it broke is the caller's to ask again.

    Attributes:
        lost: How often the broker has gone; a request sent before that will not be answered.
    Raises:
        TransportError: nothing can ever be reached under such an endpoint; no socket is left open.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.endpoint = endpoint
        self.lost = 0
        self.connected = False
        socket = context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.IMMEDIATE, 1)
        socket.set(zmq.RECONNECT_IVL, 5)
        socket.set(zmq.RECONNECT_IVL_MAX, 100)
        socket.set(zmq.SNDHWM, 128)
        socket.set(zmq.RCVHWM, 128)
        if endpoint.startswith("tcp:"):
            socket.set(zmq.HEARTBEAT_IVL, 1000)
            socket.set(zmq.HEARTBEAT_TIMEOUT, 3000)
            socket.set(zmq.CONNECT_TIMEOUT, 2000)  # the kernel asks a machine that was away again after up to a minute
            socket.set(zmq.IPV6, 1)
        self._monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_WATCHED)
        self._socket = socket
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()  # an open socket would keep its context, and so the process, from ever ending
            raise TransportError(f"{endpoint} can't be connected to: {error.strerror}") from None

    @property
    def sockets(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        return self._socket, self._monitor

    @property
    def fds(self) -> tuple[int, int]:
        """Descriptors that become readable once `poll` has something to do; valid only after `poll` found nothing."""
        return self._socket.FD, self._monitor.FD

    def send(self, header: bytes, payload: Sequence[Buffer] = ()) -> bool:
        """Hand one message to ZeroMQ; False: there is no connection or too much is queued.

        Cost: a copy. Shared buffers would be freed by a thread of pyzmq's, which fights the caller for the GIL:
        30 % of the throughput at 64 KiB batches.
        """
        frames: list[Any] = [header, *payload]
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def poll(self, *, watch: bool = True) -> list[Response]:
        """Take all answers that have come, then see whether the broker has gone meanwhile (`lost` grows).

        Args:
            watch: Look at the monitor too; without, only if its descriptor is not readable.
        """
        responses = []
        socket = self._socket
        while int(socket.get(zmq.EVENTS)) & zmq.POLLIN:  # an exception for "nothing there" costs three times as much
            frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
            try:
                responses.append(decode_response([frame.buffer for frame in frames]))
            except ProtocolError:
                self.lost += 1  # whose answer it was is unknown
        while watch and int(self._monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            event = _EVENT.unpack(self._monitor.recv_multipart(zmq.NOBLOCK)[0])[0]
            if event == zmq.EVENT_DISCONNECTED:
                self.lost += 1
                self.connected = False
            else:
                self.connected = True
        return responses

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
