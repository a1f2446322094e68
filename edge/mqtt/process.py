"""The process around a gateway or a bridge: its log writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge.mqtt.config import BridgeConfig, MqttConfig
from edge.mqtt.log_writer import LogWriter, open_log_writer
from edge.role import OnFailed, Role
from edge.role import run_role as run_in_loop
from ingest.lifeline import Lifeline

Make = Callable[[LogWriter, asyncio.AbstractEventLoop, OnFailed], Role]


def run_role(make: Make, config: MqttConfig | BridgeConfig, lifeline: Lifeline, *, client_id: str) -> None:
    """Run a role over a log writer of its own until its lifeline says stop, or until it failed."""

    @contextmanager
    def open_role(loop: asyncio.AbstractEventLoop, on_failed: OnFailed) -> Iterator[Role]:
        log = open_log_writer(
            config.bootstrap,
            loop,
            client_id=client_id,
            buffer_memory=config.buffer_memory,
            batch_size=config.batch_size,
            compression_type=config.compression_type,
        )
        try:
            yield make(log, loop, on_failed)
        finally:
            log.close(0)

    run_in_loop(open_role, lifeline)
