"""The Kafka gateway: a listener for Kafka's protocol over the brokers of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count

import structlog

from edge.descriptors import connections_within_limit
from edge.kafka.brokers import Brokers
from edge.kafka.client_quotas import ClientQuotas
from edge.kafka.config import KafkaConfig
from edge.kafka.connection import Connection
from edge.kafka.context import Context
from edge.kafka.coordinators import Coordinators
from edge.kafka.doorbells import Doorbells
from edge.kafka.listener import Listener
from edge.kafka.local_logs import LocalLogs
from edge.kafka.login import Login
from edge.kafka.memory import Memory
from edge.kafka.stats import Counters, KafkaStats
from edge.role import OnFailed, run_role
from edge.security.admission import Admission
from edge.security.logins import Logins
from edge.security.tls import Certificates
from ingest.client.cluster import monotonic_ms
from ingest.lifeline import Lifeline

METADATA_TIMEOUT_MS = 5_000
LOOK_S = 1.0
CERTIFICATE_LOOKS = 10
MAP_LOOKS = 60

_log = structlog.get_logger("kafka")


class Gateway:
    """Listener and connections. Thread: the loop's.

    Raises:
        ConfigError: there is no appliance at `config.bootstrap`, or a file that the config names can't be used.
    """

    def __init__(
        self, config: KafkaConfig, loop: asyncio.AbstractEventLoop, on_failed: OnFailed = lambda _: None
    ) -> None:
        self.config = config
        self._on_failed = on_failed
        self.counters = Counters()
        self.memory = Memory(config.queued_max_request_bytes)
        self.decoding = ThreadPoolExecutor(1, thread_name_prefix="kafka-decode")
        self._loop = loop
        self._logins = Logins(config.password_file, loop, now_ms=monotonic_ms) if config.password_file else None
        self._certificates = Certificates("kafka", config) if config.tls_port >= 0 else None
        self._admission = Admission(
            connections_max=connections_within_limit(config.connections_max),
            per_ip_max=config.connections_per_ip_max,
            unauthenticated_max=config.unauthenticated_max,
            unauthenticated_per_ip_max=config.unauthenticated_per_ip_max,
        )
        self._brokers = Brokers(config.bootstrap, loop, client_id="kafka-gateway")
        self._coordinators = Coordinators(self._brokers)
        self._logs = LocalLogs(self._brokers, loop)
        self._doorbells = Doorbells(self._brokers, loop)
        self._quotas = ClientQuotas(self._brokers)
        self._connections: set[Connection] = set()
        connect = partial(Connection, self)
        self._plain = Listener(config, loop, connect) if config.port >= 0 else None
        self._tls = Listener(config, loop, connect, self._certificates) if self._certificates else None
        self._listeners = [one for one in (self._plain, self._tls) if one is not None]
        self._following: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the port is taken, or the address is not this machine's.
        """
        for listener in self._listeners:
            await listener.start()
        if self._logins is not None:
            self._logins.warn_of_missing_keys()
        await self._add_listeners()
        await self._brokers.known(METADATA_TIMEOUT_MS)
        await self._add_listeners()
        self._following = [self._loop.create_task(one) for one in (self._follow(), self._quotas.follow())]
        for task in self._following:
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """End the process where what keeps it up to date has failed: a new one begins in good order."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failed(error)

    @property
    def port(self) -> int:
        """The first port without TLS, -1: there is none."""
        return self._plain.port if self._plain else -1

    @property
    def tls_port(self) -> int:
        """The first port with TLS, -1: there is none."""
        return self._tls.port if self._tls else -1

    async def _follow(self) -> None:
        """Have a listener for every broker that comes, and look at the files."""
        for look in count(1):
            await asyncio.sleep(LOOK_S)
            await self._add_listeners()
            if self._logins is not None:
                self._logins.tick()
            if look % MAP_LOOKS == 0:
                self._logs.drop_unread()
            if self._certificates is not None and look % CERTIFICATE_LOOKS == 0:
                problem = self._certificates.reload()
                if problem:
                    _log.error("certificate not reloaded", problem=problem)

    async def _add_listeners(self) -> None:
        for listener in self._listeners:
            await listener.add(self._brokers.all)

    async def stop(self) -> None:
        """Close the listeners and all connections."""
        for task in self._following:
            task.cancel()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)
        _log.info("stopped")

    def close(self) -> None:
        """Close the connections to brokers."""
        self.decoding.shutdown(wait=False, cancel_futures=True)
        if self._logins is not None:
            self._logins.close()
        self._doorbells.close()
        self._logs.close()
        self._brokers.close()

    def stats(self) -> KafkaStats:
        """Return what was counted. Thread: any."""
        return self.counters.stats(port=self.port, tls_port=self.tls_port)

    def context(self, transport: asyncio.Transport) -> Context:
        """Return what APIs need to know of a new connection."""
        here = transport.get_extra_info("sockname")
        peer = transport.get_extra_info("peername")
        listener = self._plain if transport.get_extra_info("sslcontext") is None else self._tls
        assert listener is not None
        return Context(
            self._brokers,
            self._coordinators,
            self._logs,
            self._doorbells,
            self._quotas,
            self.counters,
            self.memory,
            self.config,
            self.config.advertised_host or here[0],
            listener.told(listener.port),
            listener.places,
            peer[0] if peer else "",
            listener.told(here[1]),
            listener is self._tls,
            self.decoding,
        )

    def entered(self, connection: Connection) -> bool:
        """Take note of a new connection; False: there are too many."""
        self.counters.connections_opened += 1
        if problem := self._admission.enter(connection.ip):
            self.counters.connections_refused += 1
            if self.counters.connections_refused % 1000 == 1:
                _log.warning("connection refused", ip=connection.ip, problem=problem)
            return False
        self._connections.add(connection)
        self.counters.connections = len(self._connections)
        return True

    def login(self, connection: Connection) -> Login | None:
        """Return how a connection logs in, None where nobody has to."""
        if self._logins is None:
            return None
        return Login(connection, self._logins, self.config, self.counters, self._loop)

    def let_in(self, connection: Connection) -> None:
        """A connection has logged in, or need not."""
        self._admission.let_in(connection.ip)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        if connection not in self._connections:
            return
        self._admission.leave(connection.ip, authenticated=connection.authenticated)
        self._connections.discard(connection)
        self.counters.connections = len(self._connections)


def run(config: KafkaConfig, lifeline: Lifeline) -> None:
    """Run a gateway until it should stop.

    Raises:
        ConfigError: the config can't be used, or the port is taken.
    """
    config.check()

    @contextmanager
    def open_role(loop: asyncio.AbstractEventLoop, on_failed: OnFailed) -> Iterator[Gateway]:
        gateway = Gateway(config, loop, on_failed)
        try:
            yield gateway
        finally:
            gateway.close()

    run_role(open_role, lifeline)
