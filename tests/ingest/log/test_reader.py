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
from ingest.log.reader import LocalLog, LogMoved
from ingest.records.header import HEADER_SIZE
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
