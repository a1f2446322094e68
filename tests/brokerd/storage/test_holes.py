"""Logs whose offsets have holes, as a follower copies them from a compacted leader."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from brokerd.storage.log import Log
from ingest.errors import CorruptBatch
from ingest.log.reader import LocalLog
from ingest.records.header import HEADER_SIZE, encode_leader_half, encode_producer_half, padded, verify_header
from ingest.records.thinned import empty_batch
from tests.brokerd.storage.stores import TOPIC, Store, flip, make_batch, stored

MakeStore = Callable[..., Store]


def batch_at(
    offset: int, span: int = 1, *, epoch: int = 1, time_ms: int = 0, size: int = 1000, count: int = 1
) -> bytes:
    """Return a stored batch that spans `span` offsets; of no records without a body."""
    body = bytes(1000)
    half = encode_producer_half(
        body,
        attributes=0x100,
        base_timestamp_ms=time_ms,
        max_timestamp_ms=time_ms,
        record_count=1,
        last_offset_delta=span - 1,
        uncompressed_size=len(body),
    )
    half = encode_leader_half(half, base_offset=offset, leader_epoch=epoch, append_time_ms=0, high_watermark=0)
    batch = half + body if count else empty_batch(verify_header(half))
    return batch.ljust(padded(len(batch)), b"\0")


def follow(store: Store) -> Log:
    """Open the partition as a follower does."""
    directory = store.directory or store.open_directory()
    return directory.partition(TOPIC, 0, store.config)


def test_a_log_with_holes_is_read_recovered_and_mapped_like_any_other(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384, index_interval_bytes=0, cleanup_policy="compact")
    log = follow(store)
    starts = [7 * n + (n > 20) * 1000 for n in range(60)]
    for start in starts:
        log.append_replicated(batch_at(start, 3), wall_ms=0)
    end = starts[-1] + 3
    store.flush()
    for turn in range(3):
        assert [header.base_offset for header, _ in stored(log)] == starts
        for offset in (0, 2, 3, 6, 144, 800, 1100, end - 1):
            expected = next(start for start in starts if start + 2 >= offset)
            assert stored(log, offset, 1)[0][0].base_offset == expected
        reader = LocalLog(store.path, store.page_path, log.row, TOPIC, 0)
        for offset in (0, 3, 150, 800):
            expected = next(start for start in starts if start + 2 >= offset)
            assert reader.read(offset, 1)[0][0].base_offset == expected
        if turn == 0:
            store.close()
        else:
            store.kill()
            (store.path / "checkpoint").unlink()
        log = follow(store)
        assert (log.end_offset, log.segment_count) == (end, 5)


def test_an_epoch_ends_where_the_next_begins_whatever_is_left_of_it(make_store: MakeStore) -> None:
    log = follow(make_store(cleanup_policy="compact"))
    for offset, epoch in ((3, 1), (10, 1), (40, 2), (41, 4), (90, 4)):
        log.append_replicated(batch_at(offset, epoch=epoch), wall_ms=0)
    assert [log.epoch_end(epoch) for epoch in (0, 1, 2, 3, 4)] == [(-1, 3), (1, 40), (2, 41), (2, 41), (4, 91)]


@pytest.mark.parametrize(("cut", "end", "left"), [(35, 11, 2), (40, 11, 2), (41, 41, 3), (11, 11, 2), (2, 0, 0)])
def test_a_cut_in_a_hole_ends_the_log_behind_the_last_batch_that_stays(
    make_store: MakeStore, cut: int, end: int, left: int
) -> None:
    store = make_store(cleanup_policy="compact")
    log = follow(store)
    for offset in (3, 10, 40, 50):
        log.append_replicated(batch_at(offset), wall_ms=0)
    log.truncate_to(cut)
    store.flush()
    assert (log.end_offset, len(stored(log))) == (end, left)
    log.append_replicated(batch_at(end + 1), wall_ms=0)
    store.flush()
    before = [header.base_offset for header, _ in stored(log)]
    store.kill()
    log = follow(store)
    assert [header.base_offset for header, _ in stored(log)] == before
    assert log.end_offset == end + 2


def test_a_batch_without_records_is_no_answer_to_a_time(make_store: MakeStore) -> None:
    log = follow(make_store(cleanup_policy="compact"))
    log.append_replicated(batch_at(5, time_ms=900, count=0), wall_ms=0)
    log.append_replicated(batch_at(9, time_ms=800), wall_ms=0)
    assert log.offset_for_time(700, end=10) == (9, 800)
    assert log.offset_for_time(850, end=10) is None


@pytest.mark.parametrize("interval", [0, 8192])
def test_damage_amid_holes_is_passed_at_the_next_good_batch(make_store: MakeStore, interval: int) -> None:
    """Its header is damaged too, so that the next one has to be found; the index proves where the chain leads."""
    store = make_store(segment_bytes=65536, index_interval_bytes=interval, cleanup_policy="compact")
    log = follow(store)
    starts = [7 * n for n in range(90)]
    for start in starts:
        log.append_replicated(batch_at(start, 2), wall_ms=0)
    store.flush()
    size = padded(HEADER_SIZE + 1000)
    flip(store.partition_path / f"{0:020d}.log", 10 * size + 20)
    with pytest.raises(CorruptBatch) as damage:
        log.read(70, 1, end=log.end_offset)
    assert damage.value.next_offset == 77
    assert stored(log, 77, 1)[0][0].base_offset == 77


def test_a_segment_that_is_missing_is_missed_in_a_compacted_log_too(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384, cleanup_policy="compact")
    log = store.open()
    for _ in range(60):
        log.append([make_batch(bytes(1000))], wall_ms=0)
    store.close()
    segments = sorted(store.partition_path.glob("*.log"))
    segments[1].unlink()
    with pytest.raises(Exception, match=f"{segments[1].name} is missing"):
        store.open()


def test_a_lost_index_is_made_anew_when_the_log_is_opened(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384, index_interval_bytes=0)
    log = store.open()
    for _ in range(30):
        log.append([make_batch(bytes(1000))], wall_ms=0)
    store.close()
    index = store.partition_path / f"{0:020d}.index"
    before = index.read_bytes()
    index.unlink()
    store.open()
    assert index.read_bytes() == before
