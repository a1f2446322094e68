"""The embedded store: nothing acknowledged is lost, nobody else's file is touched, damage is found."""

from __future__ import annotations

import os
import select
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokerd.control.embedded import EmbeddedStore
from brokerd.control.image import ClusterImage
from brokerd.control.records import (
    BrokerConfigsRecord,
    BrokerRecord,
    DeletedTopicRecord,
    PartitionRecord,
    ProducerIdsRecord,
    Put,
    Record,
    Remove,
    TopicRecord,
    VersionRecord,
    encode_record,
)
from brokerd.control.store import MetadataStore
from ingest.errors import Fenced, ForeignDirectory, StorageError
from tests.brokerd.control.harness import CLUSTER_ID, ThreadLifeline
from tests.processes import Processes

ROOT = Path(__file__).parents[3]
TOPIC_ID = bytes(range(16))
RECORDS: list[Record] = [
    VersionRecord(7),
    ProducerIdsRecord(5000),
    BrokerConfigsRecord({"log.retention.ms": "5"}),
    BrokerRecord(1, 2, 3, "directory", ["ipc:///x"], "boot", "/data", "/page", alive=False, past_incarnations=[9]),
    TopicRecord(TOPIC_ID, "sensors", {"retention.ms": "1"}),
    PartitionRecord(topic_id=TOPIC_ID, partition=0, leader=1, replicas=[1], isr=[1], leader_epoch=4, partition_epoch=5),
    PartitionRecord(topic_id=TOPIC_ID, partition=1, leader=1, replicas=[1], isr=[1], leader_epoch=0, partition_epoch=0),
    DeletedTopicRecord(bytes(16), "gone", 6),
]


class Candidate:
    """A store with the two arguments of a campaign."""

    def __init__(self, directory: Path, cluster_id: str = CLUSTER_ID) -> None:
        self.store: MetadataStore = EmbeddedStore(directory, cluster_id=cluster_id)
        self.lifeline = ThreadLifeline()
        self.epoch = -1

    def win(self) -> ClusterImage:
        epoch = self.store.campaign(self.lifeline.stop_fd, self.lifeline.beat)
        assert epoch is not None
        self.epoch = epoch
        return self.store.load()

    def put(self, *records: Record) -> None:
        self.store.commit([Put(record) for record in records], controller_epoch=self.epoch)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "controller"


@pytest.fixture
def active(directory: Path) -> Iterator[Candidate]:
    candidate = Candidate(directory)
    candidate.win()
    yield candidate
    candidate.store.resign()


def contents(image: ClusterImage) -> set[bytes]:
    return {encode_record(record) for record in image.records()}


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name.startswith("meta.db")}


def test_the_next_controller_reads_what_the_last_one_committed(directory: Path) -> None:
    first, second = Candidate(directory), Candidate(directory)
    assert contents(first.win()) == contents(ClusterImage())
    first.put(*RECORDS)
    first.store.resign()
    assert contents(second.win()) == {encode_record(record) for record in RECORDS}
    second.store.commit(
        [Remove(RECORDS[4]), Remove(RECORDS[5]), Remove(RECORDS[6]), Remove(RECORDS[7])],
        controller_epoch=second.epoch,
    )
    second.store.resign()
    third = Candidate(directory)
    assert contents(third.win()) == {encode_record(record) for record in RECORDS[:4]}
    assert [first.epoch, second.epoch, third.epoch] == [1, 2, 3]
    third.store.resign()


def test_a_commit_of_an_earlier_controller_is_fenced_and_changes_nothing(active: Candidate) -> None:
    active.put(VersionRecord(1))
    for epoch in (active.epoch - 1, active.epoch + 1):
        with pytest.raises(Fenced):
            active.store.commit([Put(VersionRecord(9))], controller_epoch=epoch)
    assert active.store.load().version == 1


def test_nothing_is_committed_after_resigning(active: Candidate) -> None:
    active.store.resign()
    with pytest.raises(Fenced):
        active.put(VersionRecord(1))


def test_presence_and_changes_from_outside_are_nothing_on_one_machine(active: Candidate) -> None:
    active.store.register_broker(1, 1)
    assert active.store.wait_for_change(10_000) == []


# ---- whose file ------------------------------------------------------------------------------------------------------


@pytest.fixture
def used(directory: Path) -> Path:
    """A directory left by a controller that was killed: its last commits are in the log only."""
    candidate = Candidate(directory)
    candidate.win()
    candidate.put(*RECORDS)
    aside = directory.with_name("killed")
    shutil.copytree(directory, aside)
    candidate.store.resign()
    shutil.rmtree(directory)
    aside.rename(directory)
    assert (directory / "meta.db-wal").stat().st_size > 0
    return directory


def test_a_killed_controllers_commits_are_there(used: Path) -> None:
    candidate = Candidate(used)
    assert contents(candidate.win()) == {encode_record(record) for record in RECORDS}
    candidate.store.resign()


def test_another_clusters_store_is_refused_and_not_touched(used: Path) -> None:
    before = files(used)
    with pytest.raises(ForeignDirectory, match="belongs to cluster test-cluster, not to another"):
        Candidate(used, "another").win()
    assert files(used) == before


def test_a_newer_format_is_refused_and_not_touched(directory: Path) -> None:
    candidate = Candidate(directory)
    candidate.win()
    candidate.store.resign()
    with sqlite3.connect(directory / "meta.db") as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    before = files(directory)
    with pytest.raises(ForeignDirectory, match="format 2; this version reads up to 1"):
        Candidate(directory).win()
    assert files(directory) == before


def test_another_programs_database_is_refused_and_not_touched(directory: Path) -> None:
    directory.mkdir()
    with sqlite3.connect(directory / "meta.db") as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    before = files(directory)
    with pytest.raises(ForeignDirectory, match="not a Forebay metadata store"):
        Candidate(directory).win()
    assert files(directory) == before


def test_a_refused_candidate_does_not_keep_the_lock(used: Path) -> None:
    with pytest.raises(ForeignDirectory):
        Candidate(used, "another").win()
    candidate = Candidate(used)
    candidate.win()
    candidate.store.resign()


def test_a_missing_store_in_a_used_directory_is_no_new_cluster(used: Path) -> None:
    (used / "meta.db").unlink()
    with pytest.raises(StorageError, match=r"meta\.db is missing"):
        Candidate(used).win()
    (used / "meta.db-wal").unlink()
    with pytest.raises(StorageError, match=r"meta\.db is missing"):
        Candidate(used).win()
    assert not (used / "meta.db").exists()


def test_half_a_new_store_is_made_anew(directory: Path) -> None:
    directory.mkdir()
    (directory / "meta.db.new").write_bytes(b"half")
    candidate = Candidate(directory)
    candidate.win()
    candidate.store.resign()
    assert not (directory / "meta.db.new").exists()


def test_files_are_the_services_alone(active: Candidate, directory: Path) -> None:
    assert directory.stat().st_mode & 0o077 == 0
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_directory_that_can_not_be_made_is_a_plain_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        Candidate(tmp_path / "file" / "controller").win()


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_found_or_harmless(directory: Path, tmp_path: Path) -> None:
    candidate = Candidate(directory)
    candidate.win()
    candidate.put(*RECORDS)
    candidate.store.resign()
    expected = {encode_record(record) for record in RECORDS}
    whole = (directory / "meta.db").read_bytes()
    assert not (directory / "meta.db-wal").exists()
    refusals = []
    for position in range(0, len(whole), 89):
        copy = tmp_path / "copy"
        copy.mkdir()
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        (copy / "meta.db").write_bytes(damaged)
        other = Candidate(copy)
        try:
            assert contents(other.win()) == expected, f"byte {position}"
        except StorageError as error:
            refusals.append(str(error))
        finally:
            other.store.resign()
        shutil.rmtree(copy)
    assert len(refusals) > 10
    assert all("meta.db" in refusal for refusal in refusals)


@pytest.mark.parametrize("keep", [0, 1, 100, 4096, 6000])
def test_a_cut_file_is_refused(directory: Path, keep: int) -> None:
    candidate = Candidate(directory)
    candidate.win()
    candidate.put(*RECORDS)
    candidate.store.resign()
    os.truncate(directory / "meta.db", keep)
    with pytest.raises(StorageError, match=r"meta\.db"):
        Candidate(directory).win()


def test_a_lost_record_is_found(directory: Path) -> None:
    candidate = Candidate(directory)
    candidate.win()
    candidate.put(*RECORDS)
    candidate.store.resign()
    with sqlite3.connect(directory / "meta.db") as db:
        db.execute("DELETE FROM nodes WHERE path LIKE '%/partitions/0'")
    db.close()
    with pytest.raises(StorageError, match="don't fit together"):
        Candidate(directory).win()


# ---- election --------------------------------------------------------------------------------------------------------


def test_a_standby_waits_and_beats_until_it_is_told_to_stop(active: Candidate, directory: Path) -> None:
    standby = Candidate(directory)
    result: list[object] = []
    thread = threading.Thread(
        target=lambda: result.append(standby.store.campaign(standby.lifeline.stop_fd, standby.lifeline.beat))
    )
    thread.start()
    while standby.lifeline.beats < 2:
        assert thread.is_alive()
        time.sleep(0.01)
    standby.lifeline.stop()
    thread.join(5)
    assert result == [None]
    # the thread it left behind in flock() must not win later
    active.store.resign()
    next_one = Candidate(directory)
    next_one.win()
    next_one.store.resign()


def test_a_resignation_lets_the_standby_win_at_once(active: Candidate, directory: Path) -> None:
    standby = Candidate(directory)
    thread = threading.Thread(target=standby.win)
    thread.start()
    while standby.lifeline.beats < 1:
        time.sleep(0.01)
    active.store.resign()
    thread.join(1)
    assert standby.epoch == active.epoch + 1
    standby.store.resign()


def test_a_replaced_lock_file_is_noticed(active: Candidate, directory: Path) -> None:
    standby = Candidate(directory)
    errors: list[StorageError] = []

    def wait() -> None:
        try:
            standby.win()
        except StorageError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while standby.lifeline.beats < 1:
        time.sleep(0.01)
    (directory / "lock").rename(directory / "lock.old")
    (directory / "lock").write_text("")
    active.store.resign()
    thread.join(5)
    assert "was replaced" in str(errors[0])


# ---- killed and full -------------------------------------------------------------------------------------------------


def start_candidate(processes: Processes, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.brokerd.control.candidate", *arguments]
    return processes.start(command, cwd=ROOT, stdout=subprocess.PIPE)


def test_sigkill_loses_no_acknowledged_commit_and_epochs_only_rise(directory: Path, processes: Processes) -> None:
    acked = epoch = 0
    for run in range(6):
        child = start_candidate(processes, "commit", str(directory))
        assert child.stdout is not None
        said = b""
        while said.count(b"acked") < 5 + 7 * run:
            assert select.select([child.stdout], [], [], 10)[0], "nothing acknowledged"
            said += os.read(child.stdout.fileno(), 65536)
        child.kill()
        while piece := os.read(child.stdout.fileno(), 65536):
            said += piece
        words = [line.split() for line in said.decode().splitlines()]
        epochs = [int(number) for what, number in words if what == "epoch"]
        assert epochs == [epoch + 1]
        epoch = epochs[0]
        acked = max(int(number) for what, number in words if what == "acked")
        reader = Candidate(directory)
        image = reader.win()
        reader.store.resign()
        epoch = reader.epoch
        assert acked <= image.version <= acked + 1
        assert image.next_producer_id == image.version * 1000, "half a commit"


@pytest.mark.needs("tmpfs_mount")
def test_a_full_disk_refuses_cleanly_and_recovers(tmp_path: Path, processes: Processes) -> None:
    script = (
        f"mount -t tmpfs -o size=6m none {tmp_path} && "
        f"exec {sys.executable} -m tests.brokerd.control.candidate full {tmp_path}"
    )
    child = processes.start(
        ["unshare", "-m", "sh", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = child.communicate(timeout=30)
    assert out.endswith(b"ok\n"), (out, err)


def test_a_thousand_partitions_are_one_quick_commit(active: Candidate) -> None:
    records: list[Record] = [TopicRecord(TOPIC_ID, "t", {})]
    records += [
        PartitionRecord(
            topic_id=TOPIC_ID, partition=index, leader=1, replicas=[1], isr=[1], leader_epoch=1, partition_epoch=1
        )
        for index in range(1000)
    ]
    started = time.perf_counter()
    active.put(*records)
    assert time.perf_counter() - started < 10  # about 15 ms
    assert active.store.load().partition_count() == 1000
