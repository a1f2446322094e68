"""The directory: who may open it, what is on it, and what is done for all its partitions."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from brokerd.storage.checkpoint import (
    PARTITION,
    RECORD_SIZE,
    Checkpoint,
    CheckpointRecord,
    decode_record,
    encode_record,
)
from brokerd.storage.directory import LogDirectory
from brokerd.storage.disk import Disk, RunningTime
from brokerd.storage.flusher import Flusher
from brokerd.storage.history import Survey, survey
from brokerd.storage.log import Log
from ingest.errors import ConfigError, DirectoryLocked, ForeignDirectory, StorageError
from ingest.log.names import partition_name
from tests.brokerd.storage.stores import TOPIC, Store, bodies, make_batch

MakeStore = Callable[..., Store]


def open_as(store: Store, cluster_id: str = "cluster", broker_id: int = 1) -> LogDirectory:
    return LogDirectory.open(
        store.path,
        cluster_id=cluster_id,
        broker_id=broker_id,
        page_path=store.page_path,
        failed_dir=store.failed_dir,
    )


def test_one_directory_has_one_owner(store: Store) -> None:
    store.open_directory()
    with pytest.raises(DirectoryLocked, match=f"pid {os.getpid()}"):
        open_as(store)
    store.close()
    open_as(store).close()


def cut_power(store: Store) -> None:
    store.kill()
    store.page_path.unlink()


def test_after_a_kill_all_is_there_and_after_a_power_cut_it_may_not_be_until_the_cluster_knows(store: Store) -> None:
    assert store.open_directory().intact
    store.kill()
    assert store.open_directory().intact, "the page cache has outlived the process"
    cut_power(store)
    assert not store.open_directory().intact
    store.kill()
    assert not store.open_directory().intact, "nobody has heard of it yet"
    store.close()
    directory = store.open_directory()
    assert not directory.intact
    directory.registered()
    store.kill()
    assert store.open_directory().intact


def test_what_was_closed_in_good_order_is_there_after_a_power_cut(store: Store) -> None:
    store.open().append([make_batch()], wall_ms=1)
    store.close()
    store.page_path.unlink()
    assert store.open_directory().intact


def test_logs_without_a_checkpoint_are_proved_by_nothing(store: Store) -> None:
    store.open().append([make_batch()], wall_ms=1)
    store.close()
    (store.path / "checkpoint").unlink()
    assert not store.open_directory().intact


def test_logs_that_nobody_opened_since_a_kill_are_not_called_closed(store: Store) -> None:
    store.open().append([make_batch()], wall_ms=1)
    store.kill()
    store.open_directory()
    store.close()  # told to stop before the controller said what to open: nothing of the killed process was flushed
    store.page_path.unlink()
    assert not store.open_directory().intact
    store.open()
    store.close()
    store.open_directory()
    store.close()
    store.page_path.unlink()
    assert not store.open_directory().intact, "the cluster does not know yet"


def test_a_directory_of_another_cluster_or_broker_is_refused(store: Store) -> None:
    store.open_directory()
    store.close()
    with pytest.raises(ForeignDirectory, match="cluster"):
        open_as(store, cluster_id="other")
    with pytest.raises(ForeignDirectory, match="broker 1"):
        open_as(store, broker_id=2)
    open_as(store).close()


def test_a_newer_format_is_refused_and_nothing_touched(store: Store) -> None:
    store.path.mkdir(parents=True, mode=0o750)
    identity = store.path / "directory.json"
    for text in (json.dumps({"format": 2, "new": "things"}), "not json", "[]"):
        identity.write_text(text)
        with pytest.raises(ForeignDirectory):
            open_as(store)
        assert [entry.name for entry in store.path.iterdir()] == ["directory.json"]
    identity.unlink()


def test_partitions_without_an_identity_are_refused(store: Store) -> None:
    store.open()
    store.close()
    (store.path / "directory.json").rename(store.root / "aside")
    with pytest.raises(ForeignDirectory, match=r"directory\.json is missing"):
        open_as(store)
    (store.root / "aside").rename(store.path / "directory.json")


def test_a_directory_others_may_write_is_refused(store: Store) -> None:
    store.path.mkdir(parents=True)
    store.path.chmod(0o777)
    with pytest.raises(StorageError, match="chmod"):
        open_as(store)
    with pytest.raises(ConfigError, match="local"):
        LogDirectory.open(store.path, cluster_id="", broker_id=1, page_path="p", failed_dir="f", local_read="world")


def test_without_local_read_nobody_else_may_look(make_store: MakeStore) -> None:
    store = make_store()
    store.options["local_read"] = "off"
    store.open()
    assert store.path.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in store.path.rglob("*") if p.is_file()} == {0o600}
    assert store.page_path.stat().st_mode & 0o777 == 0o600


def test_the_identity_stays_and_the_incarnation_changes(store: Store) -> None:
    first = store.open_directory()
    identity, incarnation = first.directory_id, first.incarnation
    store.close()
    second = store.open_directory()
    assert second.directory_id == identity
    assert second.incarnation != incarnation


def test_partitions_keep_their_rows_over_a_restart(make_store: MakeStore) -> None:
    store = make_store()
    rows = {partition: store.open(partition).row for partition in range(300)}
    assert len(set(rows.values())) == 300
    store.close()
    store.open_directory()
    for partition in reversed(range(300)):
        assert store.open(partition).row == rows[partition]


def test_a_deleted_partition_goes_aside_and_then_away(make_store: MakeStore) -> None:
    store = make_store(file_delete_delay_ms=1000)
    log = store.open()
    log.append([make_batch(b"old")], wall_ms=0)
    directory = store.directory
    assert directory is not None
    directory.maintain(5000)
    directory.delete_partition(TOPIC, 0)
    assert directory.found() == []
    directory.delete_partition(TOPIC, 0)  # again: nothing to do
    aside = [entry for entry in store.path.iterdir() if entry.name.endswith(".deleted")]
    assert len(aside) == 1
    log = directory.partition(TOPIC, 0, store.config)
    assert log.end_offset == 0
    directory.maintain(5999)
    assert aside[0].exists()
    directory.maintain(6001)
    directory._disk.join_background()
    assert not aside[0].exists()
    assert directory.found() == [(TOPIC, 0)]


@pytest.mark.parametrize("killed_between", [False, True])
def test_a_partition_that_comes_back_is_not_taken_for_what_it_was(store: Store, killed_between: bool) -> None:
    log = store.open()
    for _ in range(9):
        log.append([make_batch()], wall_ms=0)
    store.flush()
    log.advance_high_watermark(9)
    assert store.directory is not None
    store.directory.checkpoint()
    if killed_between:
        store.kill()
        store.open_directory()
    store.directory.delete_partition(TOPIC, 0)
    log = store.open()
    log.append([make_batch()], wall_ms=0)
    log = store.reopen()
    assert (log.end_offset, log.lost_offsets_total) == (1, 0)
    assert log.high_watermark == 0


def test_what_a_dead_owner_had_set_aside_is_removed(store: Store) -> None:
    store.open()
    assert store.directory is not None
    store.directory.delete_partition(TOPIC, 0)
    store.kill()
    directory = store.open_directory()
    directory.maintain(1)
    directory._disk.join_background()
    assert not [entry for entry in store.path.iterdir() if entry.name.endswith(".deleted")]
    assert directory.found() == []


def test_what_a_dead_owner_did_not_get_to_rename_is_removed(store: Store) -> None:
    store.open()
    store.kill()
    (store.path / "checkpoint.17.tmp").write_bytes(b"half")
    store.open()
    assert not list(store.path.glob("*.tmp"))


def test_foreign_entries_are_no_partitions(store: Store) -> None:
    directory = store.open_directory()
    (store.path / "lost+found").mkdir()
    (store.path / (partition_name(TOPIC, 3) + "x")).mkdir()
    assert directory.found() == []
    assert directory.found_ends() == []


def test_the_flusher_commits_groups_in_the_background(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=65536)
    logs = [store.open(partition) for partition in range(20)]
    done = threading.Event()
    flusher = Flusher(done.set)
    try:
        for _ in range(5):
            for log in logs:
                log.append([make_batch(bytes(30_000))], wall_ms=0)
                flusher.request(log)
            while any(log.flushed_end < log.end_offset for log in logs):
                assert done.wait(20)
                done.clear()
                for log, end in flusher.drain():
                    assert isinstance(end, int)
                    log.flushed(end)
        assert flusher.latency.snapshot() is not None
    finally:
        flusher.close()
    assert all(log.unflushed_bytes == 0 and not log.names_unflushed for log in logs)


def test_a_flush_is_under_way_until_the_last_that_was_asked_for_is_done(store: Store) -> None:
    log = store.open()
    done, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def hold() -> None:
        done.release()
        go_on.acquire(timeout=5)

    flusher = Flusher(hold)
    try:
        log.append([make_batch()], wall_ms=0)
        flusher.request(log)
        assert done.acquire(timeout=20)
        flusher.request(log)  # while the first is not drained: all three end at the same offset
        flusher.request(log)  # and this takes the place of the second
        for under_way in (True, False):
            ((_, end_offset),) = flusher.drain()
            log.flushed(end_offset)
            assert log.flush_under_way is under_way
            go_on.release()
            assert not under_way or done.acquire(timeout=20)
    finally:
        flusher.close()
    log.truncate_to(0)


def test_a_flush_vouches_only_for_what_was_there_when_it_was_asked_for(store: Store) -> None:
    log = store.open()
    log.append([make_batch()], wall_ms=0)
    target = log.flush_target()
    log.append([make_batch()], wall_ms=0)
    assert target.end_offset == 1
    log.flushed(target.end_offset)
    assert log.flushed_end == 1
    log.flushed(0)
    assert log.flushed_end == 1


def test_a_checkpoint_vouches_only_for_what_is_flushed(store: Store) -> None:
    log = store.open()
    directory = store.directory
    assert directory is not None
    log.append([make_batch()] * 3, wall_ms=0)
    store.flush()
    log.append([make_batch()] * 3, wall_ms=0)
    directory.checkpoint()
    record = directory._checkpoint.partitions[TOPIC, 0]
    assert (record.recovery_point, record.high_watermark) == (3, 3)


def test_under_durability_os_data_is_written_back_at_leisure(make_store: MakeStore) -> None:
    store = make_store(durability="os")
    log = store.open()
    store.flush()
    directory = store.directory
    assert directory is not None
    log.append([make_batch()], wall_ms=0)
    assert directory.maintain(1000) == []
    assert directory.maintain(7000) == [log]


def test_how_long_a_deleted_log_was_dirty_says_nothing_of_the_next(make_store: MakeStore) -> None:
    store = make_store(durability="os")
    log = store.open()
    directory = store.directory
    assert directory is not None
    log.append([make_batch()], wall_ms=0)
    assert directory.maintain(1000) == []
    directory.delete_partition(TOPIC, 0)
    assert not directory._dirty_since_ms
    again = store.open()
    assert directory.maintain(6500) == []
    assert directory.maintain(12_000) == [again]


def test_each_log_is_surveyed_once_until_it_is_opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for partition in range(3):
        store.open(partition).append([make_batch(producer=(partition, 0, 0))], wall_ms=0)
    store.kill()
    directory = store.open_directory()
    surveyed = []

    def note(disk: Disk, path: Path, record: CheckpointRecord | None) -> Survey:
        surveyed.append(path)
        return survey(disk, path, record)

    monkeypatch.setattr("brokerd.storage.directory.survey", note)
    for _ in range(2):
        assert [found[3] for found in directory.found_ends()] == [1, 1, 1]
        assert directory.producer_id_max() == 2
    assert len(surveyed) == 3
    store.open(2).append([make_batch(producer=(9, 0, 0))], wall_ms=0)
    directory.delete_partition(TOPIC, 1)
    assert [found[1::2] for found in directory.found_ends()] == [(0, 1), (2, 2)]
    assert directory.producer_id_max() == 9
    directory.delete_partition(TOPIC, 2)
    store.open(2)
    assert [found[3] for found in directory.found_ends()] == [1, 0]
    assert len(surveyed) == 3


def test_a_thousand_empty_partitions_cost_little_space(make_store: MakeStore) -> None:
    store = make_store()
    for partition in range(20):
        store.open(partition)
    used = sum(path.stat().st_blocks * 512 for path in store.path.rglob("*") if path.suffix)
    assert used <= 20 * 65536 + 16384


def make_record(offset: int) -> CheckpointRecord:
    return CheckpointRecord(kind=PARTITION, topic_id=TOPIC, recovery_point=offset, age_ms=offset)


def test_the_checkpoint_takes_the_last_valid_record_and_compacts(tmp_path: Path) -> None:
    disk = Disk(tmp_path, [tmp_path / "mark"], directory_mode=0o750, file_mode=0o640, reserve_bytes=4096)
    checkpoint = Checkpoint(disk)
    for offset in range(100):
        checkpoint.write([make_record(offset)] * 100)
    path = tmp_path / "checkpoint"
    assert path.stat().st_size < 1 << 20
    checkpoint.write([make_record(100)])
    checkpoint.write([make_record(101)])
    assert Checkpoint(disk).partitions[TOPIC, 0] == make_record(101)
    os.truncate(path, path.stat().st_size - 1)
    torn = Checkpoint(disk)
    assert torn.partitions[TOPIC, 0] == make_record(100)
    torn.write([make_record(102)])
    assert Checkpoint(disk).partitions[TOPIC, 0] == make_record(102)


def test_a_checkpoint_record_with_a_flipped_bit_is_not_believed() -> None:
    record = make_record(7)
    data = encode_record(record)
    assert decode_record(data) == record
    for position in range(RECORD_SIZE):
        for bit in range(8):
            bad = bytearray(data)
            bad[position] ^= 1 << bit
            assert decode_record(bytes(bad)) is None


def test_running_time_survives_restarts_and_reboots_and_never_goes_back() -> None:
    time = RunningTime()
    time.restore(100, None)
    time.tick(50_000)
    assert time.age_ms == 100
    time.tick(50_010)
    time.tick(40_000)
    assert time.age_ms == 110
    again = RunningTime()
    again.restore(110, 40_000)  # the same boot: the time in between counts
    again.tick(40_500)
    assert again.age_ms == 610


def test_bodies_come_back_through_close_and_open(store: Store) -> None:
    log: Log = store.open()
    log.append([make_batch(b"a"), make_batch(b"b")], wall_ms=0)
    store.flush()
    store.close()
    log = store.open()
    assert log.flushed_end == log.high_watermark == 2
    assert bodies(log) == [b"a", b"b"]


def test_upkeep_of_a_log_that_nothing_happens_to_is_rare(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    maintain = Log.maintain

    def count(log: Log) -> None:
        looked.append(log.partition)
        maintain(log)

    monkeypatch.setattr(Log, "maintain", count)
    directory = store.open_directory()
    quiet, busy = (directory.create_partition(TOPIC, number, store.config) for number in range(2))
    busy.become_leader(1)
    for second in range(1, 21):
        busy.append([make_batch()], wall_ms=0)
        directory.maintain(1000 * second)
    assert (looked.count(0), looked.count(1)) == (1, 20)
    quiet.alter_config(msgspec.structs.replace(store.config, retention_ms=5))
    directory.maintain(21_000)
    assert looked.count(0) == 2, "what it is asked to do has changed"
    directory.maintain(200_000)
    assert looked.count(0) == 3


def test_a_directory_knows_who_had_it_open_before(store: Store) -> None:
    owners = []
    for _ in range(3):
        directory = store.open_directory()
        assert directory.incarnations == owners
        owners.append(directory.incarnation)
        directory._checkpoint._compact()
        store.close()


def test_a_directory_with_partitions_and_no_checkpoint_proves_nothing(store: Store) -> None:
    assert store.open_directory().intact, "it is new"
    store.open()
    store.close()
    (store.path / "checkpoint").unlink()
    directory = store.open_directory()
    assert not directory.intact
    assert directory.incarnations == []
