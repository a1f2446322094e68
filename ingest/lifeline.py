"""What a process of the appliance is given by whoever started it: when to stop, and where to say it lives.

The supervisor (ops) implements it for real processes; tests hand in their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec


class Lifeline(Protocol):
    """A process's tie to its supervisor. Thread: any."""

    @property
    def stop_fd(self) -> int:
        """A descriptor that becomes readable, and stays so, once the process should stop cleanly."""
        ...

    def beat(self) -> None:
        """Say that the main loop still makes progress; call it at least once a second. Cost: one store to a map."""
        ...

    def ready(self) -> None:
        """Say that the process now serves."""
        ...

    def serve_stats(self, stats: Callable[[], msgspec.Struct]) -> None:
        """Let others read `stats()` over the control socket; it is called in the control thread."""
        ...
