"""The consumer: records or columns from assigned partitions, each at its own position."""

from __future__ import annotations

import logging
import re
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ingest.client.cluster import Cluster, monotonic_ms
from ingest.client.fetcher import Fetcher
from ingest.client.forks import leave_to_parent, survive_forks
from ingest.client.groups.assignors import Assignor, assignors_named
from ingest.client.groups.committed import Committed, MemberId
from ingest.client.groups.group_consumer import CALL_TIMEOUT_MS, GroupConsumer, GroupSettings, OnCommit, to_commit
from ingest.client.groups.listener import RebalanceListener
from ingest.client.groups.member import MemberConfig
from ingest.client.groups.membership import matches, this_host, this_process
from ingest.client.handing_out import deserialize, one_by_one
from ingest.client.lag import Lag, Place, ask_lags
from ingest.client.offsets import find_offset
from ingest.client.one_thread import OneThread
from ingest.client.positions import Position, Reset, TopicPartition, named
from ingest.client.wake_fd import WakeFd
from ingest.errors import ConfigError, UsageError
from ingest.limits import MIB
from ingest.records.batch import Columns, Record
from ingest.serializers import Deserializer, deserializer
from ingest.wire.messages import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP

__all__ = ["Columns", "Committed", "Consumer", "Lag", "MemberId", "RebalanceListener", "Record", "TopicPartition"]

log = logging.getLogger("forebay.client")


class Consumer:
    """Read partitions. Thread: one at a time; a second one gets a UsageError.

    Args:
        bootstrap: A data directory on this machine, or "tcp://host:port,…".
        topics: Read these topics; or call `subscribe` or `assign`.
        group_id: Share the partitions of what is subscribed to with the other members of this group, and begin where
            the group has committed. Membership lasts as long as this process: it is not asked how often it polls.
        group_instance_id: A static member: one that comes back within `session_timeout_ms` finds its partitions again.
        enable_auto_commit: Commit at `poll`, every `auto_commit_interval_ms`, what earlier polls have handed out.
        max_poll_interval_ms: Without a poll for so long others get the partitions; 0: they never do.
        session_timeout_ms, heartbeat_interval_ms: Of members on other machines than their coordinator.
        partition_assignment_strategy: range, roundrobin, sticky or cooperative-sticky, or several, the best first. All
            members of a group need one in common.
        auto_offset_reset: "earliest", "latest" or "none" (an error) where there is no position or it is out of range.
            In a group with auto commit that place is committed before the first record is handed out.
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
        group_instance_id: str | None = None,
        enable_auto_commit: bool = True,
        auto_commit_interval_ms: int = 5_000,
        session_timeout_ms: int = 45_000,
        heartbeat_interval_ms: int = 3_000,
        max_poll_interval_ms: int = 1_800_000,
        partition_assignment_strategy: str | Sequence[str | Assignor] = "cooperative-sticky",
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
        self._group_settings: GroupSettings | None = None
        if group_id is not None:
            member = MemberConfig(
                group_id,
                assignors_named(partition_assignment_strategy),
                group_instance_id,
                session_timeout_ms,
                min(heartbeat_interval_ms, max(1, session_timeout_ms // 2)),
                max_poll_interval_ms,
                client_rack,
                this_host(),
            )
            self._group_settings = GroupSettings(member, enable_auto_commit, auto_commit_interval_ms)
        elif group_instance_id is not None:
            raise ConfigError("group_instance_id needs a group_id")
        self._subscribed: list[str] = []
        self._told_missing: set[str | TopicPartition] = set()
        self._pattern: re.Pattern[str] | None = None
        self._listener: RebalanceListener | None = None
        self._closed = False
        self._start()
        survive_forks(self)
        wanted = list(topics)
        if wanted:
            self.subscribe(wanted)

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
        this = weakref.ref(self)  # a consumer that nobody closes must not live on in a cycle

        def on_metadata() -> None:
            consumer = this()
            if consumer is not None:
                consumer._on_metadata()

        self._cluster.on_metadata = on_metadata
        self._alone = OneThread("this consumer; `wakeup` alone may be called meanwhile")
        self._woken = False
        self._wake = WakeFd()
        self._cluster.watch(self._wake)
        self._group: GroupConsumer | None = None
        if self._group_settings is not None:
            member = replace(self._group_settings.member, process=this_process())
            self._group = GroupConsumer(
                self._bootstrap,
                self._cluster,
                self._fetcher,
                self._group_settings._replace(member=member),
                client_id=self._client_id,
            )
            self._dropped = weakref.finalize(self, self._group.drop)  # a consumer that nobody closes leaves too

    def _on_metadata(self) -> None:
        wanted = {*self._subscribed, *(name.topic for name in self._fetcher.positions)}
        for missing in self._cluster.missing.keys() & wanted - self._told_missing:
            self._told_missing.add(missing)
            log.warning("topic %s does not exist; it is read once it does", missing)
        self._tell_missing_partitions()
        if self._group is None and (self._subscribed or self._pattern is not None):
            if self._pattern is not None:
                self._subscribed = [name for name in self._cluster.topics if matches(self._pattern, name)]
            names = [
                TopicPartition(name, item.partition)
                for name in self._subscribed
                if (topic := self._cluster.topics.get(name)) is not None
                for item in topic.partitions
            ]
            if set(names) != self._fetcher.positions.keys():
                self._fetcher.assign(names)
        self._fetcher.on_metadata()

    def _tell_missing_partitions(self) -> None:
        for name in self._fetcher.positions:
            topic = self._cluster.topics.get(name.topic)
            if topic is None or name in self._told_missing:
                continue
            if all(item.partition != name.partition for item in topic.partitions):
                self._told_missing.add(name)
                count = len(topic.partitions)
                log.warning("%s has no partition %d: it has %d, from 0 on", *name, count)

    # ---- what to read ------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        topics: Iterable[str] = (),
        *,
        pattern: str | None = None,
        listener: RebalanceListener | None = None,
    ) -> None:
        """Read these topics, or those whose whole names match a regular expression: all their partitions, or a share.

        With a `group_id` the group says which partitions, at `poll`, and `listener` is told.

        Raises:
            UsageError: neither topics nor a pattern, or both.
            ConfigError: the pattern is none.
        """
        if isinstance(topics, str):
            raise ConfigError(f"topics={topics!r} is one string; give a list of names: [{topics!r}]")
        if listener is not None and not isinstance(listener, RebalanceListener):
            raise ConfigError(f"listener={listener!r} is no RebalanceListener; derive its class from that")
        names = list(dict.fromkeys(topics))
        if bool(names) == (pattern is not None):
            raise UsageError("subscribe to topics or to a pattern; `unsubscribe` ends a subscription")
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"pattern={pattern!r} is no regular expression: {error}") from None
        self._subscribed, self._listener = names, listener
        self._subscribe()

    def _subscribe(self) -> None:
        if self._pattern is not None:
            self._cluster.want_all()
        self._cluster.want(self._subscribed)
        if self._group is not None:
            if not self._group.subscribed:
                self._fetcher.assign([])
            self._group.subscribe(self._subscribed, self._pattern, self._listener)
        elif self._cluster.version >= 0:
            self._on_metadata()

    def unsubscribe(self) -> None:
        """Read nothing any more, and leave the group; what was handed out is committed if auto commit is on."""
        self._subscribed, self._pattern = [], None
        if self._group is not None:
            self._group.unsubscribe()
        self._fetcher.assign([])

    def assign(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Read exactly these (topic, partition), keeping the positions of those read already.

        With a `group_id` they begin where it has committed; the group does not share them out.
        """
        if self._group is not None and self._group.subscribed:
            raise UsageError("the group says what is read; `unsubscribe` first")
        self._subscribed, self._pattern = [], None
        names = named(partitions)
        new = [name for name in dict.fromkeys(names) if name not in self._fetcher.positions]
        self._fetcher.assign(names)
        if self._group is not None and new:
            self._group.start_at_committed(new)

    def subscription(self) -> list[str]:
        """Return the topics subscribed to; of a pattern those that match, as far as is known."""
        if self._pattern is None:
            return list(self._subscribed)
        return [name for name in self._cluster.topics if matches(self._pattern, name)]

    def assignment(self) -> list[TopicPartition]:
        """Return what is read; empty until metadata of subscribed topics has come, or the group has said."""
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

    def paused(self) -> list[TopicPartition]:
        """Return the partitions of `pause`."""
        return [name for name, position in self._fetcher.positions.items() if position.paused]

    # ---- where to read -----------------------------------------------------------------------------------------------

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Go to an offset; one out of range meets `auto_offset_reset` at the next poll."""
        if not hasattr(offset, "__index__"):
            raise UsageError(f"offset {offset!r} is no whole number")
        if offset < 0:
            raise UsageError(f"offset {offset} is negative; use seek_to_beginning or seek_to_end")
        (position,) = self._positions([(topic, partition)])
        position.seek(int(offset))
        self._fetcher.void(position.name)

    def seek_to_beginning(self, *partitions: tuple[str, int]) -> None:
        """Go to the first record of these partitions, of all without arguments."""
        self._seek_to(EARLIEST_TIMESTAMP, partitions)

    def seek_to_end(self, *partitions: tuple[str, int]) -> None:
        """Go behind the last record of these partitions, of all without arguments."""
        self._seek_to(LATEST_TIMESTAMP, partitions)

    def seek_to_time(self, timestamp_ms: float, *partitions: tuple[str, int]) -> None:
        """Go to the first record at or after a time, ms since 1970-01-01 UTC; to the end if none is that late."""
        self._seek_to(_whole_ms(timestamp_ms), partitions)

    def _seek_to(self, timestamp_ms: int, partitions: Iterable[tuple[str, int]]) -> None:
        for position in self._positions(partitions):
            position.seek_to_timestamp(timestamp_ms)
            self._fetcher.void(position.name)

    def position(self, topic: str, partition: int, timeout_ms: int = 5000) -> int:
        """Return the offset of the next record `poll` will give.

        Raises:
            TimeoutError: no broker could say within `timeout_ms`.
            NoOffset: nothing is committed, and `auto_offset_reset` is "none".
        """
        (position,) = self._positions([(topic, partition)])
        known = lambda: position.offset >= 0 or position.fault is not None  # noqa: E731
        self._wait(known, timeout_ms, f"the position of {topic}-{partition}")
        if position.offset < 0 and position.fault is not None:
            raise position.fault
        return position.offset

    def offsets_for_times(
        self, times_ms: Mapping[tuple[str, int], float], timeout_ms: int = 5000
    ) -> dict[TopicPartition, tuple[int, int] | None]:
        """Return for each partition the (offset, timestamp_ms) of the first record at or after a time, None: none is.

        Raises:
            RemoteError, TransportError, TimeoutError: the leader refused or could not be asked.
        """
        found: dict[TopicPartition, tuple[int, int] | None] = {}
        for name, timestamp_ms in zip(named(times_ms), times_ms.values(), strict=True):
            first = find_offset(self._cluster, *name, _whole_ms(timestamp_ms), timeout_ms)
            found[name] = None if first[0] < 0 else first
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
        names = named(partitions)
        return {name: find_offset(self._cluster, *name, timestamp_ms, timeout_ms)[0] for name in names}

    def lag(self) -> dict[TopicPartition, int | None]:
        """Return per partition how many records below the high watermark, as last heard, were not handed out yet.

        Cost: none, nobody is asked; `measure_lag` asks.
        """
        return {name: position.lag_records for name, position in self._fetcher.positions.items()}

    def measure_lag(self, *partitions: tuple[str, int], timeout_ms: int = 5000) -> dict[TopicPartition, Lag]:
        """Ask leaders what of these partitions, of all without arguments, was not handed out yet.

        Raises:
            TimeoutError: a position is not known within `timeout_ms`.
            RemoteError, TransportError: a leader refused, or could not be asked in time.
        Cost: a request to each leader, which looks into its indexes; what is not read is not scanned.
        """
        deadline_ms = monotonic_ms() + timeout_ms
        positions = self._positions(partitions)
        self._wait(lambda: all(p.offset >= 0 for p in positions), timeout_ms, "where to begin reading")
        places = [Place(position.name, position.offset) for position in positions]
        found, failed = ask_lags(self._cluster, places, timeout_ms=max(1, deadline_ms - monotonic_ms()))
        for error in failed.values():
            raise error
        return {place.name: found[place].lag for place in places}

    # ---- committing --------------------------------------------------------------------------------------------------

    def commit(
        self,
        offsets: Mapping[tuple[str, int], int | tuple[int, str]] | Record | None = None,
        *,
        metadata: str = "",
        timeout_ms: int = CALL_TIMEOUT_MS,
    ) -> None:
        """Commit offsets and wait until that is stored: as durable as an acknowledged record.

        Args:
            offsets: By (topic, partition) the next record to read, or that and some text; a Record commits that it, and
                all before it, is done. None: everything that was handed out.
            metadata: Text kept with each offset that brings none.
        Raises:
            CommitFailed: the group has given a partition to others.
            RemoteError, RequestTimedOut: it was refused, or not answered in time.
        """
        with self._alone:
            self._in_group().commit(self._to_commit(offsets, metadata), timeout_ms=timeout_ms)

    def commit_async(
        self,
        offsets: Mapping[tuple[str, int], int | tuple[int, str]] | Record | None = None,
        on_commit: OnCommit | None = None,
        *,
        metadata: str = "",
    ) -> None:
        """Commit without waiting. A later `poll` calls `on_commit(offsets, error)`, the error None if it is stored."""
        with self._alone:
            self._in_group().commit_async(self._to_commit(offsets, metadata), on_commit)

    def committed(
        self, partitions: Iterable[tuple[str, int]], timeout_ms: int = CALL_TIMEOUT_MS
    ) -> dict[TopicPartition, Committed | None]:
        """Return what the group has committed for these partitions, None where nothing is.

        Raises:
            RemoteError, RequestTimedOut: the coordinator refused, or did not answer in time.
        """
        names = named(partitions)
        with self._alone:
            self._know({name.topic for name in names}, timeout_ms)
            return self._in_group().committed(names, timeout_ms=timeout_ms)

    def group_metadata(self) -> MemberId | None:
        """Return the generation and member id that commits are made under; None: it is no member now."""
        return self._in_group().identity()

    def _in_group(self) -> GroupConsumer:
        if self._closed:
            raise UsageError("the consumer is closed")
        if self._group is None:
            raise UsageError("offsets are committed in a group; give a group_id")
        return self._group

    def _to_commit(
        self, offsets: Mapping[tuple[str, int], int | tuple[int, str]] | Record | None, metadata: str
    ) -> dict[TopicPartition, Committed]:
        if offsets is None:
            found = self._in_group().positions()
            return {name: item._replace(metadata=metadata) for name, item in found.items()}
        wanted = to_commit(offsets, metadata, self._fetcher.positions)
        self._know({name.topic for name in wanted}, CALL_TIMEOUT_MS)
        return wanted

    def _know(self, topics: set[str], timeout_ms: int) -> None:
        """Hold metadata of topics."""
        self._cluster.want(topics)
        cluster = self._cluster
        self._wait(lambda: topics <= cluster.topics.keys() | cluster.missing.keys(), timeout_ms, "metadata")

    # ---- reading -----------------------------------------------------------------------------------------------------

    def poll(self, timeout_ms: int = 0, max_records: int = 500) -> list[Record]:
        """Return up to `max_records` records, waiting up to `timeout_ms` for the first.

        Raises:
            CorruptBatch: records are corrupt and were set aside; the next poll goes on behind them.
            DeserializationError: a deserializer raised for the next record; raised again until `seek` passes it.
            LogTruncation: records that were read are gone; the next poll goes on at `auto_offset_reset`
                ("none": it is raised again until `seek`), in a topic that was created anew at its start.
            RemoteError: the leader refuses for good; OFFSET_OUT_OF_RANGE with "none", until `seek`.
            NoOffset: with "none", until `seek`: nothing is committed.
            UsageError: nothing is subscribed to or assigned, or another thread is in a call.
        """
        with self._alone:
            records = self._poll(timeout_ms, max_records)
            self._woken = False
            return records

    def _poll(self, timeout_ms: int, max_records: int) -> list[Record]:
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
            good, bad = deserialize(columns, self._key, self._value)
            records += good
            if bad is not None:
                self._fetcher.put_back(columns[len(good) :])
                if not records:
                    raise bad
                break
        return records

    def poll_arrays(self, timeout_ms: int = 0, max_batches: int = 1000) -> list[Columns]:
        """Return stored batches as columns, waiting up to `timeout_ms` for the first; views over the maps where local.

        Raises:
            CorruptBatch, LogTruncation, RemoteError: as `poll`.
        """
        with self._alone:
            self._await_buffer(timeout_ms)
            self._woken = False
            batches: list[Columns] = []
            while len(batches) < max_batches and (columns := self._fetcher.pop()) is not None:
                batches.append(columns)
            return batches

    def __iter__(self) -> Iterator[Record]:
        """Give record after record, until `wakeup`. Each counts as handed out when it is given, what follows not."""
        while not self._closed:
            with self._alone:
                records = self._poll(1000, 500)
                is_over = self._was_woken()
            yield from one_by_one(self._fetcher, records, lambda: self._woken)
            if is_over or self._was_woken():
                return

    def wakeup(self) -> None:
        """Have a `poll` that waits, or the next one, return at once, and a `for` loop end.

        Thread: any, and signal handlers.
        """
        self._woken = True
        self._wake.set()

    def _was_woken(self) -> bool:
        woken, self._woken = self._woken, False
        return woken

    def _await_buffer(self, timeout_ms: int) -> None:
        fetcher, cluster = self._fetcher, self._cluster
        if self._closed:
            raise UsageError("the consumer is closed")
        if not (self._subscribed or self._pattern or fetcher.positions):
            raise UsageError("nothing to read; `subscribe` or `assign` first")
        if self._group is not None:
            cluster.poll()
            self._group.poll()
            self._group.auto_commit()
        fetcher.raise_fault()
        if fetcher.buffer:
            return
        deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        while True:
            cluster.poll()
            if self._group is not None:
                self._group.poll()
            fetcher.fill()
            fetcher.raise_fault()
            if fetcher.buffer:
                return
            left_ms = (deadline_ns - time.monotonic_ns()) // 1_000_000
            if left_ms <= 0 or self._woken:
                return
            idle_ms = 5 if cluster.version < 0 or (self._group is not None and self._group.busy) else 100
            cluster.wait(min(left_ms, max(1, cluster.deadline_ms() - monotonic_ms()), idle_ms))

    def _wait(self, done: Any, timeout_ms: int, what: str) -> None:
        deadline_ms = monotonic_ms() + timeout_ms
        with self._alone:
            while not done():
                if monotonic_ms() >= deadline_ms:
                    raise TimeoutError(f"no broker could tell {what} within {timeout_ms} ms")
                self._cluster.poll()
                if self._group is not None:
                    self._group.serve()  # what is assigned changes in `poll` alone
                self._fetcher.fill()
                if not done():
                    self._cluster.wait(5)

    def _positions(self, partitions: Iterable[tuple[str, int]]) -> list[Position]:
        if self._subscribed and self._group is None and not self._fetcher.positions:
            self._wait(lambda: self._fetcher.positions, 5000, "metadata of the topics")
        wanted = named(partitions) or list(self._fetcher.positions)
        for name in wanted:
            if name not in self._fetcher.positions:
                raise UsageError(f"{name.topic}-{name.partition} is not assigned")
        return [self._fetcher.positions[name] for name in wanted]

    def _rewind(self, position: Position) -> None:
        stopped = self._fetcher.void(position.name, but_faults=True)
        if position.offset >= 0 and not stopped and position.fault is None:
            position.seek(position.offset, position.epoch)

    def close(self, *, commit: bool = True) -> None:
        """Leave the group and close; arrays handed out stay valid.

        Args:
            commit: With auto commit on, commit what was handed out first.
        """
        if self._closed:
            return
        with self._alone:
            try:
                if self._group is not None:
                    self._dropped.detach()
                    self._group.close(commit=commit)
            finally:
                self._closed = True
                self._fetcher.close()
                self._cluster.close()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        """Close. After an error nothing is committed by itself: what was handed out may not be done."""
        self.close(commit=kind is None)

    def after_fork(self) -> None:
        if self._closed:
            return
        leave_to_parent(self._cluster, self._fetcher)
        old, faults = self._fetcher.positions, self._fetcher.faults()
        group = self._group
        if group is not None:
            self._dropped.detach()
        leave_to_parent(group)
        self._start()
        if old and not (group is not None and group.subscribed):
            self._fetcher.assign(old)
            for name, position in old.items():
                mine = self._fetcher.positions[name]
                mine.seek(position.offset, position.epoch)
                mine.timestamp_ms, mine.paused = position.timestamp_ms, position.paused
                mine.topic_id = position.topic_id  # another one met now means that the topic was created anew
            self._fetcher.tell(faults)
        if self._subscribed or self._pattern is not None:
            self._subscribe()


def _whole_ms(timestamp_ms: float) -> int:
    """Return a time in whole ms; `time.time() * 1000` is a float.

    Raises:
        UsageError: it is negative or no number.
    """
    if not isinstance(timestamp_ms, (int, float)) or not 0 <= timestamp_ms < 2**63:
        raise UsageError(f"timestamp {timestamp_ms!r} is no time in ms since 1970")
    return int(timestamp_ms)
