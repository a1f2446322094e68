"""A partition this broker leads: its log, and who waits for it to move."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING

from brokerd.serving.parked import ParkedFetch, ParkedProduce
from ingest.wire.codes import ErrorCode
from replicas.high_watermark import HighWatermark, ReplicaEnd

if TYPE_CHECKING:
    from brokerd.storage.log import Log


class Partition:
    """One led partition. Thread: the broker loop.

    Attributes:
        appended_bytes: Bytes appended in this process's life; parked fetches measure `min_bytes` by it.
        epoch_start: The log's end when the epoch began. Until the high watermark is there it may be lower than
            the one clients saw before, so nobody is told where the log ends.
    """

    __slots__ = (
        "_broker_id",
        "_count",
        "_mark",
        "appended_bytes",
        "epoch_start",
        "fetches",
        "log",
        "produces",
        "topic",
    )

    def __init__(self, topic: str, log: Log, broker_id: int) -> None:
        self.topic = topic
        self._broker_id = broker_id
        self._mark = HighWatermark(broker_id, log.high_watermark)
        self.log = log
        self.appended_bytes = 0
        self.epoch_start = log.end_offset
        self.fetches: list[ParkedFetch] = []
        self.produces: list[tuple[int, int, ParkedProduce, int]] = []
        self._count = 0

    @property
    def durable(self) -> bool:
        """Whether an acknowledgement waits for the disk."""
        return self.log.config.durability == "fsync"

    def advance(self) -> None:
        """Move the high watermark to what is appended, or flushed where that is awaited."""
        log = self.log
        end = ReplicaEnd(log.end_offset, log.flushed_end)
        log.advance_high_watermark(self._mark.update(self._broker_id, end, durable=self.durable))

    def check_epoch(self, epoch: int) -> ErrorCode:
        """Compare the epoch a request was made under with the leader's; -1 is not checked."""
        if epoch < 0 or epoch == self.log.leader_epoch:
            return ErrorCode.NONE
        return ErrorCode.FENCED_LEADER_EPOCH if epoch < self.log.leader_epoch else ErrorCode.UNKNOWN_LEADER_EPOCH

    @property
    def knows_its_end(self) -> bool:
        """Whether the high watermark can be told to clients as the end of the log."""
        return self.log.high_watermark >= self.epoch_start

    def check_offset(self, offset: int) -> ErrorCode:
        """Tell whether a fetch from `offset` is in range."""
        log = self.log
        if log.start_offset <= offset <= log.high_watermark:
            return ErrorCode.NONE
        if offset < log.start_offset or self.knows_its_end:
            return ErrorCode.OFFSET_OUT_OF_RANGE
        return ErrorCode.OFFSET_NOT_AVAILABLE

    def diverging(self, offset: int, last_epoch: int) -> tuple[int, int] | None:
        """Return (epoch, end offset) where the log left the one whose reader, now at `offset`, saw `last_epoch` last.

        None: it holds what was read, or it can't be told. An end alone that lies too low is for `check_offset`.
        """
        log = self.log
        if last_epoch < 0 or last_epoch >= log.last_epoch:
            return None
        end = log.epoch_end(last_epoch)
        if end is None or offset <= log.start_offset or (end[0] == last_epoch and end[1] >= offset):
            return None
        return end

    def park_produce(self, last_offset: int, parked: ParkedProduce, index: int) -> None:
        """Keep a produce until the high watermark passes `last_offset`."""
        self._count += 1
        heapq.heappush(self.produces, (last_offset, self._count, parked, index))

    def pop_committed(self) -> list[tuple[ParkedProduce, int]]:
        """Take out the produces whose records are all below the high watermark."""
        committed = []
        mark = self.log.high_watermark
        while self.produces and self.produces[0][0] < mark:
            _, _, parked, index = heapq.heappop(self.produces)
            committed.append((parked, index))
        return committed

    def park_fetch(self, parked: ParkedFetch) -> None:
        """Keep a fetch until the high watermark moves; those answered meanwhile are let go."""
        self.fetches = [waiting for waiting in self.fetches if not waiting.done]
        self.fetches.append(parked)

    def take_fetches(self) -> list[ParkedFetch]:
        """Take out the parked fetches that still wait."""
        waiting = [parked for parked in self.fetches if not parked.done]
        self.fetches = []
        return waiting


Find = Callable[[bytes, int], Partition | ErrorCode]  # (topic id, partition) -> what is led here, or why it is not
