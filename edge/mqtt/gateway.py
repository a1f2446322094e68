"""The MQTT gateway: an MQTT 3.1.1 and 5 server whose PUBACK means that the record is in the log.

One loop, one thread; a second one only computes password hashes. No message is lost: what the log has no room for is
held, and then sockets are not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from edge.descriptors import connections_within_limit
from edge.mqtt.codes import Reason
from edge.mqtt.config import MqttConfig
from edge.mqtt.connection import Connection, now_ms
from edge.mqtt.intake import Intake
from edge.mqtt.lobby import Lobby
from edge.mqtt.log_writer import LogWriter
from edge.mqtt.mapping import Mapping
from edge.mqtt.process import run_role
from edge.mqtt.sessions import Sessions
from edge.mqtt.stats import Counters, MqttStats
from edge.security.admission import Admission
from edge.security.tls import Certificates
from ingest.errors import ConfigError
from ingest.lifeline import Lifeline

TICK_S = 0.25
CERTIFICATE_TICKS = 40
BACKLOG = 1024

_log = structlog.get_logger("mqtt")


class Gateway:
    """Listeners and connections over one log. Thread: the loop's; `stats` any.

    Args:
        log: Where records go; closed by its owner, after `stop`.
        on_failed: Called with the error after which the gateway takes nothing any more; then it should stop.
    Raises:
        ConfigError: the config can't be used.
    """

    def __init__(
        self,
        config: MqttConfig,
        log: LogWriter,
        loop: asyncio.AbstractEventLoop,
        *,
        on_failed: Callable[[BaseException], None],
    ) -> None:
        config.check()
        self.config = config
        self.counters = Counters()
        self.admission = Admission(
            connections_max=connections_within_limit(config.connections_max),
            per_ip_max=config.connections_per_ip_max,
            unauthenticated_max=config.unauthenticated_max,
            unauthenticated_per_ip_max=config.unauthenticated_per_ip_max,
        )
        self._loop = loop
        sessions = Sessions(Mapping(config.rules, topics_max=config.topics_max), config, self.counters)
        self._intake = Intake(log, config, self.counters, loop, now_ms=now_ms, on_failed=on_failed)
        self.lobby = Lobby(config, sessions, self._intake, self.admission, self.counters, loop, now_ms=now_ms)
        self._certificates = Certificates("mqtt", config) if config.tls_port >= 0 else None
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._stopping = False
        self._overflowed = False
        self.port = self.tls_port = -1

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the port is taken, or the address is not this machine's.
        """
        if self.config.port >= 0:
            self.port = await self._listen(self.config.port)
        if self._certificates is not None:
            seconds = self.config.connect_timeout_ms / 1000
            tls = {"ssl": self._certificates.context, "ssl_handshake_timeout": seconds}
            self.tls_port = await self._listen(self.config.tls_port, **tls)
        self._timer = self._loop.call_later(TICK_S, self._tick)
        _log.info("listening", host=self.config.host, port=self.port, tls_port=self.tls_port)

    async def _listen(self, port: int, **tls: Any) -> int:
        host = self.config.host
        try:
            server = await self._loop.create_server(partial(Connection, self), host, port, backlog=BACKLOG, **tls)
        except OSError as error:
            raise ConfigError(f"mqtt: can't listen on {host}:{port}: {error.strerror or error}") from None
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take nothing more in, wait for what is in flight, publish wills, tell every client, close."""
        self._stopping = True
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.pause("stop")
        deadline = self._loop.time() + self.config.stop_timeout_ms / 1000
        while not self._intake.idle and self._loop.time() < deadline:
            await asyncio.sleep(0.005)
        for connection in list(self._connections):
            connection.close(Reason.SERVER_SHUTTING_DOWN, "the gateway stops")
        deadline = max(deadline, self._loop.time() + 0.5)
        while (self._connections or not self._intake.idle) and self._loop.time() < deadline:
            await asyncio.sleep(0.005)
        for connection in list(self._connections):
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()
        self.lobby.close()
        await asyncio.sleep(0)  # aborted transports report themselves lost
        _log.info("stopped", in_flight=self.stats().in_flight)

    def stats(self) -> MqttStats:
        """Return what was counted. Thread: any."""
        return self.counters.stats(port=self.port, tls_port=self.tls_port)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._ticks += 1
        now = now_ms()
        self.lobby.tick(now)
        for connection in list(self._connections):
            connection.tick(now)
        self._intake.pump()
        if self._overflowed and self.counters.held_bytes <= self.config.held_bytes_total_max // 2:
            self._overflowed = False
            for connection in list(self._connections):
                connection.resume("overflow")
        if self._certificates is not None and self._ticks % CERTIFICATE_TICKS == 0:
            problem = self._certificates.reload()
            if problem:
                _log.error("certificate not reloaded", problem=problem)

    # ---- connections come and go -------------------------------------------------------------------------------------

    def entered(self, connection: Connection) -> None:
        """A connection was accepted."""
        self._connections.add(connection)
        self.counters.connections = len(self._connections)
        if self._stopping:
            connection.abort()

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self.counters.connections = len(self._connections)

    def turned_away(self, ip: str, problem: str) -> None:
        """A connection was not accepted."""
        self.counters.connections_refused += 1
        if self.counters.connections_refused % 1000 == 1:
            _log.warning("connection refused", ip=ip, problem=problem, total=self.counters.connections_refused)

    def overflow(self, connection: Connection) -> None:
        """All connections together hold too much: read none of them until there is room."""
        connection.pause("overflow")
        if not self._overflowed:
            self._overflowed = True
            for other in self._connections:
                other.pause("overflow")


def run(config: MqttConfig, lifeline: Lifeline) -> None:
    """Run a gateway until it should stop.

    Raises:
        ConfigError: the config can't be used, a port is taken.
        Fenced: somebody newer took over its producer.
    """
    config.check()

    def make(log: LogWriter, loop: asyncio.AbstractEventLoop, on_failed: Callable[[BaseException], None]) -> Gateway:
        return Gateway(config, log, loop, on_failed=on_failed)

    run_role(make, config, lifeline, client_id="forebay-mqtt")
