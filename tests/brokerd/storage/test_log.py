"""Append, read, marks, roll and retention of one log."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from brokerd.storage.errors import (
    InvalidRecord,
    MessageTooLarge,
    OffsetOutOfRange,
    QuarantinedBatch,
    StaleLeaderEpoch,
)
from brokerd.storage.log import Log
from ingest.errors import CorruptBatch, LogDirOffline
from ingest.records.header import HEADER_SIZE
from replicas.log import Log as ReplicaLog
from tests.brokerd.storage.stores import Store, bodies, flip, make_batch, stored

MakeStore = Callable[..., Store]


def fill(log: Log, count: int, size: int = 1000, records: int = 1, *, wall_ms: int = 5000) -> list[bytes]:
    """Append `count` batches with random bodies, one call each; return the bodies."""
    sent = []
    for index in range(count):
        sent.append(os.urandom(size))
        log.append([make_batch(sent[-1], records, timestamp_ms=1000 + index)], wall_ms=wall_ms)
    return sent


def test_a_storage_log_is_what_replication_needs(store: Store) -> None:
    log: ReplicaLog = store.open()
    assert log.end_offset == 0


def test_what_is_appended_is_read_back_in_order_with_dense_offsets(store: Store) -> None:
    log = store.open()
    sent = fill(log, 20, records=3)
    found = stored(log)
    assert [body for _, body in found] == sent
    assert [header.base_offset for header, _ in found] == list(range(0, 60, 3))
    assert {header.leader_epoch for header, _ in found} == {1}
    assert log.end_offset == 60


def test_batches_of_one_call_are_written_together_or_not_at_all(store: Store) -> None:
    log = store.open()
    good = [make_batch(bytes([n]) * (n + 1)) for n in range(9)]
    landed = log.append(good, wall_ms=7)
    assert [(a.base_offset, a.last_offset, a.append_time_ms) for a in landed] == [(n, n, 7) for n in range(9)]
    bad = bytearray(make_batch())
    bad[-1] ^= 1
    with pytest.raises(CorruptBatch):
        log.append([make_batch(), bytes(bad)], wall_ms=7)
    assert log.end_offset == 9
    assert bodies(log) == [bytes([n]) * (n + 1) for n in range(9)]


def test_more_batches_than_one_pwritev_takes(store: Store) -> None:
    log = store.open()
    log.append([make_batch(b"abc")] * 1500, wall_ms=1)
    assert bodies(log) == [b"abc"] * 1500


def test_a_read_gives_whole_batches_from_the_middle_of_one(store: Store) -> None:
    log = store.open()
    fill(log, 10, size=100, records=10)
    first = stored(log, offset=34)[0][0]
    assert first.base_offset == 30
    one = log.read(34, 1, end=100)
    assert one.nbytes == first.padded_size
    assert log.read(30, 2 * first.padded_size, end=100).nbytes == 2 * first.padded_size
    assert log.read(30, 1 << 20, end=50).nbytes == 2 * first.padded_size
    assert log.read(100, 1 << 20, end=100).nbytes == 0


def test_offsets_outside_the_log_are_refused(store: Store) -> None:
    log = store.open()
    fill(log, 3)
    with pytest.raises(OffsetOutOfRange):
        log.read(4, 100, end=3)
    log.advance_high_watermark(3)
    log.delete_records(2)
    with pytest.raises(OffsetOutOfRange):
        log.read(1, 100, end=3)
    with pytest.raises(OffsetOutOfRange):
        log.delete_records(4)


def test_the_high_watermark_never_goes_back(store: Store) -> None:
    log = store.open()
    fill(log, 3)
    log.advance_high_watermark(2)
    log.advance_high_watermark(1)
    assert log.high_watermark == 2


def test_segments_roll_by_size_and_reads_go_on_across_them(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384)
    log = store.open()
    sent = fill(log, 60)
    assert log.segment_count == 5
    assert bodies(log) == sent
    for offset in range(60):
        assert stored(log, offset)[0][0].base_offset == offset
    assert all(path.stat().st_size <= 65536 for path in store.partition_path.glob("*.log"))


def test_a_batch_larger_than_a_segment_gets_one_of_its_own(make_store: MakeStore) -> None:
    log = make_store(segment_bytes=16384).open()
    sizes = [100, 200_000, 100]
    sent = [fill(log, 1, size)[0] for size in sizes]
    assert bodies(log) == sent
    assert log.segment_count == 3


def test_a_segment_rolls_by_running_time(make_store: MakeStore) -> None:
    store = make_store(segment_ms=1000)
    log = store.open()
    assert store.directory is not None
    store.directory.maintain(10_000)
    store.directory.maintain(12_000)
    assert log.segment_count == 1, "an empty segment does not roll"
    fill(log, 1)
    store.directory.maintain(12_900)
    assert log.segment_count == 1
    store.directory.maintain(13_000)
    assert log.segment_count == 2
    store.directory.maintain(15_000)
    assert log.segment_count == 2


def test_a_step_of_the_wall_clock_deletes_nothing_but_running_time_does(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384, retention_ms=3_600_000)
    log = store.open()
    assert store.directory is not None
    store.directory.maintain(1000)
    sent = fill(log, 20, wall_ms=0)  # a device without a clock battery wakes up in 1970
    sent += fill(log, 20, wall_ms=1_900_000_000_000)
    store.flush()
    store.directory.maintain(2000)
    assert bodies(log) == sent
    store.directory.maintain(2000 + 3_600_001)
    assert log.start_offset == 40
    assert log.segment_count == 1


def test_ages_go_on_after_a_reopen(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384, retention_ms=100_000)
    log = store.open()
    assert store.directory is not None
    store.directory.maintain(1000)
    fill(log, 40)
    store.flush()
    store.directory.maintain(60_000)
    store.directory.checkpoint()
    log = store.reopen()
    store.directory.maintain(90_000)
    assert log.start_offset == 0
    store.directory.maintain(110_000)
    assert log.start_offset > 0


def test_retention_by_size_keeps_what_is_asked_for(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384, retention_bytes=40_000)
    log = store.open()
    sent = fill(log, 100)
    store.flush()
    assert store.directory is not None
    store.directory.maintain(1000)
    assert 40_000 <= log.size_bytes <= 60_000
    assert bodies(log) == sent[log.start_offset :]
    assert log.start_offset > 0
    first = min(store.partition_path.glob("*.log")).name
    assert int(first[:20]) == log.start_offset


def test_nothing_above_the_high_watermark_is_deleted(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384, retention_bytes=0)
    log = store.open()
    fill(log, 100)
    log.advance_high_watermark(20)
    assert store.directory is not None
    store.directory.maintain(1000)
    assert log.start_offset <= 20


def test_deleted_records_stay_deleted_without_a_checkpoint(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384)
    log = store.open()
    sent = fill(log, 40)
    store.flush()
    log.delete_records(25)
    assert bodies(log) == sent[25:]
    store.kill()
    (store.path / "checkpoint").unlink()
    log = store.open()
    assert log.start_offset == 25
    assert bodies(log) == sent[25:]


@pytest.mark.parametrize("what", ["a start mark", "a snapshot"])
def test_a_refused_removal_fails_the_directory_and_not_the_broker(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    store = make_store(segment_bytes=16384)
    log = store.open()
    sent = fill(log, 40)
    store.flush()
    log.delete_records(2)
    unlink = os.unlink
    suffix = ".start" if what == "a start mark" else ".snapshot"

    def refuse(path: os.PathLike[str]) -> None:
        if os.fspath(path).endswith(suffix):
            raise OSError(errno.EIO, os.strerror(errno.EIO), os.fspath(path))
        unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(LogDirOffline):
            log.delete_records(35)
    assert store.directory is not None
    assert store.directory.failed
    assert bodies(store.reopen()) == sent[35:]


def test_oversize_empty_and_contradicting_batches_are_refused(make_store: MakeStore) -> None:
    log = make_store(max_message_bytes=1000).open()
    with pytest.raises(MessageTooLarge) as refused:
        log.append([make_batch(bytes(1000 - HEADER_SIZE + 1))], wall_ms=0)
    assert refused.value.code == 10
    log.append([make_batch(bytes(1000 - HEADER_SIZE))], wall_ms=0)
    with pytest.raises(CorruptBatch):
        log.append([make_batch()[:50]], wall_ms=0)
    with pytest.raises(InvalidRecord):
        log.append([make_batch() + b"more bytes"], wall_ms=0)
    with pytest.raises(InvalidRecord) as refused_sequence:
        log.append([make_batch(producer=(-1, -1, 3))], wall_ms=0)
    assert refused_sequence.value.code == 87
    assert log.end_offset == 1


def test_timestamps_too_far_from_the_brokers_clock_are_refused(make_store: MakeStore) -> None:
    log = make_store(timestamp_after_max_ms=100, timestamp_before_max_ms=100).open()
    log.append([make_batch(timestamp_ms=1000)], wall_ms=1050)
    for wall_ms in (899, 1101):
        with pytest.raises(InvalidRecord) as refused:
            log.append([make_batch(timestamp_ms=1000)], wall_ms=wall_ms)
        assert refused.value.code == 32


def test_log_append_time_is_the_brokers(make_store: MakeStore) -> None:
    log = make_store(timestamp_type="LogAppendTime").open()
    log.append([make_batch(timestamp_ms=5)], wall_ms=777)
    header = stored(log)[0][0]
    assert header.is_log_append_time
    assert header.largest_timestamp_ms == 777
    assert log.offset_for_time(700, end=1) == (0, 777)


@pytest.mark.parametrize("interval", [0, 4096, 1 << 20])
def test_offsets_are_found_by_time_whatever_the_order_of_timestamps(make_store: MakeStore, interval: int) -> None:
    log = make_store(segment_bytes=16384, index_interval_bytes=interval).open()
    stamps = [100, 50, 300, 200, 250, 900, 10, 20, 30, 1000] * 6
    for index, stamp in enumerate(stamps):
        log.append([make_batch(bytes(1500), timestamp_ms=stamp + index)], wall_ms=0)
    stamps = [stamp + index for index, stamp in enumerate(stamps)]
    for wanted in (0, 100, 101, 301, 500, 955, 1009, 1060, 2000):
        expected = next((offset for offset, stamp in enumerate(stamps) if stamp >= wanted), None)
        found = log.offset_for_time(wanted, end=60)
        assert (found[0] if found else None) == expected
    assert log.offset_for_time(1000, end=5) is None


def test_leadership_under_a_known_epoch_is_refused(store: Store) -> None:
    log = store.open()
    fill(log, 1)
    with pytest.raises(StaleLeaderEpoch):
        log.become_leader(1)
    store.kill()
    directory = store.open_directory()
    log = directory.partition(log.topic_id, 0, store.config)
    assert log.last_epoch == 1
    with pytest.raises(StaleLeaderEpoch):
        log.become_leader(1)
    log.become_leader(2)


def test_a_flipped_bit_is_quarantined_and_the_log_goes_on(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384, index_interval_bytes=0)
    log = store.open()
    sent = fill(log, 40)
    store.flush()
    flip(store.partition_path / f"{0:020d}.log", 3 * 1096 + 500)
    with pytest.raises(QuarantinedBatch) as damage:
        log.read(3, 100, end=40)
    assert damage.value.next_offset == 4
    assert bodies(log, 4) == sent[4:]
    log.append([make_batch(b"on it goes")], wall_ms=0)
    assert bodies(log, 40) == [b"on it goes"]


def test_a_damaged_header_is_stepped_over_to_the_next_whole_batch(make_store: MakeStore) -> None:
    for interval in (0, 1 << 20):
        store = make_store(index_interval_bytes=interval)
        log = store.open()
        sent = fill(log, 20)
        store.flush()
        flip(store.partition_path / f"{0:020d}.log", 5 * 1096 + 70)
        assert bodies(log, 6) == sent[6:]
        with pytest.raises(QuarantinedBatch) as damage:
            log.read(5, 100, end=20)
        assert damage.value.next_offset == 6


def test_a_batch_inside_a_body_is_not_taken_for_the_next_one(make_store: MakeStore) -> None:
    store = make_store(index_interval_bytes=1 << 20)
    log = store.open()
    other = make_store().open()
    other.append([make_batch(b"forged" * 10, 5)] * 3, wall_ms=0)
    inner = bytes(other.read(0, 1 << 20, end=15))  # a valid batch with base offset 10 among them
    fill(log, 10)
    log.append([make_batch(inner, 10)], wall_ms=0)
    tail = fill(log, 2)
    store.flush()
    flip(store.partition_path / f"{0:020d}.log", 10 * 1096 + 40)
    with pytest.raises(QuarantinedBatch) as damage:
        log.read(10, 100, end=22)
    assert damage.value.next_offset == 20
    assert bodies(log, 20) == tail


def test_truncation_above_the_high_watermark_leaves_no_ghost(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384)
    log = store.open()
    sent = fill(log, 60)
    log.advance_high_watermark(20)
    log.truncate_to(33)
    assert log.end_offset == 33
    log = store.reopen()
    assert bodies(log) == sent[:33]
    again = fill(log, 10)
    assert bodies(store.reopen()) == sent[:33] + again


def test_truncation_below_the_high_watermark_makes_a_new_file(make_store: MakeStore) -> None:
    store = make_store()
    log = store.open()
    sent = fill(log, 10)
    store.flush()
    path = store.partition_path / f"{0:020d}.log"
    inode, generation = path.stat().st_ino, log._row.generation
    log.truncate_to(5)
    assert path.stat().st_ino != inode
    assert log._row.generation == generation + 1
    assert log.high_watermark == 5
    assert bodies(log) == sent[:5]


def test_files_are_for_the_group_and_for_no_one_else(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384)
    fill(store.open(), 40)
    store.flush()
    assert store.path.stat().st_mode & 0o777 == 0o750
    assert store.partition_path.stat().st_mode & 0o777 == 0o750
    files = [path for path in store.path.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in [*files, store.page_path]} == {0o640}


def test_a_bad_sector_is_quarantined_like_a_flipped_bit(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker reads with pread: EIO, and no SIGBUS."""
    log = make_store().open()
    sent = fill(log, 40)
    bad = range(5 * 1096, 6 * 1096)
    real = os.pread

    def pread(fd: int, size: int, position: int) -> bytes:
        if size > 16 and position < bad.stop and position + size > bad.start:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, size, position)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(QuarantinedBatch) as damage:
        log.read(5, 100, end=40)
    following = damage.value.next_offset
    assert 6 <= following <= 10, "at most about index.interval.bytes are given up"
    monkeypatch.setattr(os, "pread", real)
    assert bodies(log, following) == sent[following:]
