"""Readers that run all through a fault run: bare ones over the maps that trust nothing, and consumers that follow."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

from ingest.consumer import Consumer
from ingest.discovery import read_appliance
from ingest.errors import ForebayError, LogTruncation
from ingest.log.mapping import PageMap
from ingest.log.names import parse_partition_name, partition_name
from ingest.log.reader import LocalLog, LogMoved
from ingest.log.state_page import decode_marks, decode_page_header, row_tag

IDLE_S = 0.004
READ_BYTES = 1 << 16
AGAIN_EVERY_S = 1.0

T = TypeVar("T")


class Sighting(NamedTuple):
    """What a bare reader saw of one batch."""

    incarnation: int
    high_watermark: int
    base_offset: int
    next_offset: int
    digest: bytes


class _Replica:
    """What one bare reader knows of one replica of a partition."""

    def __init__(self, home: Path, topic_id: bytes, partition: int) -> None:
        self.home = home  # the broker's log directory
        self.topic_id = topic_id
        self.partition = partition
        self.log: LocalLog | None = None
        self.offset = 0
        self.high_watermark = 0
        self.begun: tuple[bytes, int] | None = None  # the broker's directory, and the log's own by its inode
        self.incarnations: list[int] = []
        self.look_again_s = 0.0


class _Background:
    """A loop in a thread, ended with its context."""

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)
        self.problems: list[str] = []

    def __enter__(self):  # type: ignore[no-untyped-def]  # of the subclass' own type
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()

    def _guarded(self) -> None:
        try:
            self._loop()
        except BaseException as error:
            self.problems.append(f"{self._thread.name} ended: {error!r}")
            raise

    def _loop(self) -> None:
        raise NotImplementedError


class MappedReader(_Background):
    """Follow all replicas on the state pages and segment files alone, and now and then read older records again.

    It holds that an offset has the same bytes for ever and in all replicas, and that no high watermark goes back, over
    incarnations too; a replica that was begun anew, after it was emptied or moved away and back, is at 0 once more.
    """

    def __init__(self, data_dir: Path, *, seed: int = 0) -> None:
        super().__init__(f"mapped-reader-{seed}")
        self._data_dir = data_dir
        self._dice = random.Random(seed)
        self.replicas: dict[tuple[str, bytes, int], _Replica] = {}
        self.seen: dict[tuple[bytes, int], dict[int, Sighting]] = {}  # by partition, by base offset
        self.moved = 0

    @property
    def incarnations(self) -> int:
        """How many incarnations of brokers it has met, over all replicas."""
        return sum(len(replica.incarnations) for replica in self.replicas.values())

    @property
    def batches(self) -> int:
        return sum(map(len, self.seen.values()))

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._find()
            news = [self._follow(replica) for replica in self.replicas.values()]
            if not any(news):
                self._stopping.wait(IDLE_S)

    def _find(self) -> None:
        for home in self._data_dir.glob("brokers/*"):
            try:
                entries = list(home.iterdir())
            except OSError:
                continue
            for entry in entries:
                name = parse_partition_name(entry.name)
                if name is not None and (home.name, *name) not in self.replicas:
                    self.replicas[home.name, *name] = _Replica(home, *name)

    def _follow(self, replica: _Replica) -> bool:
        """Read on; tell whether there was anything."""
        try:
            log = replica.log or self._open(replica)
            if log is None:
                return False
            now_s = time.monotonic()
            if now_s >= replica.look_again_s and replica.offset:
                replica.look_again_s = now_s + self._dice.uniform(0.5, 1.5) * AGAIN_EVERY_S
                self._read(replica, log, self._dice.randrange(replica.offset))
            if replica.offset == replica.high_watermark == log.marks().high_watermark:
                return False
            replica.offset = self._read(replica, log, replica.offset)
            return True
        except (LogMoved, LogTruncation):  # what may not be replaced, the next look at it finds
            self.moved += 1
            replica.log = None
        except FileNotFoundError:
            replica.log = None  # the page is not made yet, or the segment is gone
        except ForebayError as error:
            self.problems.append(f"{replica.home.name}-{replica.partition}: {error!r}")
            replica.log = None
        return False

    def _open(self, replica: _Replica) -> LocalLog | None:
        """Find the partition's row by its tag; a broker that has not claimed it yet has none, or its predecessor's."""
        appliance = read_appliance(self._data_dir)
        page_path = Path(appliance.run_dir) / f"broker-{replica.home.name}.page"
        page = PageMap(page_path)
        header = decode_page_header(page.view)
        tag = row_tag(replica.topic_id, replica.partition)
        for row in range(header[0] if header else 0):
            marks = decode_marks(page.view, row)
            if header and marks is not None and (marks.tag, marks.incarnation) == (tag, header[1]):
                log_dir = replica.home / partition_name(replica.topic_id, replica.partition)
                log = LocalLog(replica.home, page_path, row, replica.topic_id, replica.partition)
                begun = (replica.home / "directory.json").read_bytes(), log_dir.stat().st_ino
                if begun != replica.begun:
                    replica.begun, replica.offset, replica.high_watermark = begun, 0, 0
                replica.log = log
                return log
        return None

    def _read(self, replica: _Replica, log: LocalLog, offset: int) -> int:
        """Read one portion from `offset` and hold it against what was seen before; return where it ends."""
        marks = log.marks()
        name = f"{self._thread.name}: {replica.home.name}/{replica.partition}"
        if marks.high_watermark < replica.high_watermark:
            self.problems.append(
                f"{name}: the high watermark went back from {replica.high_watermark} to {marks.high_watermark}, "
                f"incarnation {marks.incarnation}, before {replica.incarnations[-1:]}"
            )
        replica.high_watermark = max(replica.high_watermark, marks.high_watermark)
        if marks.incarnation not in replica.incarnations:
            replica.incarnations.append(marks.incarnation)
        known = self.seen.setdefault((replica.topic_id, replica.partition), {})
        for header, batch in log.read(offset, READ_BYTES):
            seen = Sighting(
                marks.incarnation,
                marks.high_watermark,
                header.base_offset,
                header.next_offset,
                blake2b(batch, digest_size=16).digest(),
            )
            first = known.setdefault(header.base_offset, seen)
            if (first.next_offset, first.digest) != (seen.next_offset, seen.digest):
                self.problems.append(f"{name}: offset {header.base_offset} changed: first {first}, now {seen}")
            offset = header.next_offset
        return offset


class Tail(_Background):
    """A consumer of all partitions of a topic that follows all through the run, over the maps or over Fetch."""

    def __init__(self, bootstrap: str, topic: str, *, local: bool) -> None:
        super().__init__(f"{'mapped' if local else 'fetching'}-tail")
        self._bootstrap = bootstrap
        self._topic = topic
        self._local = local
        self.values: dict[int, list[bytes]] = {}

    def _loop(self) -> None:
        with Consumer(
            self._bootstrap, topics=[self._topic], auto_offset_reset="earliest", local=self._local, fetch_max_wait_ms=50
        ) as consumer:
            while not self._stopping.is_set():
                try:
                    records = consumer.poll(100, 5000)
                except ForebayError as error:
                    self.problems.append(f"{self._thread.name}: {error!r}")
                    continue
                for record in records:
                    values = self.values.setdefault(record.partition, [])
                    if record.offset != len(values):
                        self.problems.append(
                            f"{self._thread.name}: {record.partition} goes on at {record.offset}, not {len(values)}"
                        )
                    values.append(record.value)

    def await_ends(self, ends: dict[int, int], timeout_s: float = 30.0) -> None:
        """Wait until it has read up to these ends."""
        deadline = time.monotonic() + timeout_s
        while any(len(self.values.get(partition, ())) < end for partition, end in ends.items()):
            assert not self.problems, self.problems
            assert time.monotonic() < deadline, (
                f"{self._thread.name} is at { {p: len(v) for p, v in self.values.items()} }, the ends are {ends}"
            )
            self._stopping.wait(0.01)


def read_back(bootstrap: str, topic: str, *, local: bool, timeout_s: float = 60.0) -> dict[int, list[bytes]]:
    """Read a topic from its start to its end, over the maps or over Fetch."""
    values: dict[int, list[bytes]] = {}
    deadline = time.monotonic() + timeout_s
    with Consumer(bootstrap, auto_offset_reset="earliest", local=local) as consumer:
        partitions = [(topic, number) for number in _retried(lambda: consumer.partitions_for(topic), deadline)]
        consumer.assign(partitions)
        ends = _retried(lambda: consumer.end_offsets(partitions), deadline)
        for name, end in ends.items():
            values[name.partition] = []
            assert end >= 0, f"{name} has no end"
        while any(len(values[name.partition]) < end for name, end in ends.items()):
            for record in consumer.poll(500, 10_000):
                own = values[record.partition]
                assert record.offset == len(own), f"{record.partition}: {record.offset} behind {len(own)} records"
                own.append(record.value)
            assert time.monotonic() < deadline, f"read { {p: len(v) for p, v in values.items()} } of {ends}"
    return values


def _retried(act: Callable[[], T], deadline: float) -> T:
    while True:
        try:
            return act()
        except (ForebayError, TimeoutError):
            if time.monotonic() > deadline:
                raise
