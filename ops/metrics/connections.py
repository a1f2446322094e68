"""HTTP connections that may not wait for ever: who sends no head makes room for others.

uvicorn has no time limit for a request's head, and refuses everybody once `limit_concurrency` connections are open; so
few idle ones would shut out health checks.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX = 64
HEAD_SECONDS_MAX = 10.0


class BoundedConnection(H11Protocol):
    """One connection. Thread: the loop's."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waits_since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; where there are too many, the one that has waited longest for a head goes."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            waiting = [other for other in self.connections if isinstance(other, BoundedConnection) and other.waits]
            if waiting:
                min(waiting, key=lambda other: other.waits_since).drop()

    def on_response_complete(self) -> None:
        self.waits_since = self.loop.time()
        super().on_response_complete()

    @property
    def waits(self) -> bool:
        """Whether no whole request has come that is not answered."""
        return self.cycle is None or self.cycle.response_complete

    def drop(self) -> None:
        """Close at once, and count no more."""
        self.connections.discard(self)
        self.transport.abort()

    def drop_if_late(self, now: float) -> None:
        """Close if no head has come in time."""
        if self.waits and now - self.waits_since > HEAD_SECONDS_MAX:
            self.drop()
