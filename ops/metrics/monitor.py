"""The monitor process: one HTTP port for Prometheus, for whoever supervises the appliance, and for people."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import uvicorn

from ingest.errors import ConfigError
from ingest.lifeline import Lifeline
from ops.metrics.config import MonitorConfig
from ops.metrics.connections import BoundedConnection
from ops.metrics.http import make_app
from ops.metrics.observer import Observer

_BEAT_SECONDS = 0.5
_KEEP_ALIVE_SECONDS = 15
_HEAD_BYTES_MAX = 16 * 1024


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: a clean stop comes by the lifeline."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """Bind the HTTP port.

    Raises:
        ConfigError: it is taken, or not ours to take; says what to set instead.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = "another program uses it" if error.errno == errno.EADDRINUSE else str(error)
        raise ConfigError(
            f"HTTP port {port} on {host}: {reason}; choose another with --http-port (0 picks one)"
        ) from None
    return listener


def run(config: MonitorConfig, lifeline: Lifeline) -> None:
    """Serve until the lifeline says stop.

    Raises:
        ConfigError: the port can't be had.
    """
    listener = bind(config.http_host, config.http_port)
    with listener:
        asyncio.run(_serve(config, lifeline, listener))


async def _serve(config: MonitorConfig, lifeline: Lifeline, listener: socket.socket) -> None:
    observer = Observer(config)
    observer.http_port = listener.getsockname()[1]
    server = _Server(
        uvicorn.Config(
            make_app(observer, config.cluster_id),
            http=BoundedConnection,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
        )
    )
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(lifeline.stop_fd)
        server.should_exit = True

    loop.add_reader(lifeline.stop_fd, stop)
    lifeline.serve_stats(observer.stats)
    helpers = [asyncio.create_task(observer.keep_looking()), asyncio.create_task(_beat(server, lifeline))]
    for helper in helpers:
        helper.add_done_callback(lambda _: setattr(server, "should_exit", True))
    try:
        await server.serve(sockets=[listener])
    finally:
        for helper in helpers:
            helper.cancel()
        observer.close()
        results = await asyncio.gather(*helpers, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result  # a bug: the picture would have grown old in silence


async def _beat(server: uvicorn.Server, lifeline: Lifeline) -> None:
    """Say that the loop turns, and once that it serves; drop connections that send no head."""
    said = False
    while True:
        lifeline.beat()
        now = asyncio.get_running_loop().time()
        for connection in list(server.server_state.connections):
            if isinstance(connection, BoundedConnection):
                connection.drop_if_late(now)
        if server.started and not said:
            lifeline.ready()
            said = True
        await asyncio.sleep(_BEAT_SECONDS if said else 0.01)
