"""The logs of leaders on this machine, read where they are mapped: no broker on the path, no copy."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from edge.kafka.brokers import Brokers
from ingest.errors import ForebayError
from ingest.log.reader import LocalLog
from ingest.records.header import BatchHeader
from ingest.wire.messages import FetchedPartition, FetchPartition

LOGS_MAX = 256  # open at once: five descriptors each at the most
LOADS_MAX = 2  # from disk, at once

Place = tuple[bytes, int]


class Mapped(NamedTuple):
    """What a map holds of a partition from an offset on; `batches` are views of it, whose CRCs were checked."""

    high_watermark: int
    log_start: int
    batches: Sequence[tuple[BatchHeader, memoryview]]


class _Log(NamedTuple):
    leader: int
    leader_epoch: int
    log: LocalLog


class LocalLogs:
    """Maps of partitions, the last used ones kept. Thread: the loop's.

    Where a partition's row on its leader's state page is, an answer of the leader tells; what the map can't tell is
    asked of the leader too, which knows where the log begins and ends, and what of it is damaged.
    """

    def __init__(self, brokers: Brokers, loop: asyncio.AbstractEventLoop) -> None:
        self._brokers = brokers
        self._loop = loop
        self._loading = ThreadPoolExecutor(LOADS_MAX, thread_name_prefix="kafka-load")
        self._logs: OrderedDict[Place, _Log] = OrderedDict()
        self._read: set[Place] = set()

    def learn(self, leader: int, item: FetchedPartition) -> None:
        """Take note of what a leader's answer tells, if it is on this machine."""
        broker = self._brokers.local(leader)
        place = (item.topic_id, item.partition)
        if item.error_code or item.row < 0 or broker is None:
            return
        known = self._logs.get(place)
        if known is not None and (known.leader, known.leader_epoch) == (leader, item.leader_epoch):
            return
        try:
            log = LocalLog(
                Path(broker.log_dir), Path(broker.page_path), item.row, *place, leader_epoch=item.leader_epoch
            )
        except (ForebayError, OSError):
            return  # it has moved, or these are another user's files
        self._logs[place] = _Log(leader, item.leader_epoch, log)
        if len(self._logs) > LOGS_MAX:
            self._logs.popitem(last=False)

    def has(self, leader: int, leader_epoch: int, item: FetchPartition) -> bool:
        """Tell whether a partition can be read here: mapped, under the epoch that metadata and the client know.

        What was read under an older epoch may not be in the log any more: that is the leader's to tell.
        """
        place = (item.topic_id, item.partition)
        log = self._logs.get(place)
        if log is not None:
            self._logs.move_to_end(place)
        return (
            log is not None
            and log.leader == leader
            and log.leader_epoch == leader_epoch == item.leader_epoch
            and item.last_epoch in (-1, leader_epoch)
        )

    async def read(self, item: FetchPartition, bytes_max: int) -> Mapped | None:
        """Return what there is from an offset on: one batch at least if there are any; None: ask the leader.

        Args:
            bytes_max: Beside the partition's own; where none are left only marks come.
        """
        place = (item.topic_id, item.partition)
        known = self._logs.get(place)
        if known is None:  # it gave way to others, or proved wrong to one, while the disk was waited for
            return None
        self._read.add(place)
        log = known.log
        try:
            if bytes_max <= 0:
                marks = log.marks()
                return Mapped(marks.high_watermark, marks.log_start, [])
            size = min(bytes_max, item.max_bytes)
            load = log.cold(item.offset, size)
            if load is not None:
                await self._loop.run_in_executor(self._loading, load)
            batches = log.read(item.offset, size)
        except (ForebayError, OSError):
            self._logs.pop(place, None)
            return None
        return Mapped(log.high_watermark, log.log_start, batches)

    def drop_unread(self) -> None:
        """Unmap what nobody has read since this was called before: maps hold the space of segments that are deleted."""
        for place in self._logs.keys() - self._read:
            del self._logs[place]
        self._read.clear()

    def close(self) -> None:
        self._loading.shutdown(wait=False, cancel_futures=True)
