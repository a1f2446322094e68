"""What a reader has not read: records, bytes of the batches that hold them, and since when; without a scan."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from brokerd.storage.log import Log, Unread
from tests.brokerd.storage.stores import Store, flip, make_batch, stored

MakeStore = Callable[..., Store]


def fill(log: Log, count: int, size: int = 1000, records: int = 5) -> None:
    """Append batches, the n-th at n seconds."""
    for _ in range(count):
        log.append([make_batch(os.urandom(size), records)], wall_ms=1000 * (log.end_offset // records))


def by_scan(log: Log, offset: int, end: int) -> Unread:
    """Say the same by reading everything."""
    if offset >= end:
        return Unread(0, 0, -1)
    headers = [header for header, _ in stored(log) if header.last_offset >= offset and header.base_offset < end]
    size = sum(header.padded_size for header in headers)
    return Unread(end - offset, size, headers[0].append_time_ms)


@pytest.mark.parametrize("killed", [False, True])
def test_unread_is_what_a_scan_finds_from_every_offset_to_every_end(make_store: MakeStore, killed: bool) -> None:
    store = make_store(segment_bytes=8192)
    log = store.open()
    fill(log, 24)
    assert log.segment_count == 4
    if killed:
        log = store.reopen()  # the ends of sealed segments are not known any more
    for offset in range(121):
        for end in {120, 118, 60, 35, 30, offset}:
            if end >= offset:
                assert log.unread(offset, end=end) == by_scan(log, offset, end), (offset, end)


def test_a_batch_counts_whole_from_its_middle_on(store: Store) -> None:
    log = store.open()
    fill(log, 2, size=100)
    whole = stored(log)[0][0].padded_size
    assert log.unread(3, end=10) == Unread(7, 2 * whole, 0)
    assert log.unread(5, end=10) == Unread(5, whole, 1000)
    assert log.unread(6, end=8) == Unread(2, whole, 1000)


def test_nothing_is_unread_at_the_end_and_beyond(store: Store) -> None:
    log = store.open()
    nothing = Unread(0, 0, -1)
    assert log.unread(0, end=0) == nothing
    fill(log, 2)
    assert log.unread(10, end=10) == nothing
    assert log.unread(99, end=10) == nothing
    assert log.unread(8, end=5) == nothing


def test_an_offset_below_the_log_start_counts_from_there(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=8192)
    log = store.open()
    fill(log, 24)
    store.flush()
    log.delete_records(52)
    assert log.unread(0, end=120) == log.unread(52, end=120) == by_scan(log, 52, 120)
    assert log.unread(0, end=50) == Unread(0, 0, -1)


def test_of_many_segments_only_a_few_are_looked_into_at_once(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=4096)
    log = store.open()
    fill(log, 60)
    log = store.reopen()
    exact = by_scan(log, 0, 300)
    sizes = [log.unread(0, end=300).size_bytes for _ in range(8)]
    assert all(exact.size_bytes <= size <= exact.size_bytes + 20 * 4096 for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == exact.size_bytes


def test_files_of_segments_between_are_not_opened_again(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(segment_bytes=4096)
    log = store.open()
    fill(log, 60)
    log.unread(0, end=300)
    reads: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: reads.append(size) or pread(fd, size, at))  # type: ignore[func-returns-value]
    log.unread(0, end=300)
    assert sum(reads) < 20_000, "an index entry or two, and a few headers"


def test_a_lost_or_damaged_index_costs_a_walk_and_no_other_answer(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384, index_interval_bytes=1000)
    log = store.open()
    fill(log, 40)
    expected = {offset: by_scan(log, offset, 200) for offset in (0, 57, 120, 199)}
    log = store.reopen()
    for path in store.partition_path.glob("*.index"):
        flip(path, 20)
    assert {offset: log.unread(offset, end=200) for offset in expected} == expected


def test_behind_damage_the_next_good_batch_is_the_oldest(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=8192)
    log = store.open()
    fill(log, 24)
    store.flush()
    first = sorted(store.partition_path.glob("*.log"))[0]
    size = stored(log)[0][0].padded_size
    flip(first, size + 10)  # in the header of the second batch
    found = log.unread(5, end=120)
    assert found.records == 115
    assert found.append_time_ms == 2000
    assert found.size_bytes == 22 * size
    assert log.read(10, 1, end=120).nbytes == size, "and reads go on as they did"


def test_a_segment_whose_file_is_gone_is_stepped_over(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=8192)
    log = store.open()
    fill(log, 24)
    following, _ = stored(log, 70)[0]
    log = store.reopen()
    store.flush()  # until then its files are held open
    (store.partition_path / f"{35:020d}.log").unlink()
    found = log.unread(40, end=120)
    assert (found.records, found.append_time_ms) == (80, following.append_time_ms)
