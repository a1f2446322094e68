"""All inlets of a gateway over one log: who waits for room, whose messages settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge.mqtt.config import MqttConfig
from edge.mqtt.events import Append, Settled
from edge.mqtt.inlet import Inlet
from edge.mqtt.log_writer import LogWriter
from edge.mqtt.session import Session
from edge.mqtt.stats import Counters
from ingest.failpoints import failpoint


class Intake:
    """Move the messages of all sessions into the log. Thread: the gateway's loop.

    Args:
        on_failed: Called with an error after which no message can be taken any more.
    """

    def __init__(
        self,
        log: LogWriter,
        config: MqttConfig,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
        *,
        now_ms: Callable[[], int],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self._log = log
        self._config = config
        self._counters = counters
        self._loop = loop
        self._now_ms = now_ms
        self._on_failed = on_failed
        self._settled: list[Inlet] = []
        self._full: dict[Inlet, None] = {}
        self._room_bytes = log.buffer_available_bytes

    @property
    def idle(self) -> bool:
        """Nothing is held and nothing under way."""
        return not self._full and not self._settled and self._log.buffer_available_bytes >= self._room_bytes

    def inlet(self, session: Session) -> Inlet:
        """Return the inlet of a session."""
        if session.owner is None:
            session.owner = Inlet(
                session,
                self._log,
                self._counters,
                sent_max=self._config.receive_maximum,
                on_settled=self._on_settled,
                on_full=self._on_full,
            )
        assert isinstance(session.owner, Inlet)
        return session.owner

    def pump(self) -> None:
        """Give those whose messages are held back their turn, the longest waiting first."""
        for inlet in list(self._full):
            del self._full[inlet]
            inlet.pump()
            if inlet.connection is not None:
                inlet.connection.check_held()
            if inlet in self._full:  # the log is full, not just this session's share used up: it stays the first
                self._full = {inlet: None, **self._full}
                return

    def _on_full(self, inlet: Inlet) -> None:
        self._full[inlet] = None

    def _on_settled(self, inlet: Inlet) -> None:
        if not self._settled:
            self._loop.call_soon(self._flush)
        self._settled.append(inlet)

    def _flush(self) -> None:
        """Tell the sessions what settled in this tick; each writes its acknowledgements in one piece."""
        inlets, self._settled = self._settled, []
        now_ms = self._now_ms()
        try:
            failpoint("mqtt.before_acknowledge")
            for inlet in inlets:
                effects = inlet.session.step(Settled(inlet.take_settled()), now_ms)
                if inlet.connection is not None:
                    inlet.connection.apply(effects)
                    continue
                for effect in effects:
                    assert isinstance(effect, Append), "nobody is there to be written to"
                    inlet.append(effect.publications)
        except Exception as error:  # the outermost frame of a loop callback: fenced, or one of our bugs
            self._on_failed(error)
            return
        if self._full:
            self.pump()
