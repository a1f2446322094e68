"""One kind of listener, without TLS or with it: a port for every broker id that clients find here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from edge.kafka.config import KafkaConfig
from edge.kafka.places import Places
from edge.security.tls import Certificates
from ingest.errors import ConfigError
from ingest.wire.messages import BrokerMetadata

BACKLOG = 1024
TLS_SHUTDOWN_S = 5.0  # a client that does not take leave

_log = structlog.get_logger("kafka")


class Listener:
    """The ports of a gateway, of one kind. Thread: the loop's.

    Args:
        certificates: Of the kind with TLS.
    Attributes:
        port: The first.
    """

    def __init__(
        self,
        config: KafkaConfig,
        loop: asyncio.AbstractEventLoop,
        connect: Callable[[], asyncio.Protocol],
        certificates: Certificates | None = None,
    ) -> None:
        self._config = config
        self._loop = loop
        self._connect = connect
        self._tls: dict[str, Any] = {}
        if certificates is not None:
            self._tls["ssl"] = certificates.context
            self._tls["ssl_handshake_timeout"] = config.connect_timeout_ms / 1000
            self._tls["ssl_shutdown_timeout"] = TLS_SHUTDOWN_S
        self._servers: list[asyncio.Server] = []
        self.places = Places(config, tls=certificates is not None)
        self.port = -1

    async def start(self) -> None:
        """Listen on the first port.

        Raises:
            ConfigError: it is taken, or the address is not this machine's.
        """
        self.port = await self._listen(self.places.first)
        _log.info("listening", host=self._config.host, port=self.port, protocol=self.places.protocol)

    async def add(self, brokers: Mapping[int, BrokerMetadata]) -> None:
        """Give every broker id that has none a port of its own."""
        for place in self.places.missing(brokers):
            port = self.port
            if place.port not in (0, port) or self.places.told:
                try:
                    port = await self._listen(place.port)
                except ConfigError as error:
                    _log.error(
                        "a broker has no port of its own: old clients will not find it",
                        broker=place.broker_id,
                        reason=str(error),
                    )
            self.places.told[place.broker_id] = place.told or port

    def told(self, port: int) -> int:
        """Return how clients are told one of the ports."""
        return port + (self.places.advertised - self.port if self.places.advertised else 0)

    def close(self) -> None:
        """Take no more connections."""
        for server in self._servers:
            server.close()

    async def _listen(self, port: int) -> int:
        host, several = self._config.host, self._config.processes > 1
        try:
            server = await self._loop.create_server(
                self._connect, host, port, backlog=BACKLOG, reuse_port=several, **self._tls
            )
        except OSError as error:
            raise ConfigError(f"kafka: can't listen on {host}:{port}: {error.strerror or error}") from None
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])
