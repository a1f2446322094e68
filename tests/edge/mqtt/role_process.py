"""`python -m tests.edge.mqtt.role_process gateway|bridge JSON`: a gateway or bridge as a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import msgspec

from edge.mqtt import bridge, gateway
from edge.mqtt.config import BridgeConfig, MqttConfig


class SignalLifeline:
    """SIGTERM stops; "ready" on stdout says that the role serves."""

    def __init__(self) -> None:
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stats: Callable[[], msgspec.Struct] | None = None
        signal.signal(signal.SIGTERM, lambda *_: os.eventfd_write(self._stop, 1))

    @property
    def stop_fd(self) -> int:
        return self._stop

    def beat(self) -> None:
        pass

    def ready(self) -> None:
        assert self._stats is not None
        print("ready", msgspec.json.encode(self._stats()).decode(), flush=True)

    def serve_stats(self, stats: Callable[[], msgspec.Struct]) -> None:
        self._stats = stats


def main() -> None:
    role, config = sys.argv[1], sys.argv[2]
    if role == "bridge":
        bridge.run(msgspec.json.decode(config, type=BridgeConfig), SignalLifeline())
    else:
        gateway.run(msgspec.json.decode(config, type=MqttConfig), SignalLifeline())


if __name__ == "__main__":
    main()
