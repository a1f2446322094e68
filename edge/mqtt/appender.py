"""One sender's way into the log: its messages in order, held while there is no room, until they are settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from edge.mqtt.codes import Reason
from edge.mqtt.destinations import Destination
from edge.mqtt.log_writer import Handle, LogWriter
from edge.mqtt.packets import Publish
from edge.mqtt.stats import Counters
from ingest.errors import BufferFull, Fenced, ForebayError, RemoteError
from ingest.wire.codes import ErrorCode

HELD_OVERHEAD_BYTES = 200  # what a message held back costs besides its payload
_REASONS = {
    ErrorCode.MESSAGE_TOO_LARGE: Reason.QUOTA_EXCEEDED,  # PUBACK may not say PACKET_TOO_LARGE: table 3-4
    ErrorCode.INVALID_TOPIC_EXCEPTION: Reason.TOPIC_NAME_INVALID,
}


class Failed:
    """The handle of a record that was refused at once."""

    __slots__ = ("_error",)

    def __init__(self, error: ForebayError) -> None:
        self._error = error

    def done(self) -> bool:
        return True

    def exception(self) -> ForebayError | None:
        return self._error


class Appender:
    """Move one sender's messages into the log. Thread: the log writer's loop.

    Args:
        on_settled: Called, once until `take_settled`, when something may have settled.
        on_full: Called when the log has no room; it calls `pump` once there is some again.

    Attributes:
        held_bytes: Messages that wait for room.
    """

    __slots__ = (
        "_counters",
        "_delivered",
        "_log",
        "_marked",
        "_on_full",
        "_on_settled",
        "_sent",
        "_sent_count",
        "_sent_max",
        "_unsent",
        "held_bytes",
    )

    def __init__(
        self,
        log: LogWriter,
        counters: Counters,
        *,
        sent_max: int,
        on_settled: Callable[[Any], None],
        on_full: Callable[[Any], None],
    ) -> None:
        self.held_bytes = 0
        self._log = log
        self._counters = counters
        self._sent_max = sent_max
        self._on_settled = on_settled
        self._on_full = on_full
        self._sent: deque[tuple[list[Publish], Handle]] = deque()
        self._sent_count = 0
        self._unsent: deque[Publish] = deque()
        self._marked = False
        self._delivered: Callable[[Handle], None] = self._mark  # bound once, not once a record

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not self._sent and not self._unsent

    def append(self, publications: list[Publish]) -> None:
        """Send messages, or hold those there is no room for."""
        if self._unsent:
            self._hold(publications)
            return
        taken = self._send(publications)
        if taken < len(publications):
            self._hold(publications[taken:])

    def pump(self) -> bool:
        """Send what was held as far as there is room; tell whether all of it went."""
        while self._unsent:
            some = [self._unsent.popleft() for _ in range(min(64, len(self._unsent)))]
            taken = self._send(some)
            for publish in some[:taken]:
                self._add_held(-_cost(publish))
            if taken < len(some):
                self._unsent.extendleft(reversed(some[taken:]))
                return False
        return True

    def drop_unsent(self) -> list[Publish]:
        """Give up held messages whose sender was not answered and sends them again; the others stay."""
        dropped = [publish for publish in self._unsent if publish.packet_id]
        if dropped:
            self._unsent = deque(publish for publish in self._unsent if not publish.packet_id)
            for publish in dropped:
                self._add_held(-_cost(publish))
        return dropped

    def take_settled(self) -> list[Publish]:
        """Return messages that are in the log or refused for good, with their outcome, in the order they were sent.

        Raises:
            Fenced: somebody newer took over this producer: stop.
        """
        self._marked = False
        sent = self._sent
        settled: list[Publish] = []
        while sent and sent[0][1].done():
            run, handle = sent.popleft()
            self._sent_count -= len(run)
            error = handle.exception()
            if error is None:
                for publish in run:
                    publish.outcome = 0
            elif isinstance(error, Fenced):
                raise error
            elif isinstance(error, RemoteError) and error.definite and not error.retriable:
                for publish in run:
                    publish.outcome = _REASONS.get(ErrorCode(error.code), Reason.IMPLEMENTATION_SPECIFIC_ERROR)
                    publish.text = str(error)
            else:  # whether it is in the log is unknown: once more, a second copy is better than none
                self._counters.retried += len(run)
                self._hold(run)
                continue
            settled += run
        if self._unsent:
            self._on_full(self)  # there may be room by now
        return settled

    def _send(self, publications: list[Publish]) -> int:
        """Send as many as there is room for and return how many."""
        end = min(len(publications), max(0, self._sent_max - self._sent_count))
        taken = 0
        while taken < end:
            destination = publications[taken].destination
            following = taken + 1
            while following < end and publications[following].destination is destination:
                following += 1
            run = publications[taken:following]
            count = self._send_run(destination, run)
            taken += count
            if count < len(run):
                self._on_full(self)
                break
        return taken

    def _send_run(self, destination: Destination, run: list[Publish]) -> int:
        """Send messages that have one destination and return how many were taken."""
        values = [publish.payload for publish in run]
        headers, delivered = destination.headers, self._delivered
        try:
            handles = self._log.send_run(
                destination.topic, values, destination.key, headers=headers, on_delivery=delivered
            )
        except BufferFull:
            return 0
        except RemoteError as error:
            if len(run) > 1:  # which of them can't be taken is told by asking one by one
                return self._send_one_by_one(destination, run)
            failed = Failed(error)
            self._mark(failed)
            handles = [(failed, 1)]
        taken = 0
        for handle, count in handles:
            self._sent.append((run[taken : taken + count], handle))
            taken += count
        self._sent_count += taken
        return taken

    def _send_one_by_one(self, destination: Destination, run: list[Publish]) -> int:
        for index, publish in enumerate(run):
            if not self._send_run(destination, [publish]):
                return index
        return len(run)

    def _mark(self, _: Handle) -> None:
        if not self._marked:
            self._marked = True
            self._on_settled(self)

    def _hold(self, publications: list[Publish]) -> None:
        self._unsent.extend(publications)
        self._add_held(sum(map(_cost, publications)))

    def _add_held(self, size: int) -> None:
        self.held_bytes += size
        self._counters.held_bytes += size


def _cost(publish: Publish) -> int:
    return HELD_OVERHEAD_BYTES + len(publish.payload)
