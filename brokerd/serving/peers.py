"""Connections to the brokers that lead what is followed here."""

from __future__ import annotations

from collections.abc import Iterator

import zmq

from ingest.client.connection import Connection, nearest_endpoint
from ingest.errors import TransportError
from ingest.wire.frames import Response
from ingest.wire.messages import BrokerMetadata


class PeerConnections:
    """One connection a broker, made when there is something to send. Thread: the broker loop."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], poller: zmq.Poller, machine: str) -> None:
        self._context = context
        self._poller = poller
        self._machine = machine
        self._connections: dict[int, Connection] = {}

    def send(self, broker: BrokerMetadata, header: bytes) -> bool:
        """Send one message; False: there is no connection yet, or no more."""
        endpoint = nearest_endpoint(broker.peer_endpoints, broker.machine, self._machine)
        if endpoint is None:
            return False
        connection = self._connections.get(broker.broker_id)
        if connection is not None and connection.endpoint != endpoint:
            self.close(broker.broker_id)
            connection = None
        if connection is None:
            try:
                connection = self._connections[broker.broker_id] = Connection(self._context, endpoint)
            except TransportError:  # what another broker says of itself ends nobody else
                return False
            for socket in connection.sockets:
                self._poller.register(socket, zmq.POLLIN)
        return connection.send(header)

    def poll(self) -> Iterator[tuple[int, list[Response], bool]]:
        """Yield (broker id, answers that came, whether the connection has ended since the last look)."""
        for broker_id, connection in list(self._connections.items()):
            lost = connection.lost
            responses = connection.poll()
            if responses or connection.lost != lost:
                yield broker_id, responses, connection.lost != lost

    def close(self, broker_id: int) -> None:
        """Close one connection; the next message opens another."""
        connection = self._connections.pop(broker_id, None)
        if connection is not None:
            for socket in connection.sockets:
                self._poller.unregister(socket)
            connection.close()

    def close_all(self) -> None:
        for broker_id in list(self._connections):
            self.close(broker_id)
