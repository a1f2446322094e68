"""A partition this broker has a replica of: its log, and, while it leads it, who waits for it to move."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from brokerd.serving.parked import ParkedFetch, ParkedProduce
from ingest.errors import CorruptBatch
from ingest.records.header import decode_header
from ingest.wire.codes import ErrorCode
from replicas.domains import Domains
from replicas.leader import Leadership, ReplicaEnd
from replicas.state import PartitionState

if TYPE_CHECKING:
    from brokerd.storage.log import Log


class Partition:
    """One replica. Thread: the broker loop.

    Attributes:
        leadership: While this broker leads the partition.
        throttled: The topic's leader.replication.throttled.replicas names it.
        appended_bytes: Bytes appended in this process's life; parked fetches measure `min_bytes` by it.
    """

    __slots__ = (
        "_broker_id",
        "_count",
        "appended_bytes",
        "fetches",
        "leadership",
        "log",
        "produces",
        "throttled",
        "topic",
        "unreplicated",
    )

    def __init__(self, topic: str, log: Log, broker_id: int) -> None:
        self.topic = topic
        self._broker_id = broker_id
        self.leadership: Leadership | None = None
        self.log = log
        self.throttled = False
        self.appended_bytes = 0
        self.fetches: list[ParkedFetch] = []
        self.produces: list[tuple[int, int, ParkedProduce, int]] = []
        self.unreplicated: list[tuple[int, int, ParkedProduce, int]] = []
        self._count = 0

    @property
    def key(self) -> tuple[bytes, int]:
        """(topic id, partition)."""
        return self.log.topic_id, self.log.partition

    @property
    def durable(self) -> bool:
        """Whether an acknowledgement waits for the disk."""
        return self.log.config.durability == "fsync"

    # ---- roles

    def lead(
        self,
        state: PartitionState,
        broker_epochs: Mapping[int, int],
        *,
        min_in_sync: int,
        domains: Domains,
        now_ms: int,
    ) -> None:
        """Begin to lead under a new epoch; the log follows.

        Raises:
            StaleLeaderEpoch: the log knows that epoch already.
        """
        log = self.log
        log.become_leader(state.leader_epoch)
        self.leadership = Leadership(
            self._broker_id,
            state,
            broker_epochs,
            end_offset=log.end_offset,
            high_watermark=log.high_watermark,
            min_in_sync=min_in_sync,
            domains=domains,
            now_ms=now_ms,
        )

    def follow(self, leader_epoch: int) -> None:
        """Lead no longer; records come from another broker."""
        self.leadership = None
        self.log.become_follower(leader_epoch)

    def advance(self, now_ms: int) -> None:
        """Move the high watermark to what enough replicas hold."""
        log, leadership = self.log, self.leadership
        if leadership is not None:
            mark = leadership.own(self._own_end(), durable=self.durable, now_ms=now_ms)
            log.advance_high_watermark(mark)

    def fetched(self, broker: int, broker_epoch: int, end: ReplicaEnd, now_ms: int) -> bool:
        """Note how far a follower is; tell whether the high watermark moved."""
        log, leadership = self.log, self.leadership
        assert leadership is not None
        before = log.high_watermark
        leadership.own(self._own_end(), durable=self.durable, now_ms=now_ms)
        mark = leadership.fetched(broker, broker_epoch, end, durable=self.durable, now_ms=now_ms)
        log.advance_high_watermark(mark)
        return mark > before

    def _own_end(self) -> ReplicaEnd:
        log = self.log
        return ReplicaEnd(log.end_offset, log.flushed_end, log.cleaned_end)

    @property
    def purge_limit(self) -> int:
        """Below this offset no replica needs tombstones: only a leader can know, and only if it has heard all."""
        if self.leadership is None:
            return 0
        return min(self.log.cleaned_end, self.leadership.cleaned_by_all())

    def throttles(self, broker: int) -> bool:
        """Whether what a follower gets counts for the throttle: never if producers wait for it."""
        leadership = self.leadership
        if leadership is None:
            return False
        state = leadership.state
        named = self.throttled or (state.throttle_bytes_per_s > 0 and broker in state.adding)
        return named and not leadership.counts(broker)

    # ---- what requests ask

    def check_epoch(self, epoch: int) -> ErrorCode:
        """Compare the epoch a request was made under with the leader's; -1 is not checked."""
        if epoch < 0 or epoch == self.log.leader_epoch:
            return ErrorCode.NONE
        return ErrorCode.FENCED_LEADER_EPOCH if epoch < self.log.leader_epoch else ErrorCode.UNKNOWN_LEADER_EPOCH

    @property
    def enough_in_sync(self) -> bool:
        """Whether acks=all can be served."""
        return self.leadership is not None and self.leadership.enough_in_sync

    @property
    def is_alone(self) -> bool:
        """Whether this leader knows that no other replica surely holds what was acknowledged."""
        return self.leadership is not None and len(self.leadership.state.seats) == 1

    @property
    def knows_its_end(self) -> bool:
        """Whether the high watermark can be told to clients as the end of the log.

        Until it is where the epoch began it may be lower than the one that clients saw under the last leader.
        """
        return self.leadership is not None and self.log.high_watermark >= self.leadership.epoch_start

    def check_offset(self, offset: int) -> ErrorCode:
        """Tell whether a fetch from `offset` is in range. What a follower lacks may well be there: its leader knows."""
        log = self.log
        if log.start_offset <= offset <= log.high_watermark:
            return ErrorCode.NONE
        if self.leadership is not None and (offset < log.start_offset or self.knows_its_end):
            return ErrorCode.OFFSET_OUT_OF_RANGE
        return ErrorCode.OFFSET_NOT_AVAILABLE

    def trails(self, offset: int) -> bool:
        """Whether `offset` may come to be readable here by waiting: a follower's mark is behind its leader's."""
        return self.leadership is None and offset > self.log.high_watermark

    def diverging(self, offset: int, last_epoch: int) -> tuple[int, int] | None:
        """Return (epoch, end offset) where the log left the one whose reader, now at `offset`, saw `last_epoch` last.

        None: it holds what was read, or it can't be told. An end alone that lies too low is for `check_offset`.
        """
        log = self.log
        if last_epoch < 0 or last_epoch >= log.last_epoch:
            return None
        end = log.epoch_end(last_epoch)
        if end is None or offset <= log.start_offset or (end[0] in (last_epoch, -1) and end[1] >= offset):
            return None  # nothing older than the log's first batch is known that contradicts it
        return (last_epoch if end[0] < 0 else end[0], max(end[1], log.start_offset))

    def first_base(self) -> int:
        """Return where the batch begins that holds the log start: a follower takes whole batches.

        Raises:
            CorruptBatch: it is damaged.
        """
        log = self.log
        if log.start_offset == log.end_offset:
            return log.start_offset
        data = log.read(log.start_offset, 1, end=log.end_offset)
        return min(log.start_offset, decode_header(data, 0).base_offset)

    def diverging_follower(self, offset: int, last_epoch: int) -> tuple[int, int] | None:
        """Return (epoch, end offset) where the log left that of a follower, which ends at `offset` in `last_epoch`.

        Epoch -1: compaction has left nothing between the log start and `offset`; of which epoch that was nobody knows.

        Raises:
            CorruptBatch: damage hides it.
        """
        log = self.log
        if log.start_offset == log.end_offset:  # nothing is here that could contradict it but the end
            return (last_epoch, log.end_offset) if offset > log.end_offset else None
        if last_epoch < 0:
            return None  # an empty log contradicts nothing
        end = log.epoch_end(last_epoch)
        if end is None:
            raise CorruptBatch(f"{self.topic}-{log.partition}: damage hides where epoch {last_epoch} ends")
        if end[0] < 0:  # what the follower holds from the log start on is not here
            parted, hole = min(end[1], log.start_offset), offset <= end[1]
            return None if parted >= offset else (-1 if hole else last_epoch, parted)
        return None if end[0] == last_epoch and end[1] >= offset else end

    # ---- who waits

    def park_produce(self, last_offset: int, parked: ParkedProduce, index: int, *, replicated: bool) -> None:
        """Keep a produce until the high watermark passes `last_offset`, or what this broker itself has to hold."""
        self._count += 1
        heapq.heappush(self.produces if replicated else self.unreplicated, (last_offset, self._count, parked, index))

    def pop_committed(self) -> list[tuple[ParkedProduce, int]]:
        """Take out the produces that can be answered."""
        committed: list[tuple[ParkedProduce, int]] = []
        log = self.log
        _pop_below(self.produces, log.high_watermark, committed)
        if self.unreplicated:
            _pop_below(self.unreplicated, log.flushed_end if self.durable else log.end_offset, committed)
        return committed

    def pop_all(self) -> list[tuple[ParkedProduce, int]]:
        """Take out all produces that wait."""
        waiting = [(parked, index) for _, _, parked, index in (*self.produces, *self.unreplicated)]
        self.produces.clear()
        self.unreplicated.clear()
        return waiting

    def park_fetch(self, parked: ParkedFetch) -> None:
        """Keep a fetch until the high watermark moves; those answered meanwhile are let go."""
        self.fetches = [waiting for waiting in self.fetches if not waiting.done]
        self.fetches.append(parked)

    def take_fetches(self) -> list[ParkedFetch]:
        """Take out the parked fetches that still wait."""
        waiting = [parked for parked in self.fetches if not parked.done]
        self.fetches = []
        return waiting


def _pop_below(
    heap: list[tuple[int, int, ParkedProduce, int]], mark: int, committed: list[tuple[ParkedProduce, int]]
) -> None:
    while heap and heap[0][0] < mark:
        _, _, parked, index = heapq.heappop(heap)
        committed.append((parked, index))


Find = Callable[[bytes, int], Partition | ErrorCode]  # (topic id, partition) -> what is led here, or why it is not
