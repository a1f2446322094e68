"""A session's appender: it outlives the session's connections, so that what the log took is seen through to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge.mqtt.appender import Appender
from edge.mqtt.events import SessionEffect
from edge.mqtt.log_writer import LogWriter
from edge.mqtt.session import Session
from edge.mqtt.stats import Counters


class Outlet(Protocol):
    """Where a session's answers go: a connection, as an inlet knows it."""

    def apply(self, effects: list[SessionEffect]) -> None: ...

    def check_held(self) -> None: ...


class Inlet(Appender):
    """Move one session's messages into the log. Thread: the gateway's loop.

    Attributes:
        connection: Its session's, None: there is none now.
    """

    __slots__ = ("connection", "session")

    def __init__(
        self,
        session: Session,
        log: LogWriter,
        counters: Counters,
        *,
        sent_max: int,
        on_settled: Callable[[Inlet], None],
        on_full: Callable[[Inlet], None],
    ) -> None:
        super().__init__(log, counters, sent_max=sent_max, on_settled=on_settled, on_full=on_full)
        self.session = session
        self.connection: Outlet | None = None
