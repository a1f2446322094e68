"""Cleaned segments in the place of others: crashes at every step, and who changes the log meanwhile."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from brokerd.storage.compaction.cleaned import Cleaned, CleanedRange, decode_cleaned, encode_cleaned
from brokerd.storage.compaction.run import Run
from brokerd.storage.log import Log
from ingest.failpoints import arm
from ingest.log.names import swap_name
from tests.brokerd.storage.compaction.cleaning import (
    MAP_BYTES,
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
from tests.brokerd.storage.stores import Store, flip

MakeStore = Callable[..., Store]


@pytest.fixture
def make(make_store: MakeStore) -> MakeStore:
    def make_compacted(**config: Any) -> Store:
        return make_store(**{"cleanup_policy": "compact", "segment_bytes": 16384, "index_interval_bytes": 0, **config})

    return make_compacted


def fill(store: Store, log: Log, seed: int = 0, count: int = 60) -> None:
    dice = random.Random(seed)
    for _ in range(count):
        records = [Item(b"k%d" % dice.randrange(12), bytes(dice.randrange(600))) for _ in range(dice.randint(1, 4))]
        log.append([batch_of(records, producer=(-1, -1, -1))], wall_ms=0)
    seal(store, log)


def expected(log: Log) -> list[tuple[int, Item]]:
    latest = {item.key: (offset, item) for offset, item in read_log(log)}
    return sorted(latest.values())


def leftovers(store: Store) -> list[str]:
    return [name for name in os.listdir(store.partition_path) if ".swap" in name or ".cleaned" in name]


def begin(log: Log, limit: int = NO_LIMIT) -> str:
    """Have a run write everything, and put nothing in place yet; return its number."""
    run = os.urandom(8).hex()
    dirt = log.dirt()
    purge_end = log.compaction.purge_end(log.config, dirt, limit=limit)
    job = log.begin_compaction(dirt, run, purge_end=purge_end, map_bytes_max=MAP_BYTES, io_bytes_per_s=0)
    Run(job, b"seed", lambda report: log.compaction.take(run, report)).run()  # type: ignore[arg-type]
    return run


def end(log: Log) -> str:
    """Put in place what is written; return how the run ended."""
    while (ended := log.compaction.step(log.config)) is None:
        log._disk.join_background()
    return ended


@pytest.mark.parametrize("lost", ["", "*.index", "*.timeindex", "../checkpoint", "compaction"])
def test_a_crash_at_any_step_leaves_the_old_segments_or_the_new(make: MakeStore, lost: str) -> None:
    store = make()
    log = store.open()
    fill(store, log)
    clean(store, log)
    fill(store, log, seed=1)
    wanted, end_offset = expected(log), log.end_offset
    store.close()
    kept = store.root.with_name("kept")
    shutil.copytree(store.root, kept)
    step, names = 0, [""]
    while names:
        shutil.rmtree(store.root)
        shutil.copytree(kept, store.root)
        log, names = store.open(), []
        try:
            clean(store, log, crash_at=step, names=names)
            names = []
        except Crash:
            log._disk.join_background()
        store.kill()
        for path in store.partition_path.glob(lost) if lost else ():
            path.unlink()
        log = store.open()
        found = read_log(log)
        assert set(wanted) <= set(found), names[-1:]
        assert expected(log) == wanted
        assert log.end_offset == end_offset
        assert read_map(store, log) == found
        assert leftovers(store) == []
        seal(store, log)
        clean(store, log)
        assert read_log(log) == read_map(store, log) == wanted
        store.close()
        step += 1
    assert step > 10, "each failpoint was met"


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@pytest.mark.parametrize("change", ["delete", "cut", "restart", "close"])
def test_who_changes_the_segments_settles_what_is_under_way(make: MakeStore, steps: int, change: str) -> None:
    store = make()
    log = store.open()
    fill(store, log)
    wanted = dict(expected(log))
    begin(log)
    for _ in range(steps):
        assert log.compaction.step(log.config) is None
        log._disk.join_background()
    replaced = steps >= 2  # marked, replaced, done
    middle = log._segments.bases[1]
    if change == "delete":
        log.delete_records(middle)
        wanted = {offset: item for offset, item in wanted.items() if offset >= middle}
    elif change == "cut":
        log.truncate_to(middle + 1)
        wanted = {offset: item for offset, item in wanted.items() if offset < log.end_offset}
    elif change == "restart":
        log.restart_at(10_000)
        wanted = {}
    else:
        log.close()
    if change in ("cut", "restart"):
        assert end(log) == "the log was cut"
        assert leftovers(store) == []
    elif change == "delete":
        ended = end(log)
        assert ended in ("", "the log's segments were changed meanwhile") or "have changed" in ended
    for _ in range(2):
        log = store.reopen()
        assert wanted.items() <= dict(read_log(log)).items()
        assert read_map(store, log) == [pair for pair in read_log(log) if pair[0] < log.high_watermark]
        assert leftovers(store) == []
        assert replaced or change == "delete" or log.cleaned_end == 0


def test_a_run_whose_segments_were_all_deleted_meanwhile_ends_well(make: MakeStore) -> None:
    store = make()
    log = store.open()
    fill(store, log)
    begin(log)
    log.delete_records(log.high_watermark)
    assert end(log) == ""
    assert read_log(log) == []
    assert read_log(store.reopen()) == []


def test_what_is_appended_behind_a_cut_below_what_was_clean_is_dirty(make: MakeStore) -> None:
    """Else its tombstones would be taken for old ones, and dropped before the values they delete."""
    store = make(delete_retention_ms=10_000)
    log = store.open()
    age(store, 1000)
    log.append([batch_of([Item(b"a", b"1")])], wall_ms=0)
    log.append([batch_of([Item(b"b", b"%d" % n) for n in range(9)])], wall_ms=0)
    seal(store, log)
    clean(store, log)
    assert log.cleaned_end == 10
    log.truncate_to(1)
    store.kill()
    log = store.open()
    assert log.cleaned_end == 1
    log.append([batch_of([Item(b"a", None)])], wall_ms=0)
    log.append([batch_of([Item(b"c", b"%d" % n) for n in range(9)])], wall_ms=0)
    seal(store, log)
    age(store, 60_000)
    clean(store, log)
    assert [(i.key, i.value) for _, i in read_log(log)] == [(b"a", None), (b"c", b"8")]


def test_tombstones_outlive_runs_that_find_more_to_clean(make: MakeStore) -> None:
    store = make(delete_retention_ms=10_000)
    log = store.open()
    age(store, 1000)
    log.append([batch_of([Item(b"a", None)])], wall_ms=0)
    for turn in range(6):
        log.append([batch_of([Item(b"b", b"%d" % turn)])], wall_ms=0)
        seal(store, log)
        clean(store, log)
        age(store, 1000 + 2000 * (turn + 1))
        assert (0, Item(b"a", None)) in read_log(log), turn
    log.append([batch_of([Item(b"b", b"x")])], wall_ms=0)
    seal(store, log)
    age(store, 14_000)
    clean(store, log)
    assert [item.key for _, item in read_log(log)] == [b"b"]


def test_what_a_worker_of_a_dead_broker_writes_is_removed_and_harms_nothing(make: MakeStore) -> None:
    store = make()
    log = store.open()
    fill(store, log)
    before = read_log(log)
    begin(log)
    assert len(leftovers(store)) >= 3
    log = store.reopen()
    assert leftovers(store) == []
    assert read_log(log) == before
    (store.partition_path / f"{0:020d}-{'ab' * 8}.log.cleaned").write_bytes(b"by a worker that has not noticed yet")
    assert read_log(store.reopen()) == before
    assert leftovers(store) == []


def test_a_mark_that_should_have_gone_harms_nothing(make: MakeStore) -> None:
    """After a power cut it may be back, over segments that were made since."""
    store = make()
    log = store.open()
    fill(store, log)
    clean(store, log)
    fill(store, log, seed=2)
    bases = log._segments.bases
    before = read_log(log)
    mark = store.partition_path / swap_name(bases[0], bases[-1], "00" * 8)
    mark.touch()
    log = store.reopen()
    assert read_log(log) == read_map(store, log) == before
    assert not mark.exists()


@pytest.mark.parametrize("action", ["eio", "enospc"])
def test_an_error_while_segments_are_replaced_fails_the_directory_and_loses_nothing(
    make: MakeStore, action: str
) -> None:
    store = make()
    log = store.open()
    fill(store, log)
    wanted = expected(log)
    begin(log)
    arm(f"compaction.replaced={action}@1")
    try:
        with pytest.raises(Exception, match="failpoint"):
            end(log)
    finally:
        arm("")
    assert store.directory is not None
    assert store.directory.failed
    log = store.reopen()
    assert expected(log) == wanted


def test_a_damaged_hint_of_what_is_clean_makes_everything_dirty(make: MakeStore) -> None:
    store = make()
    log = store.open()
    fill(store, log)
    clean(store, log)
    wanted = read_log(log)
    flip(store.partition_path / "compaction", 20)
    log = store.reopen()
    assert log.cleaned_end == 0
    seal(store, log)
    clean(store, log)
    assert read_log(log) == wanted


def test_what_is_clean_is_read_back_as_it_was_written_or_not_at_all() -> None:
    cleaned = Cleaned([CleanedRange(10, 5, 7, 3), CleanedRange(2**40, 8, 9, 0)])
    data = encode_cleaned(cleaned)
    assert decode_cleaned(data) == cleaned
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            assert decode_cleaned(bytes(changed)) is None
    assert decode_cleaned(data[:-1]) is None
    assert decode_cleaned(b"") is None


def test_ranges_are_few_however_often_a_log_is_cleaned() -> None:
    """Each is cleaned anew before its tombstones may go; they stay for a quarter longer than they have to, at most."""
    cleaned, retention_ms = Cleaned(), 1000
    for turn in range(1, 500):
        age_ms = 10 * turn
        counts = [1] * len(cleaned.ranges)
        cleaned = cleaned.after_run(turn, [*counts, 1], age_ms=age_ms, retention_ms=retention_ms)
        assert len(cleaned.ranges) <= 7
        expired = cleaned.expired_end(age_ms, retention_ms)
        assert expired <= max(0, turn - 100)
        assert expired >= turn - 127
    assert cleaned.cut(450).end_offset == 450
    assert cleaned.cut(0) == Cleaned()
    assert cleaned.cut(10_000) == cleaned
