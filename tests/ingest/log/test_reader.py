"""Read from the map: the same records as through the broker, never above the mark, never unchecked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokerd.storage.config import LogConfig
from brokerd.storage.log import Log
from ingest.errors import CorruptBatch, LogTruncation
from ingest.log.names import INDEX, LOG, file_name
from ingest.log.reader import LocalLog, LogMoved
from ingest.records.header import HEADER_SIZE, BatchHeader, hop_headers
from tests.brokerd.storage.stores import TOPIC, Store, flip, make_batch

Open = Callable[[], LocalLog]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", LogConfig(segment_bytes=65536, index_interval_bytes=1024), reserve_bytes=65536)
    yield store
    store.close()


def local(store: Store, log: Log, leader_epoch: int = -1) -> LocalLog:
    return LocalLog(store.path, store.page_path, log.row, TOPIC, log.partition, leader_epoch=leader_epoch)


def fill(log: Log, count: int, size: int = 1000) -> list[bytes]:
    sent = []
    for _ in range(count):
        sent.append(os.urandom(size))
        log.append([make_batch(sent[-1], 2)], wall_ms=0)
    return sent


def read_all(reader: LocalLog, offset: int = 0, max_bytes: int = 10_000) -> list[bytes]:
    found: list[bytes] = []
    while batches := reader.read(offset, max_bytes):
        assert len(batches) == 1 or sum(batch.nbytes for _, batch in batches) <= max_bytes
        found += [bytes(batch[HEADER_SIZE:]) for _, batch in batches]
        offset = batches[-1][0].next_offset
    return found


def test_everything_below_the_high_watermark_is_read_across_segments(store: Store) -> None:
    log = store.open()
    sent = fill(log, 300)
    reader = local(store, log)
    assert reader.read(0, 1000) == []
    log.advance_high_watermark(400)
    assert read_all(reader) == sent[:200]
    assert reader.read(400, 1000) == []
    store.flush()
    assert read_all(reader, 400) == sent[200:]
    assert read_all(local(store, log), max_bytes=1 << 30) == sent


def test_a_reader_starts_anywhere_with_or_without_an_index(store: Store) -> None:
    log = store.open()
    sent = fill(log, 150)
    store.flush()
    for index in (None, *store.partition_path.glob("*.index")):
        if index is not None:
            flip(index, 5)
        for offset in range(0, 300, 17):
            (header, batch), *_ = local(store, log).read(offset, 1)
            assert header.base_offset == offset // 2 * 2
            assert batch[HEADER_SIZE:] == sent[offset // 2]
    for index in store.partition_path.glob("*.index"):
        index.unlink()
    assert read_all(local(store, log)) == sent


def test_a_reader_follows_a_growing_log(store: Store) -> None:
    log = store.open()
    reader = local(store, log)
    sent: list[bytes] = []
    for _ in range(120):
        sent += fill(log, 1, size=5000)
        store.flush()
        offset = 2 * (len(sent) - 1)
        ((_, batch),) = reader.read(offset, 1 << 20)
        assert batch[HEADER_SIZE:] == sent[-1]
    assert log.segment_count > 5
    assert len(reader._maps) <= 3


def test_views_stay_valid_after_the_segment_is_deleted(store: Store) -> None:
    log = store.open()
    sent = fill(log, 150)
    store.flush()
    reader = local(store, log)
    views = [batch[HEADER_SIZE:] for _, batch in reader.read(0, 30_000)]
    log.delete_records(250)
    reader.close()
    assert views == sent[: len(views)]
    with pytest.raises(LogMoved):
        reader.read(0, 1000)
    assert read_all(reader, 250) == sent[125:]


def test_offsets_out_of_range_are_for_the_leader_to_judge(store: Store) -> None:
    log = store.open()
    fill(log, 5)
    store.flush()
    with pytest.raises(LogMoved):
        local(store, log).read(11, 1000)


def test_damage_is_never_handed_out(store: Store) -> None:
    log = store.open()
    sent = fill(log, 5)
    store.flush()
    for position in (3 * 1096 + 500, 3 * 1096 + 20, 3 * 1096 + 1):
        reader = local(store, log)
        flip(store.partition_path / f"{0:020d}.log", position)
        assert reader.read(0, 1)
        with pytest.raises(CorruptBatch):
            reader.read(6, 1000)
        with pytest.raises(CorruptBatch):
            local(store, log).read(6, 1000)
        flip(store.partition_path / f"{0:020d}.log", position)
    assert read_all(local(store, log)) == sent


def test_a_restarted_broker_is_noticed(store: Store) -> None:
    log = store.open()
    sent = fill(log, 5)
    store.flush()
    reader = local(store, log)
    log = store.reopen()
    with pytest.raises(LogMoved):
        reader.read(0, 1000)
    assert read_all(local(store, log)) == sent, "the row is the same, the high watermark too"


def test_an_older_epoch_than_metadata_names_is_a_dead_leaders(store: Store) -> None:
    log = store.open()
    with pytest.raises(LogMoved):
        local(store, log, leader_epoch=2)
    local(store, log, leader_epoch=1)


def test_the_row_of_a_deleted_partition_moves_its_readers_away(store: Store) -> None:
    log = store.open()
    fill(log, 5)
    store.flush()
    reader = local(store, log)
    assert store.directory is not None
    store.directory.delete_partition(TOPIC, 0)
    with pytest.raises(LogMoved):
        reader.read(0, 1000)
    other = store.directory.partition(b"q" * 16, 0, store.config)
    assert other.row == log.row, "the row is used again"
    with pytest.raises(LogMoved):
        reader.read(0, 1000)


def test_replaced_records_are_a_truncation_and_never_a_skip(store: Store) -> None:
    log = store.open()
    fill(log, 5)
    store.flush()
    reader = local(store, log)
    log.truncate_to(4)
    with pytest.raises(LogTruncation):
        reader.read(0, 1000)


def test_a_batch_of_an_epoch_above_the_pages_is_not_trusted(store: Store) -> None:
    log = store.open()
    fill(log, 2)
    store.flush()
    log.leader_epoch = log.last_epoch = 0
    log._publish()
    with pytest.raises(CorruptBatch):
        local(store, log).read(0, 1000)


def test_a_vanished_directory_moves_its_readers_away(store: Store) -> None:
    log = store.open()
    fill(log, 2)
    store.flush()
    reader = local(store, log)
    shutil.rmtree(store.partition_path)
    with pytest.raises(LogMoved):
        reader.read(0, 1000)
    assert store.directory is not None
    store.directory.delete_partition(TOPIC, 0)


# ---- compaction swaps segments under a reader ------------------------------------------------------------------------


def merge(store: Store, bases: list[int], *, keep: int) -> None:
    """Put one segment with each `keep`-th batch, and the last, in place of several."""
    merged = b""
    for base in bases:
        data = (store.partition_path / file_name(base, LOG)).read_bytes()
        end = len(data.rstrip(b"\0")) + 7 & -8
        headers = list(hop_headers(data, 0, end))
        for position, header in headers:
            last = base == bases[-1] and header is headers[-1][1]
            if header.base_offset // 2 % keep == 0 or last:
                merged += data[position : position + header.padded_size]
    fresh = store.partition_path / "merged.tmp"
    fresh.write_bytes(merged)
    fresh.rename(store.partition_path / file_name(bases[0], LOG))
    for base in bases:
        (store.partition_path / file_name(base, INDEX)).unlink(missing_ok=True)
        if base != bases[0]:
            (store.partition_path / file_name(base, LOG)).unlink()


def bases_of(store: Store) -> list[int]:
    return sorted(int(path.stem) for path in store.partition_path.glob("*.log"))


@pytest.mark.parametrize("at", [0, 2, 100, 116, 118, 130, 234, 236, 300, 352, 354])
def test_a_reader_goes_on_through_a_swap_without_missing_or_repeating_anything(store: Store, at: int) -> None:
    log = store.open()
    sent = fill(log, 300)
    store.flush()
    reader = local(store, log)
    bases = bases_of(store)
    assert bases[:4] == [0, 118, 236, 354]
    before = read_some(reader, 0, at)
    merge(store, bases[1:3], keep=3)
    merge(store, [0, 118], keep=2)
    after = read_some(reader, at, 600)
    offsets = [header.base_offset for header, _ in after]
    assert offsets == sorted(set(offsets))
    found = {header.base_offset: bytes(batch[HEADER_SIZE:]) for header, batch in before + after}
    assert found == {offset: sent[offset // 2] for offset in found}
    assert set(range(0, 600, 12)) <= found.keys(), "what is left is never missed"
    fresh = {header.base_offset for header, _ in read_some(local(store, log), 0, 600)}
    assert fresh <= found.keys()


def read_some(reader: LocalLog, offset: int, end: int) -> list[tuple[BatchHeader, memoryview]]:
    found: list[tuple[BatchHeader, memoryview]] = []
    while offset < end:
        found += reader.read(offset, min(5000, 1100 * (end - offset) // 2))
        offset = found[-1][0].next_offset
    return found


def test_a_reader_that_seeks_into_a_merged_segment_finds_it(store: Store) -> None:
    log = store.open()
    fill(log, 300)
    store.flush()
    reader = local(store, log)
    for offset in (0, 118, 236):
        reader.read(offset, 1)
    merge(store, bases_of(store)[:3], keep=5)
    left = [number for number in range(300) if number % 5 == 0 or number >= 176]
    for offset in (300, 2, 120, 349, 353, 354):
        (header, _), *_ = reader.read(offset, 1)  # of the old file where it is mapped still
        assert header.base_offset in (offset // 2 * 2, min(2 * n for n in left if 2 * n + 1 >= offset))
    assert [header.base_offset for header, _ in read_some(local(store, log), 0, 600)] == [2 * number for number in left]
