"""The consumer: records or columns from assigned partitions, each at its own position."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from ingest.client.cluster import Cluster, monotonic_ms
from ingest.client.fetcher import Fetcher
from ingest.client.forks import leave_to_parent, survive_forks
from ingest.client.offsets import find_offset
from ingest.client.positions import Position, Reset, TopicPartition
from ingest.errors import ConfigError, DeserializationError, UsageError
from ingest.limits import MIB
from ingest.records.batch import Columns, Record
from ingest.serializers import Deserializer, deserializer
from ingest.wire.messages import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP

__all__ = ["Columns", "Consumer", "Record", "TopicPartition"]


class Consumer:
    """Read partitions. Thread: one at a time, the caller sees to it.

    Args:
        bootstrap: A data directory on this machine, or "tcp://host:port,…".
        topics: Read all partitions of these topics; or call `assign`.
        auto_offset_reset: "earliest", "latest" or "none" (an error) where there is no position or it is out of range.
        client_rack: Read from an in-sync replica in this rack, where `replica.selector.class` is set and there is one.
        local: Read the segments of brokers on this machine through memory maps; False always fetches over ZeroMQ.
        fetch_max_bytes: What one answer may hold, and what is buffered ahead.
    Raises:
        ConfigError: a setting can't be used, or there is no appliance at `bootstrap`.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Iterable[str] = (),
        *,
        group_id: str | None = None,
        auto_offset_reset: str = "latest",
        key_deserializer: str | Deserializer | None = None,
        value_deserializer: str | Deserializer | None = None,
        fetch_min_bytes: int = 1,
        fetch_max_wait_ms: int = 500,
        fetch_max_bytes: int = 8 * MIB,
        client_rack: str = "",
        local: bool = True,
        client_id: str = "",
    ) -> None:
        if group_id is not None:
            raise ConfigError("group_id: consumer groups are not served yet; use topics= or assign() without a group")
        if isinstance(topics, str):
            raise ConfigError(f"topics={topics!r} is one string; give a list of names: [{topics!r}]")
        try:
            self._reset = Reset(auto_offset_reset)
        except ValueError:
            raise ConfigError(f"auto_offset_reset={auto_offset_reset!r} is not earliest, latest or none") from None
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._local = local
        self._rack = client_rack
        self._fetch_bytes = fetch_max_bytes
        self._min_bytes = fetch_min_bytes
        self._max_wait_ms = fetch_max_wait_ms
        self._key = deserializer(key_deserializer)
        self._value = deserializer(value_deserializer)
        self._subscribed: list[str] = list(topics)
        self._closed = False
        self._start()
        survive_forks(self)
        if self._subscribed:
            self._cluster.want(self._subscribed)

    def _start(self) -> None:
        self._cluster = Cluster(self._bootstrap, client_id=self._client_id)
        self._fetcher = Fetcher(
            self._cluster,
            reset=self._reset,
            local=self._local,
            rack=self._rack,
            fetch_bytes=self._fetch_bytes,
            min_bytes=self._min_bytes,
            max_wait_ms=self._max_wait_ms,
        )
        self._cluster.on_metadata = self._on_metadata

    def _on_metadata(self) -> None:
        if self._subscribed:
            names = [
                TopicPartition(name, item.partition)
                for name in self._subscribed
                if (topic := self._cluster.topics.get(name)) is not None
                for item in topic.partitions
            ]
            if set(names) != self._fetcher.positions.keys():
                self._fetcher.assign(names)
        self._fetcher.on_metadata()

    # ---- what to read ------------------------------------------------------------------------------------------------

    def assign(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Read exactly these (topic, partition), keeping the positions of those read already."""
        self._subscribed = []
        self._fetcher.assign(TopicPartition(*item) for item in partitions)

    def assignment(self) -> list[TopicPartition]:
        """Return what is read; empty until metadata of subscribed topics has come."""
        return list(self._fetcher.positions)

    def partitions_for(self, topic: str, timeout_ms: int = 5000) -> list[int]:
        """Return the partitions of a topic, empty if it does not exist.

        Raises:
            TimeoutError: no broker answered.
        """
        self._cluster.want([topic])
        if topic in self._cluster.missing:
            self._cluster.missing.pop(topic)
            self._cluster.refresh()  # it may have been created since
        self._wait(lambda: topic in self._cluster.topics or topic in self._cluster.missing, timeout_ms, "metadata")
        found = self._cluster.topics.get(topic)
        return [] if found is None else sorted(item.partition for item in found.partitions)

    def pause(self, *partitions: tuple[str, int]) -> None:
        """Stop handing out records of these partitions; their positions stay."""
        for position in self._positions(partitions):
            position.paused = True
            self._rewind(position)

    def resume(self, *partitions: tuple[str, int]) -> None:
        """Hand out records of these partitions again."""
        for position in self._positions(partitions):
            position.paused = False

    # ---- where to read -----------------------------------------------------------------------------------------------

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Go to an offset; one out of range meets `auto_offset_reset` at the next poll."""
        if offset < 0:
            raise UsageError(f"offset {offset} is negative; use seek_to_beginning or seek_to_end")
        (position,) = self._positions([(topic, partition)])
        position.seek(offset)
        self._fetcher.void(position.name)

    def seek_to_beginning(self, *partitions: tuple[str, int]) -> None:
        """Go to the first record of these partitions, of all without arguments."""
        self._seek_to(EARLIEST_TIMESTAMP, partitions)

    def seek_to_end(self, *partitions: tuple[str, int]) -> None:
        """Go behind the last record of these partitions, of all without arguments."""
        self._seek_to(LATEST_TIMESTAMP, partitions)

    def seek_to_time(self, timestamp_ms: int, *partitions: tuple[str, int]) -> None:
        """Go to the first record at or after a time, ms since 1970-01-01 UTC; to the end if none is that late."""
        if timestamp_ms < 0:
            raise UsageError(f"timestamp {timestamp_ms} is negative")
        self._seek_to(timestamp_ms, partitions)

    def _seek_to(self, timestamp_ms: int, partitions: Iterable[tuple[str, int]]) -> None:
        for position in self._positions(partitions):
            position.seek_to_timestamp(timestamp_ms)
            self._fetcher.void(position.name)

    def position(self, topic: str, partition: int, timeout_ms: int = 5000) -> int:
        """Return the offset of the next record `poll` will give.

        Raises:
            TimeoutError: no broker could say within `timeout_ms`.
        """
        (position,) = self._positions([(topic, partition)])
        self._wait(lambda: position.offset >= 0, timeout_ms, f"the position of {topic}-{partition}")
        return position.offset

    def offsets_for_times(
        self, times_ms: dict[tuple[str, int], int], timeout_ms: int = 5000
    ) -> dict[TopicPartition, tuple[int, int] | None]:
        """Return for each partition the (offset, timestamp_ms) of the first record at or after a time, None: none is.

        Raises:
            RemoteError, TransportError, TimeoutError: the leader refused or could not be asked.
        """
        found: dict[TopicPartition, tuple[int, int] | None] = {}
        for item, timestamp_ms in times_ms.items():
            name = TopicPartition(*item)
            listed = find_offset(self._cluster, *name, timestamp_ms, timeout_ms)
            found[name] = None if listed[0] < 0 else listed
        return found

    def beginning_offsets(
        self, partitions: Iterable[tuple[str, int]], timeout_ms: int = 5000
    ) -> dict[TopicPartition, int]:
        """Return the offset of the first record of each partition."""
        return self._offsets(partitions, EARLIEST_TIMESTAMP, timeout_ms)

    def end_offsets(self, partitions: Iterable[tuple[str, int]], timeout_ms: int = 5000) -> dict[TopicPartition, int]:
        """Return the high watermark of each partition."""
        return self._offsets(partitions, LATEST_TIMESTAMP, timeout_ms)

    def _offsets(
        self, partitions: Iterable[tuple[str, int]], timestamp_ms: int, timeout_ms: int
    ) -> dict[TopicPartition, int]:
        names = [TopicPartition(*item) for item in partitions]
        return {name: find_offset(self._cluster, *name, timestamp_ms, timeout_ms)[0] for name in names}

    def lag(self) -> dict[TopicPartition, int | None]:
        """Return per partition how many records below the high watermark, as last heard, were not handed out yet."""
        return {name: position.lag_records for name, position in self._fetcher.positions.items()}

    # ---- reading -----------------------------------------------------------------------------------------------------

    def poll(self, timeout_ms: int = 0, max_records: int = 500) -> list[Record]:
        """Return up to `max_records` records, waiting up to `timeout_ms` for the first.

        Raises:
            CorruptBatch: records are corrupt and were set aside; the next poll goes on behind them.
            DeserializationError: a deserializer raised for the next record; raised again until `seek` passes it.
            LogTruncation: records that were read are gone; the next poll goes on at `auto_offset_reset`
                ("none": it is raised again until `seek`), in a topic that was created anew at its start.
            RemoteError: the leader refuses for good; OFFSET_OUT_OF_RANGE with "none", until `seek`.
        """
        records: list[Record] = []
        self._await_buffer(timeout_ms)
        while len(records) < max_records:
            columns = self._fetcher.pop()
            if columns is None:
                break
            room = max_records - len(records)
            if len(columns) > room:
                self._fetcher.put_back(columns[room:])
                columns = columns[:room]
            good, bad = self._deserialize(columns)
            records += good
            if bad is not None:
                self._fetcher.put_back(columns[len(good) :])
                if not records:
                    raise bad
                break
        return records

    def _deserialize(self, columns: Columns) -> tuple[list[Record], DeserializationError | None]:
        """Return the records up to the first whose deserializer raises, and that error."""
        try:
            return columns.to_records(self._key, self._value), None
        except Exception:  # whatever a deserializer of the caller's does; which record it is comes next
            records: list[Record] = []
            for row in range(len(columns)):
                try:
                    records += columns[row : row + 1].to_records(self._key, self._value)
                except Exception as error:
                    bad = DeserializationError(columns.topic, columns.partition, int(columns.offsets[row]), error)
                    return records, bad
            return records, None  # it did not raise again

    def poll_arrays(self, timeout_ms: int = 0, max_batches: int = 1000) -> list[Columns]:
        """Return stored batches as columns, waiting up to `timeout_ms` for the first; views over the maps where local.

        Raises:
            CorruptBatch, LogTruncation, RemoteError: as `poll`.
        """
        self._await_buffer(timeout_ms)
        batches: list[Columns] = []
        while len(batches) < max_batches and (columns := self._fetcher.pop()) is not None:
            batches.append(columns)
        return batches

    def __iter__(self) -> Iterator[Record]:
        while not self._closed:
            yield from self.poll(1000)

    def _await_buffer(self, timeout_ms: int) -> None:
        fetcher, cluster = self._fetcher, self._cluster
        fetcher.raise_fault()
        if fetcher.buffer:
            return
        if self._closed:
            raise UsageError("the consumer is closed")
        deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        while True:
            cluster.poll()
            fetcher.fill()
            fetcher.raise_fault()
            if fetcher.buffer:
                return
            left_ms = (deadline_ns - time.monotonic_ns()) // 1_000_000
            if left_ms <= 0:
                return
            cluster.wait(
                min(left_ms, max(1, cluster.deadline_ms() - monotonic_ms()), 100 if cluster.version >= 0 else 5)
            )

    def _wait(self, done: Any, timeout_ms: int, what: str) -> None:
        deadline_ms = monotonic_ms() + timeout_ms
        while not done():
            if monotonic_ms() >= deadline_ms:
                raise TimeoutError(f"no broker could tell {what} within {timeout_ms} ms")
            self._cluster.poll()
            self._fetcher.fill()
            if not done():
                self._cluster.wait(5)

    def _positions(self, partitions: Iterable[tuple[str, int]]) -> list[Position]:
        if self._subscribed and not self._fetcher.positions:
            self._wait(lambda: self._fetcher.positions, 5000, "metadata of the topics")
        wanted = [TopicPartition(*item) for item in partitions] or list(self._fetcher.positions)
        for name in wanted:
            if name not in self._fetcher.positions:
                raise UsageError(f"{name.topic}-{name.partition} is not assigned")
        return [self._fetcher.positions[name] for name in wanted]

    def _rewind(self, position: Position) -> None:
        stopped = self._fetcher.void(position.name, but_faults=True)
        if position.offset >= 0 and not stopped and position.fault is None:
            position.seek(position.offset, position.epoch)

    def close(self) -> None:
        """Close sockets and maps; arrays handed out stay valid."""
        if not self._closed:
            self._closed = True
            self._fetcher.close()
            self._cluster.close()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def after_fork(self) -> None:
        if self._closed:
            return
        leave_to_parent(self._cluster, self._fetcher)
        old, faults = self._fetcher.positions, self._fetcher.faults()
        self._start()
        if old:
            self._fetcher.assign(old)
            for name, position in old.items():
                mine = self._fetcher.positions[name]
                mine.seek(position.offset, position.epoch)
                mine.timestamp_ms, mine.paused = position.timestamp_ms, position.paused
                mine.topic_id = position.topic_id  # another one met now means that the topic was created anew
            self._fetcher.tell(faults)
        if self._subscribed:
            self._cluster.want(self._subscribed)
