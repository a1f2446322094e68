"""Fetching for a consumer: from the mapped segments where the broker is on this machine, over ZeroMQ otherwise.

Both ways give the same columns in the same order. Locally a Fetch that asks for no bytes is the doorbell: its answer
brings marks and epoch, so no wake-up is lost and a dead leader is noticed. One Fetch is under way per broker.

A partition is read at its leader, or at the follower that it names to a consumer with a `client.rack` (KIP-392). What
that one can't serve is for the leader to say; where the log ends, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ingest.client.cluster import Answered, Cluster, monotonic_ms
from ingest.client.offsets import ITEMS_MAX, Found, learn_ends, look_up
from ingest.client.positions import Position, Reset, TopicPartition, reset_timestamp
from ingest.errors import (
    CorruptBatch,
    ForebayError,
    LogTruncation,
    NoOffset,
    RemoteError,
    StorageError,
    UnsupportedFormat,
)
from ingest.log.reader import LocalLog, LogMoved
from ingest.records.batch import Columns, decode_batch
from ingest.records.header import BatchHeader, decode_header, verify_batch
from ingest.wire.codes import OUTDATED, ErrorCode, error_from_code
from ingest.wire.messages import (
    EARLIEST_TIMESTAMP,
    LATEST_TIMESTAMP,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    PartitionMetadata,
)

RETRY_MS = 20
LOOK_UP_TIMEOUT_MS = 5_000
FETCH_GRACE_MS = 5_000
ENDS_MS = 1_000  # how often leaders are asked for the ends of logs that are read at followers
SHARED_WAIT_MS = 50


class _Fault(NamedTuple):
    """An error in its place among the batches; behind it `position` goes on at an offset, or where reset says."""

    error: ForebayError
    position: Position | None = None
    next_offset: int = -1
    reset_ms: int | None = LATEST_TIMESTAMP


class Fetcher:
    """Keep a consumer's buffer filled. Thread: the consumer's.

    Args:
        local: Map segments of brokers on this machine; False always fetches.
        rack: `client.rack`: read in that rack where a leader names a replica there. Empty: at leaders alone.
        fetch_bytes: What one answer may hold over ZeroMQ, and one read of a map.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        reset: Reset,
        local: bool,
        rack: str,
        fetch_bytes: int,
        min_bytes: int,
        max_wait_ms: int,
    ) -> None:
        self._cluster = cluster
        self._reset = reset
        self._rack = rack
        self._ends_at_ms = 0
        self._local = local
        self._fetch_bytes = fetch_bytes
        self._min_bytes = min_bytes
        self._max_wait_ms = max_wait_ms
        self._fetching: set[int] = set()
        self._retry_at_ms: dict[int, int] = {}
        self._throttled_until_ms: dict[int, int] = {}  # by broker
        self._counting: set[int] = set()  # brokers that count what is read: maps would be read past them
        self._logs: dict[TopicPartition, LocalLog] = {}
        self._turn = 0
        self.positions: dict[TopicPartition, Position] = {}
        self.buffer: deque[Columns | _Fault] = deque()
        self.buffered_bytes = 0
        self._dtypes: dict[str, Any] = {}

    # ---- the partitions ----------------------------------------------------------------------------------------------

    def assign(self, names: Iterable[TopicPartition]) -> None:
        """Read these partitions from now on, keeping the positions of those read already."""
        wanted = list(dict.fromkeys(names))
        for name in self.positions.keys() - set(wanted):
            self._drop(name)
        for name in wanted:
            if name not in self.positions:
                self.positions[name] = Position(name, reset_timestamp(self._reset))
        self._cluster.want({name.topic for name in wanted})
        self.on_metadata()

    def _drop(self, name: TopicPartition) -> None:
        del self.positions[name]
        self._close_log(name)
        self.void(name)

    def void(self, name: TopicPartition, *, but_faults: bool = False) -> bool:
        """Forget what is buffered for a partition; tell whether an error was kept that stopped it."""
        kept = [item for item in self.buffer if _name(item) != name or (but_faults and isinstance(item, _Fault))]
        self.buffer = deque(kept)
        self.buffered_bytes = sum(_size(item) for item in kept if isinstance(item, Columns))
        return any(_name(item) == name and isinstance(item, _Fault) and item.next_offset < 0 for item in kept)

    def faults(self) -> list[tuple[TopicPartition, ForebayError, int | None]]:
        """Return the errors that stopped positions: partition, error, and where reset goes from there."""
        found = [
            (item.position.name, item.error, item.reset_ms)
            for item in self.buffer
            if isinstance(item, _Fault) and item.position is not None and item.next_offset < 0
        ]
        told: list[tuple[TopicPartition, ForebayError, int | None]]
        told = [(p.name, p.fault, None) for p in self.positions.values() if p.fault is not None]
        return found + told

    def tell(self, faults: Iterable[tuple[TopicPartition, ForebayError, int | None]]) -> None:
        """Take over the `faults` of another fetcher, for the same partitions."""
        for name, error, reset_ms in faults:
            self.positions[name].stop()
            self.buffer.append(_Fault(error, self.positions[name], reset_ms=reset_ms))

    def on_metadata(self) -> None:
        """Follow the leaders that metadata names now, and leave followers that are not in sync any more."""
        now_ms = monotonic_ms()
        alive = {broker.broker_id for broker in self._cluster.brokers.values() if broker.alive}
        for name, position in self.positions.items():
            topic = self._cluster.topics.get(name.topic)
            if topic is None:
                continue
            before = position.topic_id
            for item in topic.partitions:
                if item.partition != name.partition:
                    continue
                if position.lead_by(topic.topic_id, item.leader, item.leader_epoch):
                    self._close_log(name)
                    self._retry_at_ms.pop(item.leader, None)
                elif position.source not in alive.intersection(item.isr):
                    position.not_served(now_ms, for_good=True)
            if before not in (b"", position.topic_id):
                self._begun_anew(position)
            dtype = topic.configs.get("value.dtype", "")
            self._dtypes[name.topic] = np.dtype(dtype) if dtype else None

    # ---- filling the buffer ------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Do what can be done without waiting: look up positions, read maps, ask brokers."""
        now_ms = monotonic_ms()
        self._look_up(now_ms)
        if self._rack and now_ms >= self._ends_at_ms:
            self._ends_at_ms = now_ms + ENDS_MS
            learn_ends(self._cluster, [position for position in self.positions.values() if position.strays])
        if self.buffered_bytes >= 2 * self._fetch_bytes:
            return  # one answer to hand out, one on its way
        by_source: dict[int, list[Position]] = {}
        for position in self.positions.values():
            if position.fetch_offset >= 0 and position.leader >= 0 and not position.paused:
                position.expire(now_ms)
                by_source.setdefault(position.source, []).append(position)
        for source, positions in by_source.items():
            local = self._is_local(source)
            mapped = [position for position in positions if local and not position.read_remotely]
            found = self._read_maps(mapped)
            if not found or len(mapped) < len(positions) or any(position.row < 0 for position in mapped):
                self._ask(source, positions, now_ms, local=local)
        if not self.buffer:
            self.buffer.extend(_Fault(p.fault, p) for p in self.positions.values() if p.fault is not None)

    def _is_local(self, source: int) -> bool:
        broker = self._cluster.brokers.get(source)
        may_map = self._local and source not in self._counting
        return may_map and broker is not None and self._cluster.is_local(broker)

    def _look_up(self, now_ms: int) -> None:
        """Ask leaders where positions that are only a time are."""
        for position in self.positions.values():
            unknown = position.offset < 0 and not position.asking and position.leader >= 0
            if unknown and position.timestamp_ms is None and position.fault is None:
                name = position.name
                text = f"{name.topic}-{name.partition}: there is no position and auto_offset_reset is none"
                position.fault = NoOffset(f"{text}; seek() to begin")
            elif unknown and position.fault is None and self._retry_at_ms.get(position.leader, 0) <= now_ms:
                self._look_up_one(position)

    def _look_up_one(self, position: Position) -> None:
        generation, timestamp_ms = position.generation, position.timestamp_ms
        assert timestamp_ms is not None

        def on_found(found: Found | ForebayError) -> None:
            if position.generation != generation:
                return
            position.asking = False
            if isinstance(found, ForebayError):
                self._failed(position.leader, getattr(found, "code", 0))
            elif found[0] >= 0:
                position.offset = position.fetch_offset = found[0]
            else:
                position.timestamp_ms = LATEST_TIMESTAMP  # no record is that late: the end

        leader = PartitionMetadata(position.name.partition, position.leader, position.leader_epoch, [], [])
        position.asking = look_up(
            self._cluster,
            position.topic_id,
            leader,
            timestamp_ms,
            on_found,
            timeout_ms=LOOK_UP_TIMEOUT_MS,
        )

    def _failed(self, source: int, code: int) -> None:
        now_ms = monotonic_ms()
        self._retry_at_ms[source] = now_ms + RETRY_MS
        if code in OUTDATED:
            self._cluster.wait_for_newer(now_ms)

    # ---- local -------------------------------------------------------------------------------------------------------

    def _read_maps(self, positions: list[Position]) -> bool:
        """Read what the maps hold; tell whether there was any."""
        found = False
        self._turn += 1
        for index in range(len(positions)):
            position = positions[(index + self._turn) % len(positions)]
            if position.row < 0:
                continue
            try:
                log = self._open_log(position)
                batches = log.read(position.fetch_offset, max(1, self._fetch_bytes - self.buffered_bytes))
                position.high_watermark = max(position.high_watermark, log.high_watermark)
            except (LogMoved, LogTruncation):  # what was lost, if anything, is for the leader to say
                self._close_log(position.name)
                position.row = -1
                continue
            except (CorruptBatch, StorageError, OSError):
                self._close_log(position.name)
                position.read_remotely = True  # the leader knows better, or may read what we may not
                continue
            for header, batch in batches:
                if position.contradicts(header.base_offset, header.leader_epoch):
                    self._close_log(position.name)
                    position.read_remotely = True
                    break
                self._take(position, header, batch)
                found = True
            if self.buffered_bytes >= self._fetch_bytes:
                break
        return found

    def _open_log(self, position: Position) -> LocalLog:
        log = self._logs.get(position.name)
        if log is None:
            broker = self._cluster.brokers[position.source]
            log = self._logs[position.name] = LocalLog(
                Path(broker.log_dir),
                Path(broker.page_path),
                position.row,
                position.topic_id,
                position.name.partition,
                leader_epoch=position.leader_epoch,
            )
        return log

    def _close_log(self, name: TopicPartition) -> None:
        log = self._logs.pop(name, None)
        if log is not None:
            log.close()

    # ---- over ZeroMQ -------------------------------------------------------------------------------------------------

    def _ask(self, source: int, positions: list[Position], now_ms: int, *, local: bool) -> None:
        """Fetch; of what is read from maps only marks are asked for: the doorbell."""
        resumes_ms = max(self._retry_at_ms.get(source, 0), self._throttled_until_ms.get(source, 0))
        if source in self._fetching or resumes_ms > now_ms:
            return
        turn = self._turn % len(positions)
        self._turn += 1 if len(positions) <= ITEMS_MAX else ITEMS_MAX
        positions = positions[turn:] + positions[:turn]
        wait_ms = self._max_wait_ms
        if len(positions) > ITEMS_MAX:  # the others have their turn soon
            positions, wait_ms = positions[:ITEMS_MAX], min(wait_ms, SHARED_WAIT_MS)
        if any(p.row < 0 for p in positions):
            wait_ms = 0
        bytes_of = [0 if local and not p.read_remotely else self._fetch_bytes for p in positions]
        items = [
            FetchPartition(p.topic_id, p.name.partition, p.fetch_offset, max_bytes, p.leader_epoch, p.fetch_epoch)
            for p, max_bytes in zip(positions, bytes_of, strict=True)
        ]
        asked = [(p, p.generation, p.fetch_offset, p.source, p.leader_epoch) for p in positions]
        # a map is nearer than any rack
        nearer = any(p.strays for p in positions) or not (local or any(p.leader_until_ms > now_ms for p in positions))

        def on_done(answered: Answered) -> None:
            self._fetching.discard(source)
            if answered.error is not None:
                self._failed(source, getattr(answered.error, "code", 0))
            else:
                self._heed_quota(source, answered.body)
            items = answered.body.partitions if answered.error is None else [None] * len(asked)
            for (position, *then), item in zip(asked, items, strict=False):
                now = [position.generation, position.fetch_offset, position.source, position.leader_epoch]
                if now != then:  # a leader of another epoch vouches for nothing
                    continue
                if item is None:
                    position.not_served(monotonic_ms(), for_good=True)
                else:
                    self._fetched(source, position, item, answered.payload)

        body = FetchRequest(wait_ms, self._min_bytes, max(bytes_of), items, rack=self._rack if nearer else "")
        if self._cluster.send(source, body, on_done, timeout_ms=wait_ms + FETCH_GRACE_MS, now_ms=now_ms):
            self._fetching.add(source)
        else:
            for position in positions:
                position.not_served(now_ms, for_good=False)

    def _heed_quota(self, source: int, answer: FetchResponse) -> None:
        if answer.throttle_ms > 0:
            self._throttled_until_ms[source] = monotonic_ms() + answer.throttle_ms
        if answer.counted:
            self._counting.add(source)
        else:
            self._counting.discard(source)

    def _fetched(self, source: int, position: Position, item: FetchedPartition, payload: Any) -> None:
        code = item.error_code
        if position.strays:
            now_ms = monotonic_ms()
            if code or item.diverging_end_offset >= 0:
                position.not_served(now_ms, for_good=code != ErrorCode.OFFSET_NOT_AVAILABLE)
                self._failed(source, code)
                return
            position.source_well_ms = now_ms
        elif item.preferred_read_replica >= 0:
            position.high_watermark = item.high_watermark
            position.prefer(item.preferred_read_replica, monotonic_ms())
            return
        if code == ErrorCode.OFFSET_OUT_OF_RANGE:
            self._out_of_range(position, item)
            return
        if code == ErrorCode.CORRUPT_MESSAGE and item.next_offset > position.fetch_offset:
            name = position.name
            text = (
                f"{name.topic}-{name.partition}: records {position.fetch_offset}..{item.next_offset - 1} "
                "are corrupt on disk and set aside; reading goes on behind them"
            )
            position.fetch_offset, position.fetch_epoch = item.next_offset, -1
            self.buffer.append(_Fault(CorruptBatch(text), position, position.fetch_offset))
            return
        if code:
            self._failed(source, code)
            if not error_from_code(code).retriable:
                self.buffer.append(_Fault(error_from_code(code, f"fetch of {position.name}")))
            return
        if item.diverging_end_offset >= 0:
            self._diverged(position, min(item.diverging_end_offset, position.fetch_offset))
            return
        if not position.strays:
            position.high_watermark = item.high_watermark
        if position.row < 0:  # what was mapped may be another broker's
            self._close_log(position.name)
        position.row = item.row
        if item.frame >= 0:
            self._decode(position, memoryview(payload[item.frame]))
            position.read_remotely = False  # behind it the map may be good again

    def _out_of_range(self, position: Position, item: FetchedPartition) -> None:
        """The leader, its epoch verified, has no such offset."""
        name, offset = position.name, position.fetch_offset
        if self._reset is Reset.NONE:
            text = (
                f"OFFSET_OUT_OF_RANGE: {name.topic}-{name.partition} has "
                f"{item.log_start_offset}..{item.high_watermark}, not {offset}; seek() to go on"
            )
            position.stop()
            self.buffer.append(_Fault(RemoteError(text, code=int(ErrorCode.OFFSET_OUT_OF_RANGE)), position))
            return
        if offset > item.high_watermark >= 0 and position.fetch_epoch >= 0:  # records below it were read
            text = f"{name.topic}-{name.partition}: the log ends at {item.high_watermark}, before {offset}"
            self._truncated(position, text)
            return
        position.seek_to_timestamp(reset_timestamp(self._reset))

    def _diverged(self, position: Position, end_offset: int) -> None:
        name, offset = position.name, position.fetch_offset
        self._truncated(
            position,
            f"{name.topic}-{name.partition}: the log diverged at {end_offset}, before {offset}: it was cut there and "
            "holds other records now than those that were read",
        )

    def _truncated(self, position: Position, text: str) -> None:
        """Tell, behind what is buffered, that records are gone; then go where reset says."""
        position.stop()
        self.buffer.append(_Fault(LogTruncation(text), position, reset_ms=reset_timestamp(self._reset)))

    def _begun_anew(self, position: Position) -> None:
        """The topic was deleted and created anew: of this one nothing was read."""
        name, offset = position.name, position.offset
        if offset < 0:
            position.seek_to_timestamp(position.timestamp_ms)  # an answer under way is the old topic's
            return
        position.stop()
        text = (
            f"{name.topic}-{name.partition}: the topic was deleted and created anew; {offset} is an offset of the old"
        )
        self.buffer.append(_Fault(LogTruncation(text), position, reset_ms=EARLIEST_TIMESTAMP))

    def _decode(self, position: Position, data: memoryview) -> None:
        at = 0
        while at < data.nbytes:
            try:
                header = decode_header(data, at)
                batch = data[at : at + header.size]
                verify_batch(batch, header)
            except CorruptBatch as error:  # the leader checked it: it was harmed on its way, ask again
                self.buffer.append(_Fault(error))
                return
            self._take(position, header, batch)
            at += header.padded_size

    def _take(self, position: Position, header: BatchHeader, batch: memoryview) -> None:
        """Buffer one verified batch, without the records below the position; go on behind one nobody can decode."""
        name, start = position.name, position.fetch_offset
        position.fetch_offset, position.fetch_epoch = header.next_offset, header.leader_epoch
        try:
            columns = decode_batch(batch, *name, header, self._dtypes[name.topic])
        except (CorruptBatch, UnsupportedFormat) as error:
            text = f"{name.topic}-{name.partition}: records {header.base_offset}..{header.last_offset}: {error}"
            self.buffer.append(
                _Fault(CorruptBatch(f"{text}; reading goes on behind them"), position, header.next_offset)
            )
            return
        if columns.base_offset < start:
            columns = columns[int(np.searchsorted(columns.offsets, start)) :]
        self.buffer.append(columns)
        self.buffered_bytes += _size(columns)

    def pop(self) -> Columns | None:
        """Hand out the next buffered batch and move its position; None: there is none before the next error."""
        while self.buffer and not isinstance(self.buffer[0], _Fault):
            columns = self.buffer.popleft()
            assert isinstance(columns, Columns)
            self.buffered_bytes -= _size(columns)
            position = self.positions[TopicPartition(columns.topic, columns.partition)]
            position.offset, position.epoch = columns.next_offset, columns.leader_epoch
            position.high_watermark = max(position.high_watermark, columns.next_offset)
            if len(columns):
                return columns
        return None

    def raise_fault(self) -> None:
        """Raise the error that is next in order, if one is, and move the position behind what it tells of.

        Raises:
            ForebayError: corrupt records, a truncated log, a refusal for good.
        """
        if self.buffer and isinstance(self.buffer[0], _Fault):
            fault = self.buffer.popleft()
            assert isinstance(fault, _Fault)
            position = fault.position
            if position is None:
                pass
            elif fault.next_offset >= 0:
                position.offset, position.epoch = fault.next_offset, -1
            elif self._reset is Reset.NONE:
                position.fault = fault.error
            else:
                position.seek_to_timestamp(fault.reset_ms)
            raise fault.error

    def put_back(self, columns: Columns) -> None:
        """Take back records that were popped and not wanted now."""
        self.buffer.appendleft(columns)
        self.buffered_bytes += _size(columns)
        position = self.positions[TopicPartition(columns.topic, columns.partition)]
        position.offset = int(columns.offsets[0])

    def close(self) -> None:
        for name in list(self._logs):
            self._close_log(name)


def _name(item: Columns | _Fault) -> TopicPartition | None:
    if isinstance(item, _Fault):
        return None if item.position is None else item.position.name
    return TopicPartition(item.topic, item.partition)


def _size(columns: Columns) -> int:
    values = columns.values
    data = values if isinstance(values, np.ndarray) else values.data
    return int(data.nbytes) + columns.keys.data.nbytes + 16 * len(columns)
