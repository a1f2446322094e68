"""A damaged log is put aside and begun anew: on record first, in new files, and readers of the old ones are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brokerd.storage.config import LogConfig
from brokerd.storage.log import Log
from ingest.errors import LogTruncation
from ingest.log.names import LOG, REFILL, file_name
from ingest.log.reader import LocalLog
from tests.brokerd.storage.stores import PARTITION_DIRECTORY, TOPIC, Store, flip, make_batch, stored


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, LogConfig(segment_bytes=1024))


def fill(log: Log, count: int = 20) -> None:
    for number in range(count):
        log.append([make_batch(b"%03d" % number * 40)], wall_ms=1)


def first_segment(store: Store) -> Path:
    return store.partition_path / file_name(0, LOG)


def asides(store: Store) -> list[Path]:
    return [path for path in store.path.iterdir() if path.name.startswith(f"{PARTITION_DIRECTORY}.")]


def filled(store: Store) -> Log:
    log = store.open()
    fill(log)
    store.flush()
    assert store.directory is not None
    store.directory.checkpoint()
    return log


def test_a_mark_outlives_its_process_and_the_files_stay_until_they_are_put_aside(store: Store) -> None:
    filled(store)
    assert store.directory is not None
    assert store.directory.mark_for_refill(TOPIC, 0, "byte 40")
    log = store.reopen()
    assert store.directory.refills == {(TOPIC, 0)}
    assert log.end_offset == 20
    assert [path.read_text() for path in asides(store)] == ["byte 40"]


def test_a_log_that_begins_anew_is_empty_in_new_files(store: Store) -> None:
    log = filled(store)
    directory = store.directory
    assert directory is not None
    before = first_segment(store).stat().st_ino
    directory.mark_for_refill(TOPIC, 0, "byte 40")
    directory.begin_anew(TOPIC, 0)
    assert log.closed
    assert directory.refills == set()
    anew = store.open()
    assert (anew.start_offset, anew.end_offset, anew.high_watermark, anew.last_epoch) == (0, 0, 0, -1)
    assert first_segment(store).stat().st_ino != before
    (aside,) = asides(store)
    assert (aside / file_name(0, LOG)).stat().st_ino == before


def test_what_the_earlier_log_had_flushed_is_not_missed_in_the_one_that_began_anew(store: Store) -> None:
    filled(store)
    assert store.directory is not None
    store.directory.mark_for_refill(TOPIC, 0, "byte 40")
    store.directory.begin_anew(TOPIC, 0)
    fill(store.open(), 3)
    store.flush()
    log = store.reopen()
    assert (log.end_offset, log.lost_offsets_total, log.damage) == (3, 0, "")


def test_whoever_died_between_putting_aside_and_taking_the_mark_away_has_finished(store: Store) -> None:
    filled(store)
    assert store.directory is not None
    store.directory.mark_for_refill(TOPIC, 0, "byte 40")
    store.kill()
    os.rename(store.partition_path, store.partition_path.with_name(f"{PARTITION_DIRECTORY}.00000000.deleted"))
    log = store.open()
    assert store.directory is not None
    assert store.directory.refills == set()
    assert log.end_offset == 0
    assert not list(store.path.glob(f"*{REFILL}"))


def test_a_deleted_partition_takes_its_mark_along(store: Store) -> None:
    filled(store)
    assert store.directory is not None
    store.directory.mark_for_refill(TOPIC, 0, "byte 40")
    store.directory.delete_partition(TOPIC, 0)
    assert store.directory.refills == set()
    assert not list(store.path.glob(f"*{REFILL}"))


def test_mapped_readers_keep_their_views_and_are_told_that_the_log_was_replaced(store: Store) -> None:
    log = filled(store)
    assert store.directory is not None
    reader = LocalLog(store.path, store.page_path, log.row, TOPIC, 0)
    batches = reader.read(0, 1 << 20)
    views = [bytes(view) for _, view in batches]
    store.directory.mark_for_refill(TOPIC, 0, "byte 40")
    store.directory.begin_anew(TOPIC, 0)
    for opened in (False, True):
        if opened:
            fill(store.open())
            store.flush()
        with pytest.raises(LogTruncation):
            reader.marks()
    assert [bytes(view) for _, view in batches] == views


@pytest.mark.parametrize("segment", [0, -1])
def test_a_scrub_finds_a_flipped_bit_in_any_segment_and_goes_on_behind_it(store: Store, segment: int) -> None:
    log = filled(store)
    path = sorted(store.partition_path.glob("*.log"))[segment]
    base = int(path.stem)
    assert log.segment_count > 3
    assert [log.scrub(300)[1] for _ in range(40)] == [""] * 40
    flip(path, 100)
    found = [reason for _ in range(log.segment_count * 10) if (reason := log.scrub(300)[1])]
    assert found
    assert all(str(path) in reason and "byte 0" in reason for reason in found), found
    whole = [header.base_offset for header, _ in stored(log, base + 1)]
    assert whole[0] == base + 1
    assert log.scrub(1 << 20)[1] or log.scrub(1 << 20)[1], "the next round finds it again"


def test_a_scrub_of_small_batches_takes_some_at_a_time_and_finds_what_lies_behind_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    log = store.open()
    fill(log, 250)
    store.flush()
    sizes = [header.padded_size for header, _ in stored(log, 0)]
    flip(first_segment(store), sum(sizes[:-1]) + 100)
    assert [bool(log.scrub(1 << 20)[1]) for _ in range(4)] == [False, False, True, False]


def test_a_scrub_misses_a_segment_that_somebody_deleted(store: Store) -> None:
    filled(store)
    log = store.reopen()
    gone = sorted(store.partition_path.glob("*.log"))[1]
    gone.unlink()
    found = [reason for _ in range(3) if (reason := log.scrub(1 << 20)[1])]
    assert found
    assert all(f"{gone} is gone" in reason for reason in found)


def test_a_scrub_of_an_empty_and_of_a_trimmed_log_finds_nothing(store: Store) -> None:
    log = store.open()
    assert log.scrub(1 << 20)[1] == ""
    fill(log)
    store.flush()
    log.delete_records(7)
    assert log.scrub(100)[1] == ""
    log.delete_records(log.high_watermark)
    assert [log.scrub(1 << 20)[1] for _ in range(3)] == [""] * 3


def test_recovery_names_the_file_and_the_place_of_damage(store: Store) -> None:
    log = store.open()
    for _ in range(3):  # what comes later names a high watermark, which proves that this was flushed
        fill(log, 2)
        store.flush()
    store.kill()
    flip(first_segment(store), 300)
    damage = store.open().damage
    assert str(first_segment(store)) in damage
    assert "byte 216" in damage


def test_a_reader_that_looks_away_while_its_partition_goes_and_comes_back_is_told(store: Store) -> None:
    log = filled(store)
    reader = LocalLog(store.path, store.page_path, log.row, TOPIC, 0)
    assert reader.read(0, 1 << 20)
    assert store.directory is not None
    store.directory.delete_partition(TOPIC, 0)
    again = filled(store)
    assert again.row == log.row
    with pytest.raises(LogTruncation):
        reader.read(0, 1 << 20)
    assert LocalLog(store.path, store.page_path, again.row, TOPIC, 0).read(0, 1 << 20)


def test_a_deleted_partition_that_was_not_opened_gives_its_row_back(store: Store) -> None:
    row = filled(store).row
    store.kill()
    directory = store.open_directory()
    directory.delete_partition(TOPIC, 0)
    assert directory._page.read(row) is None
    assert filled(store).row == row
