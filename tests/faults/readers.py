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
from ingest.errors import ForebayError
from ingest.log.mapping import PageMap
from ingest.log.names import parse_partition_name
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


class _Partition:
    """What one bare reader knows of one partition."""

    def __init__(self, home: Path, topic_id: bytes, partition: int) -> None:
        self.home = home  # the broker's log directory
        self.topic_id = topic_id
        self.partition = partition
        self.log: LocalLog | None = None
        self.offset = 0
        self.high_watermark = 0
        self.incarnations: list[int] = []
        self.seen: dict[int, Sighting] = {}
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
    """Follow all partitions on the state pages and segment files alone, and now and then read older records again.

    It holds that no offset ever changes its bytes and that no high watermark goes back, over incarnations too.
    """

    def __init__(self, data_dir: Path, *, seed: int = 0) -> None:
        super().__init__(f"mapped-reader-{seed}")
        self._data_dir = data_dir
        self._dice = random.Random(seed)
        self.partitions: dict[tuple[bytes, int], _Partition] = {}
        self.moved = 0

    @property
    def incarnations(self) -> int:
        """How many incarnations of brokers it has met, over all partitions."""
        return sum(len(partition.incarnations) for partition in self.partitions.values())

    @property
    def batches(self) -> int:
        return sum(len(partition.seen) for partition in self.partitions.values())

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._find()
            news = [self._follow(partition) for partition in self.partitions.values()]
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
                if name is not None and name not in self.partitions:
                    self.partitions[name] = _Partition(home, *name)

    def _follow(self, partition: _Partition) -> bool:
        """Read on; tell whether there was anything."""
        try:
            log = partition.log or self._open(partition)
            if log is None:
                return False
            now_s = time.monotonic()
            if now_s >= partition.look_again_s and partition.offset:
                partition.look_again_s = now_s + self._dice.uniform(0.5, 1.5) * AGAIN_EVERY_S
                self._read(partition, log, self._dice.randrange(partition.offset))
            if partition.offset == partition.high_watermark == log.marks().high_watermark:
                return False
            partition.offset = self._read(partition, log, partition.offset)
            return True
        except LogMoved:
            self.moved += 1
            partition.log = None
        except FileNotFoundError:
            partition.log = None  # the page is not made yet, or the segment is gone
        except ForebayError as error:
            self.problems.append(f"{partition.home.name}-{partition.partition}: {error!r}")
            partition.log = None
        return False

    def _open(self, partition: _Partition) -> LocalLog | None:
        """Find the partition's row by its tag; a broker that has not claimed it yet has none."""
        appliance = read_appliance(self._data_dir)
        page_path = Path(appliance.run_dir) / f"broker-{partition.home.name}.page"
        page = PageMap(page_path)
        header = decode_page_header(page.view)
        tag = row_tag(partition.topic_id, partition.partition)
        for row in range(header[0] if header else 0):
            marks = decode_marks(page.view, row)
            if marks is not None and marks.tag == tag:
                partition.log = LocalLog(partition.home, page_path, row, partition.topic_id, partition.partition)
                return partition.log
        return None

    def _read(self, partition: _Partition, log: LocalLog, offset: int) -> int:
        """Read one portion from `offset` and hold it against what was seen before; return where it ends."""
        marks = log.marks()
        name = f"{self._thread.name}: {partition.home.name}/{partition.partition}"
        if marks.high_watermark < partition.high_watermark:
            self.problems.append(
                f"{name}: the high watermark went back from {partition.high_watermark} to {marks.high_watermark}, "
                f"incarnation {marks.incarnation}, before {partition.incarnations[-1:]}"
            )
        partition.high_watermark = max(partition.high_watermark, marks.high_watermark)
        if marks.incarnation not in partition.incarnations:
            partition.incarnations.append(marks.incarnation)
        for header, batch in log.read(offset, READ_BYTES):
            seen = Sighting(
                marks.incarnation,
                marks.high_watermark,
                header.base_offset,
                header.next_offset,
                blake2b(batch, digest_size=16).digest(),
            )
            first = partition.seen.setdefault(header.base_offset, seen)
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
