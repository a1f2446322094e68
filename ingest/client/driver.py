"""Who moves a producer's batches: its callers by turns, a tender thread while they are away, or an asyncio loop."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from ingest.client.cluster import monotonic_ms
from ingest.client.pipeline import Pipeline
from ingest.client.producer_topic import ProducerTopic
from ingest.client.sender import Sender
from ingest.client.tender import BUSY_TICK_S, LATER_MS, TICK_S, LoopDriver, Tender
from ingest.errors import BufferFull, ForebayError, RequestTimedOut, UsageError

if TYPE_CHECKING:
    import asyncio

BUSY_GAP_MS = 0.2  # two records closer than this: the caller is busy, so gather instead of sending each
PUMP_EVERY_MS = 1.0  # while the caller is busy
LEAVE_S = 1.0
TENDER_STAYS_MS = 50.0  # how long the tender goes on ticking after the last record before it sleeps

log = logging.getLogger("forebay.producer")
_now_s = time.monotonic


class Driver:
    """Pump a pipeline, and wait for it. Thread: any; who touches the pipeline holds the lock.

    Attributes:
        acquire, release: The lock's. It is an RLock for one reason: `owned` tells a signal handler, or a partitioner,
            that it runs within a call of the same thread, where waiting for a turn would never end.
        closing: No more records are taken.
        pump_at_ms: When the next `send` is to look after the pipeline; monotonic.
        wall_ahead_ms: The wall clock less the monotonic one, as of the last pump.
    """

    __slots__ = (
        "__weakref__",
        "_busy",
        "_leave",
        "_lock",
        "_loop",
        "_max_block_ms",
        "_tended",
        "_tender",
        "_waiters",
        "acquire",
        "buffer_memory",
        "closing",
        "owned",
        "pipeline",
        "pump_at_ms",
        "release",
        "wall_ahead_ms",
    )

    def __init__(self, pipeline: Pipeline, *, buffer_memory: int, max_block_ms: int) -> None:
        self.pipeline = pipeline
        self.buffer_memory = buffer_memory
        self._max_block_ms = max_block_ms
        self._lock = threading.RLock()
        self.acquire, self.release = self._lock.acquire, self._lock.release
        self.owned: Callable[[], bool] = self._lock._is_owned  # type: ignore[attr-defined]
        self._loop: LoopDriver | None = None
        self._tender = Tender(self)
        # before the cluster's own, which closes the sockets: by then nobody may be at them
        self._leave = weakref.finalize(
            self, _leave, os.getpid(), pipeline.sender, pipeline.topics, self._tender, self._lock
        )
        self._tended = False
        self._waiters = 0
        self._busy = False
        self.closing = False
        self.pump_at_ms = 0.0
        self.wall_ahead_ms = 0.0

    def __enter__(self) -> None:
        """Take a turn: hold the lock for a block.

        Raises:
            UsageError: this very thread holds it.
        """
        if self.owned():
            raise reentered()
        self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    @property
    def attached(self) -> bool:
        """Whether an asyncio loop drives."""
        return self._loop is not None

    # ---- within a turn -----------------------------------------------------------------------------------------------

    def look_after(self) -> None:
        """Pump, or have it done soon: records were added."""
        if self._loop is not None:
            self._loop.soon()
            return
        if not self._tended:
            self._tended = True
            self._tender.wake()
        self._busy = self.pipeline.sender.gathered(2)
        try:
            self.pump(busy=self._busy)
        except ForebayError:  # no appliance there, say: the records are taken all the same, and whoever waits is told
            self._rest_ms(LATER_MS)
        else:
            self._rest_ms(PUMP_EVERY_MS if self._busy else BUSY_GAP_MS)

    def pump_busy(self) -> None:
        """Pump for a caller who has filled a batch."""
        self.pump(busy=True)
        self._rest_ms(PUMP_EVERY_MS)

    def _rest_ms(self, rest_ms: float) -> None:
        """Let callers add records for a while; what a pump takes does not count."""
        if self._loop is None:
            self.pump_at_ms = _now_s() * 1000.0 + rest_ms

    def pump(self, *, force: bool = False, busy: bool = False) -> None:
        """Take answers and send what is due; see `Sender.drain`."""
        if self.pipeline.cluster.closed:
            raise UsageError("the producer is closed")
        self.wall_ahead_ms = (time.time() - _now_s()) * 1000.0
        self.pipeline.pump(force=force, busy=busy)

    def check_open(self) -> None:
        """Refuse records that could never be sent.

        Raises:
            UsageError: the producer is closed, or being closed.
            Fenced: another producer took its place.
        """
        if self.closing:
            raise UsageError("the producer is closed")
        if self.pipeline.sender.fenced is not None:
            raise self.pipeline.sender.fenced

    def make_room(self, size: int) -> bool:
        """Wait until `size` bytes of buffer.memory are free; tell whether others had their turns meanwhile.

        Raises:
            BufferFull: not within `max_block_ms`.
            UsageError, Fenced: see `check_open`.
        """
        pipeline = self.pipeline
        self.check_open()
        if size <= pipeline.free_bytes:
            return False
        if size > self.buffer_memory:
            raise BufferFull(f"{size} bytes are more than buffer_memory={self.buffer_memory}")
        wait_ms = 0 if self._loop is not None else self._max_block_ms
        deadline_ms = monotonic_ms() + wait_ms
        self.pump(force=True)
        while size > pipeline.free_bytes:
            left_ms = deadline_ms - monotonic_ms()
            if left_ms <= 0:
                used = self.buffer_memory - pipeline.free_bytes
                raise BufferFull(f"{used} bytes wait for acknowledgement; no room for {size} in {wait_ms} ms")
            self._wait_between(min(left_ms, pipeline.wait_ms()))
            self.pump(force=True)
        return True

    def await_partitions(self, topic: ProducerTopic) -> None:
        """Wait until a topic is known; others have their turns meanwhile.

        Raises:
            RequestTimedOut: not within `max_block_ms`.
        """
        deadline_ms = monotonic_ms() + self._max_block_ms
        while not topic.queues:
            if monotonic_ms() >= deadline_ms:
                raise RequestTimedOut(f"topic {topic.name} is not known after {self._max_block_ms} ms")
            self.pump()
            if not topic.queues:
                self._wait_between(5)

    def _wait_between(self, wait_ms: int) -> None:
        self.release()
        try:
            self.pipeline.cluster.wait(wait_ms)
        finally:
            self.acquire()

    # ---- outside of it -----------------------------------------------------------------------------------------------

    def wait_for(self, done: Callable[[], bool], timeout: float | None) -> None:
        """Pump until `done()`.

        Raises:
            TimeoutError: not within `timeout` seconds; what is under way goes on.
            UsageError: in a signal handler that came within another call.
        """
        if self._loop is not None:
            raise UsageError("an attached producer is driven by its loop; use on_delivery")
        deadline = None if timeout is None else time.monotonic() + timeout
        pipeline = self.pipeline
        self._waiters += 1
        try:
            while True:
                with self:
                    self.pump(force=True)
                    finished = done()
                    wait_ms = 0 if finished else pipeline.wait_ms()
                if pipeline.resolved:
                    pipeline.run_callbacks()
                if finished:
                    return
                if deadline is not None:
                    left_ms = int((deadline - time.monotonic()) * 1000)
                    if left_ms <= 0:
                        raise TimeoutError(f"not acknowledged within {timeout} s; it goes on being sent")
                    wait_ms = min(wait_ms, left_ms)
                pipeline.cluster.wait(wait_ms)
        finally:
            self._waiters -= 1

    def tend(self) -> float:
        """Look after what the callers left; called by the tender's thread.

        Returns:
            Seconds until the next look; 0: the tender sleeps until it is woken.
        """
        late_ms = _now_s() * 1000.0 - self.pump_at_ms
        if late_ms < 0.0:
            return BUSY_TICK_S if self._busy else TICK_S
        if self._waiters:
            return TICK_S
        if not self.acquire(False):
            return BUSY_TICK_S  # a caller is at it
        try:
            if self.pipeline.cluster.closed:
                return 0.0
            try:
                self.pipeline.pump()
            except ForebayError:
                return LATER_MS / 1000  # no appliance there, say: the caller is told by the next call that waits
            if self.pipeline.idle and late_ms > TENDER_STAYS_MS:
                self._tended = False
                self._tender.sleep()
        finally:
            self.release()
        if self.pipeline.resolved:
            self.pipeline.run_callbacks()
        return TICK_S if self._tended else 0.0

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let an asyncio loop drive from now on."""
        self.pump_at_ms = 0.0  # each record asks for a pump at the end of its tick
        self._loop = LoopDriver(loop, self.pipeline, self._lock)

    def flush(self, timeout: float | None) -> None:
        """Wait for what is not final now; what others send meanwhile is not waited for."""
        with self:
            left = self.pipeline.unresolved()

        def done() -> bool:
            while left and left[-1].batch.resolved:
                left.pop()
            return not left

        self.wait_for(done, timeout)

    def end_intake(self) -> None:
        """Take no more records."""
        with self:
            self.closing = True
            for topic in self.pipeline.topics.values():
                for queue in topic.queues:
                    self.pipeline.close_batch(topic, queue)  # so that each later record asks for a batch, in vain

    def close(self, error: ForebayError) -> None:
        """Fail what is not resolved and close the sockets."""
        with self:
            self.pipeline.fail_all(error)
            if self._loop is not None:
                self._loop.close()
            self.pipeline.cluster.close()
        self._leave.detach()
        self._tender.close()
        self.pipeline.run_callbacks()


def _leave(pid: int, sender: Sender, topics: dict[str, ProducerTopic], tender: Tender, lock: threading.RLock) -> None:
    """A producer was dropped, or the interpreter ends, without `close`: keep the tender out, and tell what is lost."""
    if os.getpid() != pid:
        return
    tender.close()
    tender.join(LEAVE_S)
    if not lock.acquire(timeout=LEAVE_S):
        return  # another thread is in a call
    try:
        left = sum(len(batch.timestamps) for batch in sender.unresolved())
        left += sum(len(topic.held) for topic in topics.values())
    finally:
        lock.release()
    if left:
        log.warning("a producer ends without close(): %d records are not acknowledged, and some were never sent", left)


def reentered() -> UsageError:
    """Return the error of a call within another call of the same thread on the same producer."""
    return UsageError("called from a signal handler, or a partitioner, within another call on the same producer")
