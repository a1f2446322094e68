"""The Kafka gateway: a listener for Kafka's protocol over the brokers of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from edge.kafka.brokers import Brokers
from edge.kafka.config import KafkaConfig
from edge.kafka.connection import Connection
from edge.kafka.context import Context
from edge.kafka.coordinators import Coordinators
from edge.kafka.stats import Counters, KafkaStats
from edge.role import OnFailed, run_role
from ingest.errors import ConfigError
from ingest.lifeline import Lifeline

BACKLOG = 1024

_log = structlog.get_logger("kafka")


class Gateway:
    """Listener and connections. Thread: the loop's.

    Raises:
        ConfigError: there is no appliance at `config.bootstrap`.
    """

    def __init__(self, config: KafkaConfig, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.counters = Counters()
        self._loop = loop
        self._brokers = Brokers(config.bootstrap, loop, client_id="kafka-gateway")
        self._coordinators = Coordinators(self._brokers)
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self.port = -1

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the port is taken, or the address is not this machine's.
        """
        host, port = self.config.host, self.config.port
        try:
            self._server = await self._loop.create_server(partial(Connection, self), host, port, backlog=BACKLOG)
        except OSError as error:
            raise ConfigError(f"kafka: can't listen on {host}:{port}: {error.strerror or error}") from None
        self.port = int(self._server.sockets[0].getsockname()[1])
        _log.info("listening", host=host, port=self.port)

    async def stop(self) -> None:
        """Close the listener and all connections."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)
        _log.info("stopped")

    def close(self) -> None:
        """Close the connections to brokers."""
        self._brokers.close()

    def stats(self) -> KafkaStats:
        """Return what was counted. Thread: any."""
        counted = self.counters
        return KafkaStats(
            port=self.port,
            requests_total=counted.requests,
            bytes_in_total=counted.bytes_in,
            connections=counted.connections,
            connections_refused_total=counted.connections_refused,
            malformed_total=counted.malformed,
            failed_total=counted.failed,
        )

    def context(self, transport: asyncio.Transport) -> Context:
        """Return what APIs need to know of a new connection."""
        here = transport.get_extra_info("sockname")
        peer = transport.get_extra_info("peername")
        config = self.config
        host, port = config.advertised_host or here[0], config.advertised_port or here[1]
        return Context(self._brokers, self._coordinators, config, host, port, peer[0] if peer else "")

    def entered(self, connection: Connection) -> bool:
        """Take note of a new connection; False: there are too many."""
        if len(self._connections) >= self.config.connections_max:
            self.counters.connections_refused += 1
            return False
        self._connections.add(connection)
        self.counters.connections = len(self._connections)
        return True

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self.counters.connections = len(self._connections)


def run(config: KafkaConfig, lifeline: Lifeline) -> None:
    """Run a gateway until it should stop.

    Raises:
        ConfigError: the config can't be used, or the port is taken.
    """
    config.check()

    @contextmanager
    def open_role(loop: asyncio.AbstractEventLoop, _: OnFailed) -> Iterator[Gateway]:
        gateway = Gateway(config, loop)
        try:
            yield gateway
        finally:
            gateway.close()

    run_role(open_role, lifeline)
