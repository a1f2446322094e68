"""Single runs: which records stay, what their batches look like, what is merged and what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from brokerd.storage.errors import SequenceError
from brokerd.storage.log import Log
from ingest.records.header import verify_header
from tests.brokerd.storage.compaction.cleaning import Item, age, batch_of, clean, decoded, read_log, read_map, seal
from tests.brokerd.storage.stores import Store, stored

MakeStore = Callable[..., Store]


@pytest.fixture
def make(make_store: MakeStore) -> MakeStore:
    def make_compacted(**config: Any) -> Store:
        return make_store(**{"cleanup_policy": "compact", "segment_bytes": 16384, **config})

    return make_compacted


def append(log: Log, *items: Item, **options: Any) -> int:
    """Append one batch; return its base offset."""
    return log.append([batch_of(items, **options)], wall_ms=5000)[0].base_offset


def batches(log: Log) -> list[tuple[int, int, int]]:
    """Return (base offset, next offset, records) of each stored batch."""
    return [(header.base_offset, header.next_offset, header.record_count) for header, _ in stored(log)]


def test_the_latest_value_of_each_key_stays_and_nothing_older(make: MakeStore) -> None:
    store = make()
    log = store.open()
    for turn in range(10):
        append(log, *(Item(b"k%d" % number, b"v%d" % turn) for number in range(turn, 20)))
    seal(store, log)
    before = read_log(log)
    clean(store, log)
    latest = {item.key: (offset, item) for offset, item in before}
    assert read_log(log) == read_map(store, log) == sorted(latest.values())
    assert log.end_offset == before[-1][0] + 1
    assert log.cleaned_end == log.end_offset
    log = store.reopen()
    assert read_log(log) == sorted(latest.values())
    assert log.cleaned_end == log.end_offset
    assert clean(store, log) is None


def test_only_sealed_segments_below_the_high_watermark_are_cleaned(make: MakeStore) -> None:
    store = make()
    log = store.open()
    append(log, Item(b"a", b"1"))
    log.roll()
    append(log, Item(b"a", b"2"))
    log.roll()
    append(log, Item(b"a", b"3"))
    assert log.dirt().dirty_bytes == 0, "nothing is flushed"
    assert store.directory is not None
    store.directory.flush_all()
    store.directory.checkpoint()
    assert log.dirt().dirty_bytes == 0, "nothing is committed"
    log.advance_high_watermark(1)
    assert log.dirt().end_offset == 1
    log.advance_high_watermark(3)
    assert log.dirt().end_offset == 2, "the active segment is left alone"
    clean(store, log)
    assert [item.value for _, item in read_log(log)] == [b"2", b"3"]


def test_a_record_stays_uncompacted_for_the_lag(make: MakeStore) -> None:
    store = make(min_compaction_lag_ms=60_000)
    log = store.open()
    age(store, 1000)
    append(log, Item(b"a", b"1"))
    append(log, Item(b"a", b"2"))
    seal(store, log)
    age(store, 60_999)
    assert log.dirt().dirty_bytes == 0
    age(store, 61_000)
    assert log.dirt().dirty_bytes > 0


def test_a_segment_is_rolled_in_time_to_be_compacted(make: MakeStore) -> None:
    store = make(max_compaction_lag_ms=60_000)
    log = store.open()
    age(store, 1000)
    append(log, Item(b"a", b"1"))
    age(store, 60_999)
    assert log.segment_count == 1
    age(store, 61_000)
    assert log.segment_count == 2
    seal(store, log)
    assert log.dirt().oldest_ms == 60_000, "since the segment began"


def test_tombstones_stay_for_their_time_after_they_were_first_cleaned(make: MakeStore) -> None:
    store = make(delete_retention_ms=100_000)
    log = store.open()
    age(store, 1000)
    append(log, Item(b"a", b"1"))
    append(log, Item(b"a", None))
    append(log, Item(b"b", b"1"))
    seal(store, log)
    age(store, 500_000)
    clean(store, log)
    assert [(i.key, i.value) for _, i in read_log(log)] == [(b"a", None), (b"b", b"1")]
    log = store.reopen()
    age(store, 599_999)
    assert clean(store, log) is None
    age(store, 600_000)
    assert clean(store, log, limit=1) is None, "a replica may still need it"
    assert clean(store, log) is not None
    assert [(i.key, i.value) for _, i in read_log(log)] == [(b"b", b"1")]
    assert log.end_offset == 3
    assert clean(store, log) is None, "no tombstone is left to come again for"


def test_a_tombstone_is_not_dropped_by_the_run_that_first_cleans_it(make: MakeStore) -> None:
    store = make(delete_retention_ms=0)
    log = store.open()
    append(log, Item(b"a", None))
    seal(store, log)
    clean(store, log)
    assert len(read_log(log)) == 1
    clean(store, log)
    assert read_log(log) == []
    assert batches(log) == [(0, 1, 0)], "the log ends where it did"


def test_records_without_a_key_are_never_dropped(make: MakeStore) -> None:
    store = make(delete_retention_ms=0)
    log = store.open()
    append(log, Item(None, b"1"), Item(b"a", b"2"), Item(None, None), Item(b"a", b"3"))
    append(log, Item(None, b"4"), rows=True)
    for _ in range(3):
        seal(store, log)
        clean(store, log)
        append(log, Item(b"a", b"again"))
    assert [(i.key, i.value) for _, i in read_log(log)] == [
        (None, b"1"),
        (None, None),
        (None, b"4"),
        (b"a", b"again"),
        (b"a", b"again"),
    ]


@pytest.mark.parametrize(("rows", "codec"), [(False, 0), (False, 4), (True, 0)])
def test_whole_batches_are_kept_byte_for_byte_and_others_are_columns(make: MakeStore, rows: bool, codec: int) -> None:
    store = make()
    log = store.open()
    head = (("h", b"1"),)
    append(log, Item(b"a", b"1"), Item(b"b", b"2", head, 7), Item(b"c", b"3" * 500), rows=rows, codec=codec)
    append(log, Item(b"a", b"4"), Item(b"c", b"5"), rows=rows, codec=codec)
    append(log, Item(b"d", b"6"))
    seal(store, log)
    before = bytes(log.read(0, 1 << 20, end=6))
    clean(store, log)
    after = bytes(log.read(0, 1 << 20, end=6))
    first = verify_header(before)
    thinned, *_ = decoded(after)
    assert thinned[1] == [(1, Item(b"b", b"2", head, 7))]
    assert thinned[0].is_columns
    assert after[thinned[0].padded_size :] == before[first.padded_size :]


def test_a_run_takes_as_much_as_its_table_has_room_for_and_the_next_goes_on(make: MakeStore) -> None:
    store = make(segment_bytes=1 << 20)
    log = store.open()
    for turn in range(4):
        for start in range(0, 12_000, 500):
            append(log, *(Item(b"%06d" % number, b"%d" % turn) for number in range(start, start + 500)))
    seal(store, log)
    runs = 0
    ends = []
    while (done := clean(store, log, map_bytes=24 << 13)) is not None:
        runs += 1
        ends.append(done.cleaned_end)
        assert done.keys <= 0.7 * (1 << 13)
    assert runs > 3
    assert ends == sorted(set(ends))
    assert ends[-1] == log.end_offset == 48_000
    assert {item.value for _, item in read_log(log)} == {b"3"}
    assert len(read_log(log)) == 12_000


def test_small_neighbours_are_merged_up_to_the_size_of_a_segment(make: MakeStore) -> None:
    store = make(segment_bytes=32768)
    log = store.open()
    for turn in range(60):
        append(log, *(Item(b"k%d" % (number % 7), bytes(1000)) for number in range(turn * 3, turn * 3 + 4)))
    seal(store, log)
    assert log.segment_count > 5
    clean(store, log)
    left = read_log(log)
    append(log, Item(b"k", b"1"))
    seal(store, log)
    clean(store, log)  # now that they are small
    assert log.segment_count == 2
    assert len(list(store.partition_path.glob("*.log"))) == 2
    assert read_log(log) == read_map(store, log) == [*left, (log.end_offset - 1, Item(b"k", b"1"))]
    assert [path for path in store.partition_path.iterdir() if "swap" in path.name or "cleaned" in path.name] == []


def test_a_segment_that_would_not_change_is_left_alone(make: MakeStore) -> None:
    store = make()
    log = store.open()
    append(log, *(Item(b"only-%d" % number, bytes(100)) for number in range(100)))
    log.roll()
    append(log, Item(b"x", b"1"))
    append(log, Item(b"x", b"2"))
    log.roll()
    first = store.partition_path / f"{0:020d}.log"
    inode = first.stat().st_ino
    seal(store, log)
    clean(store, log)
    assert first.stat().st_ino == inode
    assert [item.value for _, item in read_log(log)][-1] == b"2"
    append(log, Item(b"only-7", b"new"))
    seal(store, log)
    clean(store, log)
    assert first.stat().st_ino != inode


def test_producers_and_epochs_read_from_headers_are_what_they_were(make: MakeStore) -> None:
    store = make()
    ends = {}
    for epoch in range(1, 4):
        log = store.open()
        for number in range(12):
            producer = (number % 3, 0, (epoch - 1) * 4 + number // 3)
            append(log, Item(b"a", b"%d" % number), producer=producer)
        ends[epoch] = log.end_offset
    seal(store, log)
    known = log._producers.producers
    clean(store, log)
    assert [item.value for _, item in read_log(log)] == [b"11"]
    for path in store.partition_path.glob("*.snapshot"):
        path.unlink()
    store.kill()
    (store.path / "checkpoint").unlink()
    log = store.open()
    rebuilt = log._producers.producers
    assert {key: one.batches for key, one in rebuilt.items()} == {key: one.batches for key, one in known.items()}
    assert [log.epoch_end(epoch) for epoch in range(1, 4)] == list(ends.items())
    (repeated,) = log.append([batch_of([Item(b"a", b"9")], producer=(0, 0, 11))], wall_ms=0)
    assert (repeated.duplicate, repeated.base_offset) == (True, 33)
    with pytest.raises(SequenceError):
        append(log, Item(b"a", b"x"), producer=(0, 0, 14))


def test_what_was_deleted_is_dropped_and_the_log_begins_where_it_did(make: MakeStore) -> None:
    store = make()
    log = store.open()
    append(log, *(Item(b"k%d" % number, b"1") for number in range(10)))
    append(log, Item(b"z", b"1"))
    seal(store, log)
    log.delete_records(4)
    clean(store, log)
    assert [offset for offset, _ in read_log(log)] == list(range(4, 11))
    assert batches(log)[0] == (0, 10, 6)
    log = store.reopen()
    assert log.start_offset == 4
    assert [offset for offset, _ in read_map(store, log)] == list(range(4, 11))


def test_bodies_that_nobody_can_decode_are_left_as_they_are(make: MakeStore) -> None:
    from tests.brokerd.storage.stores import make_batch

    store = make()
    log = store.open()
    log.append([make_batch(b"no columns", 3)], wall_ms=0)
    append(log, Item(b"a", b"1"))
    append(log, Item(b"a", b"2"))
    seal(store, log)
    for _ in range(2):
        clean(store, log)
        assert batches(log)[0] == (0, 3, 3)
        append(log, Item(b"a", b"3"))
        seal(store, log)


def test_retention_and_compaction_together(make: MakeStore) -> None:
    store = make(cleanup_policy="compact,delete", retention_ms=100_000)
    log = store.open()
    age(store, 1000)
    append(log, Item(b"a", b"1"))
    append(log, Item(b"a", b"2"))
    seal(store, log)
    clean(store, log)
    age(store, 90_000)
    append(log, Item(b"b", b"1"))
    seal(store, log)
    assert [item.value for _, item in read_log(log)] == [b"2", b"1"]
    age(store, 101_001)
    assert [item.key for _, item in read_log(log)] == [b"b"]
    assert log.start_offset == 2
