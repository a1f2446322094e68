"""A compacted log under any order of calls and crashes behaves like a dict, and every record left is what was sent."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from brokerd.storage.config import LogConfig
from ingest.records.columns import Headers
from tests.brokerd.storage.compaction.cleaning import (
    NO_LIMIT,
    Crash,
    Item,
    age,
    batch_of,
    clean,
    read_log,
    read_map,
    seal,
)
from tests.brokerd.storage.stores import Store, stored

RETENTION_MS = 10_000

KEYS = [None, b"", b"a", b"b", b"c", b"key-d", b"long " * 40]
VALUES = [None, None, b"", b"1", b"22", bytes(700), bytes(400)]
HEADERS: list[Headers] = [(), (), (("site", b"A"),), (("x", None), ("y", b""))]

items = st.builds(
    Item,
    key=st.sampled_from(KEYS),
    value=st.sampled_from(VALUES),
    headers=st.sampled_from(HEADERS),
    timestamp_ms=st.integers(0, 5),
)


class LogAsDict(RuleBasedStateMachine):
    """The model: every record ever sent by its offset, and which tombstones may be gone."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.sent: dict[int, Item] = {}
        self.end = self.start = self.boot_ms = self.sequence = 0
        self.epochs: dict[int, int] = {}
        self.may_be_purged: set[int] = set()

    @initialize(segment_bytes=st.sampled_from([16384, 65536]), interval=st.sampled_from([0, 4096]))
    def begin(self, segment_bytes: int, interval: int) -> None:
        config = LogConfig(
            segment_bytes=segment_bytes,
            index_interval_bytes=interval,
            cleanup_policy="compact",
            delete_retention_ms=RETENTION_MS,
        )
        self.store = Store(self.root / "store", config, reserve_bytes=4096)
        self.open()

    def open(self) -> None:
        self.log = self.store.open()
        self.epochs[self.log.leader_epoch] = self.log.end_offset

    # ---- what happens to it

    @rule(
        records=st.lists(items, min_size=1, max_size=6),
        rows=st.booleans(),
        codec=st.sampled_from([0, 0, 4]),
        producer=st.booleans(),
    )
    def append(self, records: list[Item], rows: bool, codec: int, producer: bool) -> None:
        identity = (7, 0, self.sequence) if producer else (-1, -1, -1)
        self.log.append([batch_of(records, rows=rows, codec=codec * (not rows), producer=identity)], wall_ms=0)
        self.sequence += len(records) * producer
        for item in records:
            self.sent[self.end] = item
            self.end += 1

    @rule(seed=st.integers(0, 2**32))
    def append_many(self, seed: int) -> None:
        """So that there are segments, merges and keys that come again."""
        dice = random.Random(seed)
        for _ in range(dice.randint(5, 40)):
            records = [
                Item(dice.choice(KEYS), dice.choice(VALUES), dice.choice(HEADERS), dice.randint(0, 5))
                for _ in range(dice.randint(1, 6))
            ]
            self.append(records, dice.random() < 0.3, dice.choice([0, 0, 4]), dice.random() < 0.5)
            if dice.random() < 0.1:
                seal(self.store, self.log)

    @rule()
    def roll_and_flush(self) -> None:
        seal(self.store, self.log)

    @rule(
        crash_at=st.sampled_from([-1, -1, 0, 1, 2, 3, 4, 5, 6]),
        map_bytes=st.sampled_from([0, 1 << 20]),
        limit=st.sampled_from([0, NO_LIMIT, NO_LIMIT]),
        sealed=st.sampled_from([True, True, False]),
        passed_ms=st.sampled_from([1, 1, RETENTION_MS]),
    )
    def compact(self, crash_at: int, map_bytes: int, limit: int, sealed: bool, passed_ms: int) -> None:
        if sealed:
            seal(self.store, self.log)
        self.wait(passed_ms)
        expired = self.log.compaction.purge_end(self.log.config, self.log.dirt(), limit=limit)
        self.may_be_purged |= {offset for offset in range(expired) if self.tombstone(offset)}
        try:
            clean(self.store, self.log, limit=limit, map_bytes=map_bytes, crash_at=crash_at)
        except Crash:
            self.log._disk.join_background()
            self.store.kill()
            self.open()

    @rule(passed_ms=st.sampled_from([1000, RETENTION_MS, 2 * RETENTION_MS]))
    def wait(self, passed_ms: int) -> None:
        self.boot_ms += passed_ms
        age(self.store, self.boot_ms)

    @rule(hint=st.sampled_from(["", "*.index", "*.timeindex", "*.snapshot", "../checkpoint", "compaction"]))
    def restart(self, hint: str) -> None:
        self.store.kill()
        for path in self.store.partition_path.glob(hint) if hint else ():
            path.unlink()
        self.open()

    @rule(data=st.data())
    def delete_records(self, data: st.DataObject) -> None:
        mark = self.log.high_watermark
        self.log.delete_records(data.draw(st.integers(min(self.start, mark), mark)))
        self.start = self.log.start_offset

    @rule(data=st.data())
    @precondition(lambda self: self.log.high_watermark >= self.start)
    def truncate(self, data: st.DataObject) -> None:
        """As a follower whose leader has less."""
        self.log.truncate_to(data.draw(st.integers(self.log.high_watermark, self.log.end_offset)))
        self.end = self.log.end_offset
        self.sent = {offset: item for offset, item in self.sent.items() if offset < self.end}
        self.epochs = {epoch: start for epoch, start in self.epochs.items() if start <= self.end}
        self.epochs.setdefault(self.log.leader_epoch, self.end)
        self.sequence = next((p.batches[-1].last_sequence + 1 for p in self.log._producers.producers.values()), 0)

    # ---- what holds

    def tombstone(self, offset: int) -> bool:
        item = self.sent.get(offset)
        return item is not None and item.value is None and item.key is not None

    @invariant()
    def what_is_left_is_what_was_sent(self) -> None:
        if not hasattr(self, "log"):
            return
        found = read_log(self.log, 3000)
        assert (self.log.start_offset, self.log.end_offset) == (self.start, self.end)
        offsets = [offset for offset, _ in found]
        assert offsets == sorted(set(offsets)), "offsets ascend"
        assert all(self.sent[offset] == item for offset, item in found)
        latest = {item.key: offset for offset, item in self.sent.items() if item.key is not None}
        needed = {offset for offset in latest.values() if offset >= self.start} - self.may_be_purged
        needed |= {offset for offset, item in self.sent.items() if item.key is None and offset >= self.start}
        assert needed <= set(offsets), "the latest value of each key, and what has none, is there"
        replayed = {item.key: offset for offset, item in found if item.key is not None}
        for key, offset in replayed.items():
            assert offset == latest[key], "nothing older returns"
        mark = self.log.high_watermark
        assert read_map(self.store, self.log, 3000) == [pair for pair in found if pair[0] < mark]

    @invariant()
    def epochs_end_where_they_did(self) -> None:
        if not hasattr(self, "log"):
            return
        starts = [start for epoch, start in sorted(self.epochs.items())]
        batches = stored(self.log)
        led = {header.leader_epoch for header, _ in batches}
        for epoch, following in zip(sorted(self.epochs), [*starts[1:], self.end], strict=True):
            if epoch in led:
                assert self.log.epoch_end(epoch) == (epoch, following)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        shutil.rmtree(self.root)


TestLogAsDict = LogAsDict.TestCase
TestLogAsDict.settings = settings(max_examples=50, stateful_step_count=30)
