"""Takeover: what a new owner finds after a kill, a torn tail, a flipped bit, a lost hint, a missing file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from brokerd.storage.errors import DamagedLog, QuarantinedBatch
from brokerd.storage.files import read_file
from brokerd.storage.log import Log
from ingest.errors import UnsupportedFormat
from ingest.records.header import HEADER_SIZE
from tests.brokerd.storage.stores import Store, bodies, flip, make_batch, stored

MakeStore = Callable[..., Store]
FIRST = f"{0:020d}.log"


def fill(log: Log, count: int, size: int = 1000) -> list[bytes]:
    sent = []
    for _ in range(count):
        sent.append(os.urandom(size))
        log.append([make_batch(sent[-1])], wall_ms=5000)
    return sent


def test_a_kill_loses_nothing_that_was_written(store: Store) -> None:
    sent = fill(store.open(), 20)
    log = store.reopen()
    assert bodies(log) == sent
    assert log.torn_bytes_total == 0
    assert fill(log, 1) == bodies(log, 20)


def test_what_was_not_flushed_counts_as_flushed_only_after_a_flush(store: Store) -> None:
    log = store.open()
    fill(log, 5)
    store.flush()
    assert store.directory is not None
    store.directory.checkpoint()
    fill(log, 5)
    log = store.reopen()
    assert (log.flushed_end, log.high_watermark, log.end_offset) == (5, 5, 10)
    target = log.flush_target()
    assert len(target.files) == 1
    store.flush()
    assert (log.flushed_end, log.high_watermark) == (10, 10)


def test_after_a_takeover_unflushed_sealed_segments_are_flushed_too(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384)
    log = store.open()
    fill(log, 60)
    assert log.segment_count == 5
    log = store.reopen()
    assert log.flushed_end == 0
    target = log.flush_target()
    assert len({file.path for file in target.files}) == 5
    assert store.partition_path in target.directories


def test_names_a_dead_owner_made_are_flushed_before_anything_counts(store: Store) -> None:
    store.open()
    log = store.reopen()  # an empty partition, killed before its first flush
    log.append([make_batch()], wall_ms=0)
    assert set(log.flush_target().directories) == {store.path, store.partition_path}


def test_the_high_watermark_does_not_go_back_over_a_kill(store: Store) -> None:
    log = store.open()
    fill(log, 9)
    store.flush()  # no checkpoint: only the state page knows
    log = store.reopen()
    assert log.high_watermark == 9


def test_recovery_after_a_torn_tail_keeps_every_whole_batch(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store()
    log = store.open()
    sent = fill(log, 3, size=45)
    end = 3 * 144
    store.kill()
    whole = read_file(store.partition_path / FIRST, 1 << 20)
    assert whole is not None
    for cut in range(2 * 144, end):
        for filler in (bytes(8), b"\xff" * 8):
            shutil.rmtree(store.root)
            store.epoch = 0
            log = store.open()
            store.kill()
            torn = whole[:cut] + filler + bytes(len(whole) - cut - 8)
            (store.partition_path / FIRST).write_bytes(torn)
            log = store.open()
            tail_is_only_padding = cut >= 2 * 144 + HEADER_SIZE + 45
            kept = 3 if tail_is_only_padding or torn[:end] == whole[:end] else 2
            assert bodies(log) == sent[:kept], cut
            again = fill(log, 1, size=10)
            assert bodies(log, kept) == again
            assert bodies(store.reopen()) == sent[:kept] + again
            store.kill()
    store.open()


def test_an_old_batch_behind_a_torn_tail_does_not_come_back(store: Store) -> None:
    log = store.open()
    sent = fill(log, 5)
    store.kill()
    flip(store.partition_path / FIRST, 2 * 1096 + 200)  # never acknowledged: nothing names a mark above
    log = store.open()
    assert bodies(log) == sent[:2]
    assert log.torn_bytes_total == 3 * 1096
    again = fill(log, 1)  # the same size: batch 3 of the old tail would follow it
    assert bodies(store.reopen()) == sent[:2] + again


def test_damage_that_a_later_batch_proves_committed_is_kept_and_quarantined(store: Store) -> None:
    for position in (200, 50):  # in the body, in the header
        shutil.rmtree(store.root, ignore_errors=True)
        log = store.open()
        sent = fill(log, 5)
        store.flush()
        sent += fill(log, 1)  # names high watermark 5
        store.kill()
        flip(store.partition_path / FIRST, 2 * 1096 + position)
        log = store.open()
        assert log.end_offset == 6
        assert log.read(0, 1, end=6)
        with pytest.raises(QuarantinedBatch) as damage:
            log.read(2, 1, end=6)
        assert damage.value.next_offset == 3
        assert bodies(log, 3) == sent[3:]
        store.kill()
        store.epoch = 0
    store.open()


def test_damage_below_the_checkpoint_never_shortens_the_log(store: Store) -> None:
    log = store.open()
    sent = fill(log, 10)
    store.flush()
    assert store.directory is not None
    store.directory.checkpoint()
    store.kill()
    flip(store.partition_path / FIRST, 3 * 1096 + 200)
    log = store.open()
    assert log.end_offset == 10
    assert bodies(log, 4) == sent[4:]
    with pytest.raises(QuarantinedBatch):
        log.read(3, 1, end=10)


def test_offsets_the_disk_lost_below_the_checkpoint_are_not_used_again(store: Store) -> None:
    log = store.open()
    sent = fill(log, 10)
    store.flush()
    assert store.directory is not None
    store.directory.checkpoint()
    store.kill()
    path = store.partition_path / FIRST
    os.truncate(path, 6 * 1096)
    log = store.open()
    assert log.end_offset == 10
    again = fill(log, 2)
    for _ in range(2):
        assert log.read(0, 1, end=12)[HEADER_SIZE : HEADER_SIZE + 1000] == sent[0]
        with pytest.raises(QuarantinedBatch) as damage:
            log.read(6, 1, end=12)
        assert damage.value.next_offset == 10
        assert bodies(log, 10) == again
        assert [body for _, body in stored(log, 10)] == again
        log = store.reopen()


def test_a_log_whose_only_segment_the_disk_emptied_goes_on_behind_it(store: Store) -> None:
    fill(store.open(), 3)
    store.flush()
    assert store.directory is not None
    store.directory.checkpoint()
    store.kill()
    os.truncate(store.partition_path / FIRST, 0)
    assert store.open().end_offset == 3
    store.close()
    log = store.open()
    again = fill(log, 1)
    for _ in range(2):
        with pytest.raises(QuarantinedBatch) as caught:
            log.read(0, 1, end=4)
        assert caught.value.next_offset == 3
        assert bodies(log, 3) == again
        log = store.reopen()


def test_what_recovery_cut_set_aside_or_missed_is_told_and_counted(store: Store) -> None:
    torn, damaged, lost, whole = (store.open(partition) for partition in range(4))
    fill(lost, 10)
    store.flush()
    assert store.directory is not None
    store.directory.checkpoint()
    for log in (torn, damaged, whole):
        fill(log, 3)
    store.flush()
    for log in (torn, damaged):
        fill(log, 2)  # they name the mark 3
    store.kill()
    flip(torn.path / FIRST, 4 * 1096 + 200)
    flip(damaged.path / FIRST, 1 * 1096 + 200)
    os.truncate(lost.path / FIRST, 6 * 1096)
    with capture_logs() as lines:
        logs = [store.open(partition) for partition in range(4)]
    found = [(log.torn_bytes_total, log.damaged_batches_total, log.lost_offsets_total) for log in logs]
    assert found == [(1096, 0, 0), (0, 1, 0), (0, 0, 4), (0, 0, 0)]
    directory = store.directory
    assert directory is not None
    totals = (directory.torn_bytes_total, directory.damaged_batches_total, directory.lost_offsets_total)
    assert totals == (1096, 1, 4)
    told = [(line["log"], line["torn_bytes"], line["damaged_batches"], line["lost_offsets"]) for line in lines]
    assert told == [(str(log.path), *counts) for log, counts in zip(logs[:3], found[:3], strict=True)]
    assert [line["log_level"] for line in lines] == ["warning", "error", "error"]
    store.close()
    with capture_logs() as lines:
        assert store.open(2).lost_offsets_total == 0, "told once"
    assert not lines


HINTS = ["checkpoint", ".index", ".timeindex", ".snapshot"]


def content(log: Log) -> tuple[object, ...]:
    """Everything a client could tell two logs apart by."""
    times = [log.offset_for_time(stamp, end=log.end_offset) for stamp in (0, 1000, 1010, 1025, 1039, 2000)]
    producers = {key: (value.epoch, value.batches) for key, value in log._producers.producers.items()}
    reads = [stored(log, offset)[0][0].base_offset for offset in range(log.start_offset, log.end_offset)]
    return (bodies(log), reads, times, producers, log.last_epoch, log.start_offset, log.producer_id_max)


@pytest.fixture
def full_store(make_store: MakeStore) -> Store:
    """A closed store of three segments, with producers, indexes, snapshots and a checkpoint."""
    store = make_store(segment_bytes=16384, index_interval_bytes=2048)
    log = store.open()
    for index in range(40):
        producer = (7 + index % 3, 0, index // 3)
        log.append([make_batch(os.urandom(1000), timestamp_ms=1000 + index, producer=producer)], wall_ms=index)
    store.flush()
    store.close()
    return store


def test_every_hint_can_be_deleted_with_identical_results(full_store: Store) -> None:
    store = full_store
    before = content(store.open())
    store.close()
    hints = [path for path in store.path.rglob("*") if path.name == "checkpoint" or path.suffix in HINTS]
    assert len(hints) >= 9
    for path in hints:
        path.unlink()
        assert content(store.open()) == before, path.name
        store.close()


def test_every_hint_can_lose_a_bit_anywhere_with_identical_results(full_store: Store) -> None:
    store = full_store
    before = content(store.open())
    store.close()
    names = [path.relative_to(store.path) for path in store.path.rglob("*") if path.suffix in HINTS]
    names.append(Path("checkpoint"))
    for name in names:
        size = (store.path / name).stat().st_size
        for position in sorted({0, 1, 8, size // 3, size // 2, size - 1}):
            saved = store.root / "saved"
            shutil.copytree(store.path, saved)
            flip(store.path / name, position, bit=position % 8)
            assert content(store.open()) == before, (name, position)
            store.kill()
            shutil.rmtree(store.path)
            saved.rename(store.path)


def test_hints_flipped_or_deleted_while_the_log_is_open(full_store: Store) -> None:
    store = full_store
    log = store.open()
    before = content(log)
    for path in store.partition_path.glob("*index"):
        for position in range(0, path.stat().st_size, 7):
            flip(path, position)
    log._reader.cursors.clear()
    assert content(log) == before
    for path in store.partition_path.glob("*index"):
        path.unlink()
    log._reader.cursors.clear()
    assert content(log) == before


def fill_segments(store: Store, *, flushed: bool) -> list[Path]:
    """Leave three segments that reach 40, without a checkpoint; each batch was flushed before the next, or none was."""
    log = store.open()
    for _ in range(40):
        fill(log, 1)
        if flushed:
            store.flush()
    store.kill()
    (store.path / "checkpoint").unlink()
    paths = sorted(store.partition_path.glob("*.log"))
    assert len(paths) == 3
    return paths


@pytest.mark.parametrize("proof", ["checkpoint", "marks"])
def test_a_missing_segment_that_was_flushed_is_refused_by_name(make_store: MakeStore, proof: str) -> None:
    store = make_store(segment_bytes=16384)
    if proof == "marks":
        paths = fill_segments(store, flushed=True)
    else:
        fill(store.open(), 40)
        store.flush()  # in one go: no batch names a mark above 0
        store.close()
        paths = sorted(store.partition_path.glob("*.log"))
    aside = store.root / "aside"
    paths[1].rename(aside)
    listing = sorted(store.partition_path.glob("*.log"))
    with pytest.raises(DamagedLog, match=paths[1].name):
        store.open()
    assert sorted(store.partition_path.glob("*.log")) == listing
    aside.rename(paths[1])
    assert len(bodies(store.open())) == 40


def test_before_the_first_checkpoint_a_segment_nobody_flushed_may_be_missing(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384)
    paths = fill_segments(store, flushed=False)
    paths[1].unlink()
    store.page_path.unlink()
    end = int(paths[1].stem)
    log = store.open()
    assert log.end_offset == end
    assert log.torn_bytes_total > 0
    assert sorted(store.partition_path.glob("*.log")) == paths[:1]
    again = fill(log, 1)
    assert bodies(store.reopen(), end) == again


@pytest.mark.parametrize("damage", ["lost", "torn"])
def test_a_power_cut_in_the_first_seconds_ends_the_log_at_what_was_flushed(make_store: MakeStore, damage: str) -> None:
    """The new segment's name and bytes survive; what was written before the roll and not flushed does not."""
    store = make_store(segment_bytes=16384)
    log = store.open()
    kept = fill(log, 3)
    store.flush()
    fill(log, 20)
    assert log.segment_count == 2
    store.kill()
    path = store.partition_path / FIRST
    with path.open("r+b") as file:
        file.seek(3 * 1096)
        file.write((b"" if damage == "lost" else b"\xff" * 1096).ljust(path.stat().st_size - 3 * 1096, b"\0"))
    store.page_path.unlink()
    log = store.open()
    assert bodies(log) == kept
    assert log.segment_count == 1
    again = fill(log, 1)
    store.flush()
    assert bodies(store.reopen()) == kept + again


def test_before_the_first_checkpoint_a_mark_in_a_later_segment_proves_damage(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384)
    paths = fill_segments(store, flushed=True)
    end = int(paths[1].stem)
    with paths[0].open("r+b") as file:  # the last batch becomes zeros: it reads as an early end
        file.seek((end - 1) * 1096)
        file.write(bytes(1096))
    with pytest.raises(DamagedLog, match=f"{end - 1:020d}"):
        store.open()
    flip(paths[0], (end - 1) * 1096 + 10)  # as bad bytes it is quarantined
    log = store.open()
    assert log.end_offset == 40
    with pytest.raises(QuarantinedBatch) as caught:
        log.read(end - 1, 1, end=40)
    assert caught.value.next_offset == end


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_overlapping_segments_are_refused_by_name(full_store: Store, with_checkpoint: bool) -> None:
    paths = sorted(full_store.partition_path.glob("*.log"))
    shutil.copy(paths[0], full_store.partition_path / f"{5:020d}.log")
    if not with_checkpoint:
        (full_store.path / "checkpoint").unlink()
    with pytest.raises(DamagedLog, match=paths[0].name):
        full_store.open()


def test_stray_files_are_refused_by_name(full_store: Store) -> None:
    for stray in ("notes.txt", f"{3:020d}.bak", f"{3:019d}.log"):
        path = full_store.partition_path / stray
        path.touch()
        with pytest.raises(DamagedLog, match=stray):
            full_store.open()
        path.unlink()
    (full_store.partition_path / f"{7:020d}.log").symlink_to("/etc/passwd")
    with pytest.raises(DamagedLog, match=f"{7:020d}"):
        full_store.open()


def test_a_newer_batch_format_is_refused_and_nothing_touched(store: Store) -> None:
    fill(store.open(), 3)
    store.kill()
    path = store.partition_path / FIRST
    data = bytearray(path.read_bytes())
    data[2 * 1096 + 3] = 2  # version 2, whose header we can't verify
    data[2 * 1096 + 4] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnsupportedFormat):
        store.open()
    assert path.read_bytes() == bytes(data)
    data[2 * 1096 + 4] ^= 1  # it verifies as version 1: one damaged byte, and torn
    path.write_bytes(data)
    assert store.open().end_offset == 2


def test_leftovers_of_an_interrupted_replacement_are_dropped(full_store: Store) -> None:
    (full_store.partition_path / f"{0:020d}.index.tmp").write_bytes(b"half")
    (full_store.partition_path / f"{3:020d}.timeindex").write_bytes(b"of a deleted segment")
    assert len(bodies(full_store.open())) == 40
    assert not list(full_store.partition_path.glob("*.tmp"))


def read_bytes(act: Callable[[], object]) -> int:
    """Return how many bytes this process reads while `act` runs."""

    def count() -> int:
        with open("/proc/self/io") as file:
            return int(file.readline().split()[1])

    before = count()
    act()
    return count() - before


def test_opening_reads_by_the_number_of_segments_not_by_their_bytes(make_store: MakeStore) -> None:
    cost = {}
    for segments in (16, 160):
        store = make_store(segment_bytes=262144)
        log = store.open()
        while log.segment_count < segments:
            fill(log, 10, size=8000)
        store.flush()
        assert store.directory is not None
        store.directory.checkpoint()
        stored_bytes = log.size_bytes
        store.kill()
        cost[segments] = read_bytes(store.open)
        assert cost[segments] < stored_bytes / 10
        store.close()
    assert cost[160] < 12 * cost[16]


def test_found_ends_looks_without_opening(full_store: Store) -> None:
    directory = full_store.open_directory()
    (found,) = directory.found_ends()
    assert found[1:] == (0, 1, 40)
    assert directory.producer_id_max() == 9
    full_store.kill()
    (full_store.path / "checkpoint").unlink()
    directory = full_store.open_directory()
    assert directory.found_ends() == [found]
    assert directory.producer_id_max() == 9


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_segment_cut_short_by_a_power_cut_ends_the_log_there(make_store: MakeStore, durability: str) -> None:
    store = make_store(segment_bytes=16384, durability=durability)
    log = store.open()
    fill(log, 5)
    store.flush()
    assert store.directory is not None
    store.directory.checkpoint()
    sent = bodies(log) + fill(log, 35)  # never flushed: the disk keeps what it likes
    store.kill()
    path = store.partition_path / FIRST
    with path.open("r+b") as file:
        file.seek(9 * 1096)
        file.write(bytes(path.stat().st_size - 9 * 1096))
    log = store.open()
    assert bodies(log) == sent[:9]
    assert log.segment_count == 1
    again = fill(log, 30)
    assert bodies(store.reopen()) == sent[:9] + again
