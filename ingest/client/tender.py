"""Who looks after a producer's records while its caller is away: a thread, or the caller's asyncio loop."""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING, Protocol

from ingest.client.cluster import monotonic_ms
from ingest.errors import ForebayError

if TYPE_CHECKING:
    import asyncio

    from ingest.client.pipeline import Pipeline

TICK_S = 0.001
BUSY_TICK_S = 0.005  # each tick takes the GIL from a caller who is busy
LATER_MS = 100  # after a pump that failed
LOOK_S = 1.0  # how often a sleeping tender looks whether its producer is still there


class Tended(Protocol):
    """What the tender needs of a producer."""

    def tend(self) -> float:
        """Pump if the caller is away; return seconds until the next look, 0 to sleep until woken."""
        ...


class Tender:
    """A thread that ticks while there is something to look after and sleeps otherwise.

    It holds the producer weakly: a producer that is dropped ends its tender.
    """

    def __init__(self, owner: Tended) -> None:
        self._wake = threading.Event()
        self._owner = weakref.ref(owner)
        self._closed = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Tick from now on. Cost: a futex call."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="forebay-producer", daemon=True)
            self._thread.start()
        self._wake.set()

    def sleep(self) -> None:
        """Stop ticking; the producer's lock is held, so that no wake-up is lost."""
        self._wake.clear()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        """After `close`: wait until the thread has ended, unless this is it."""
        if self._thread not in (None, threading.current_thread()):
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._closed:
            if not self._wake.wait(LOOK_S):
                if self._owner() is None:
                    return
                continue
            owner = self._owner()
            if owner is None or self._closed:
                return
            pause = owner.tend()
            del owner
            if pause:
                time.sleep(pause)


class LoopDriver:
    """Pumps a producer from an asyncio loop: on readable sockets, on deadlines, and once per tick with new records.

    Thread: the loop's; `soon`: any that holds the producer's lock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, pipeline: Pipeline, lock: threading.RLock) -> None:
        self._loop = loop
        self._pipeline = pipeline
        self._lock = lock
        self._thread = threading.get_ident()
        self._fds: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        self._closed = False
        self.pump()

    def soon(self) -> None:
        """Pump at the end of this tick of the loop."""
        if not self._due:
            self._due = True
            mine = threading.get_ident() == self._thread
            (self._loop.call_soon if mine else self._loop.call_soon_threadsafe)(self.pump)

    def pump(self) -> None:
        with self._lock:
            self._due = False
            if self._closed:
                return
            wait_ms = self._pump()
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(wait_ms / 1000, self.pump)
        self._pipeline.run_callbacks()

    def _pump(self) -> int:
        """Return in how many ms it is due again at the latest."""
        pipeline = self._pipeline
        try:
            pipeline.pump()
        except ForebayError:
            return LATER_MS  # no appliance there, say: records are told when their time is over
        for fd in pipeline.cluster.fds():
            if fd not in self._fds:
                self._fds.add(fd)
                self._loop.add_reader(fd, self.pump)
        now_ms = monotonic_ms()
        due = pipeline.sender.next_ms(now_ms)
        at_ms = min(now_ms + 1000 if due is None else due, pipeline.cluster.deadline_ms())
        return min(1000, max(1, at_ms - now_ms))

    def close(self) -> None:
        self._closed = True
        for fd in self._fds:
            self._loop.remove_reader(fd)
        if self._timer is not None:
            self._timer.cancel()
