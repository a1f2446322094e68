"""What the controller may expect of any metadata store: one contract, over SQLite and over a real ZooKeeper."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brokerd.control.image import ClusterImage
from brokerd.control.records import (
    BrokerConfigsRecord,
    BrokerRecord,
    ClientQuotaRecord,
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
from ingest.errors import Fenced, ForeignDirectory, StorageError
from tests.brokerd.control.harness import Candidate, found_cluster, open_store, partition_record
from tests.processes import Processes
from tests.zookeeper import Ensemble

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


class Place:
    """Where one cluster's records are, and how a test looks at them and damages them from outside."""

    at: str

    def dump(self) -> object:
        """Return all that is there, to be compared."""
        raise NotImplementedError

    def raise_format(self) -> None:
        raise NotImplementedError

    def make_foreign(self) -> None:
        """Put something of another program there, before a store is."""
        raise NotImplementedError

    def remove(self, path: str) -> None:
        raise NotImplementedError

    def flip_bit(self, path: str) -> None:
        raise NotImplementedError

    def bury(self) -> None:
        """End the reign of a controller that was killed, where that takes a time that the test need not wait."""


class EmbeddedPlace(Place):
    def __init__(self, directory: Path) -> None:
        self.at = f"embedded:{directory}"
        self._directory = directory

    def _change(self, sql: str, *arguments: Any) -> None:
        import sqlite3

        self._directory.mkdir(exist_ok=True)
        with contextlib.closing(sqlite3.connect(self._directory / "meta.db", isolation_level=None)) as db:
            db.execute(sql, arguments)

    def dump(self) -> object:
        return {p.name: p.read_bytes() for p in self._directory.iterdir() if p.name.startswith("meta.db")}

    def raise_format(self) -> None:
        self._change("PRAGMA user_version = 2")

    def make_foreign(self) -> None:
        self._change("CREATE TABLE t (x)")

    def remove(self, path: str) -> None:
        self._change("DELETE FROM nodes WHERE path = ?", path)

    def flip_bit(self, path: str) -> None:
        self._change("UPDATE nodes SET value = CAST(replace(value, 'sensors', 'tensors') AS BLOB) WHERE path = ?", path)


class ZookeeperPlace(Place):
    def __init__(self, ensemble: Ensemble, folder: str) -> None:
        self.at = f"zookeeper:{ensemble.connect(folder)}"
        self._ensemble = ensemble
        self._folder = folder

    def dump(self) -> object:
        return self._ensemble.dump(self._folder)

    def raise_format(self) -> None:
        with self._ensemble.client() as client:
            path = f"/{self._folder}/cluster/id"
            client.set(path, client.get(path)[0].replace(b'"format":1', b'"format":2'))

    def make_foreign(self) -> None:
        with self._ensemble.client() as client:
            client.set(f"/{self._folder}/cluster/id", b'{"version":"1","id":"xyz"}')

    def remove(self, path: str) -> None:
        with self._ensemble.client() as client:
            client.delete(f"/{self._folder}/records{path}")

    def flip_bit(self, path: str) -> None:
        with self._ensemble.client() as client:
            full = f"/{self._folder}/records{path}"
            client.set(full, client.get(full)[0].replace(b"sensors", b"tensors"))

    def bury(self) -> None:
        with self._ensemble.client() as client:
            client.delete(f"/{self._folder}/controller")


@pytest.fixture(params=["embedded", pytest.param("zookeeper", marks=pytest.mark.needs("zookeeper"))])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "embedded":
        return EmbeddedPlace(tmp_path / "controller")
    place = ZookeeperPlace(request.getfixturevalue("ensemble"), f"cluster-{uuid.uuid4().hex[:12]}")
    found_cluster(place.at.removeprefix("zookeeper:"))
    return place


@pytest.fixture
def new_candidate(place: Place) -> Iterator[Callable[..., Candidate]]:
    """Return what makes candidates of one cluster; their stores are closed after the test."""
    candidates: list[Candidate] = []

    def make(**options: Any) -> Candidate:
        candidates.append(Candidate(open_store(place.at, **options)))
        return candidates[-1]

    yield make
    for candidate in candidates:
        candidate.store.close()


@pytest.fixture
def active(new_candidate: Callable[..., Candidate]) -> Candidate:
    candidate = new_candidate(endpoint="tcp://active:1")
    candidate.win()
    return candidate


def contents(image: ClusterImage) -> set[bytes]:
    return {encode_record(record) for record in image.records()}


def encoded(records: list[Record]) -> set[bytes]:
    return {encode_record(record) for record in records}


# ---- records ---------------------------------------------------------------------------------------------------------


def test_the_next_controller_reads_what_the_last_one_committed(new_candidate: Callable[..., Candidate]) -> None:
    first, second, third = new_candidate(), new_candidate(), new_candidate()
    assert contents(first.win()) == contents(ClusterImage())
    first.put(*RECORDS)
    assert contents(first.store.load()) == encoded(RECORDS)
    first.store.resign()
    assert contents(second.win()) == encoded(RECORDS)
    second.store.commit([Remove(record) for record in RECORDS[4:]], controller_epoch=second.epoch)
    second.store.resign()
    assert contents(third.win()) == encoded(RECORDS[:4])
    assert [first.epoch, second.epoch, third.epoch] == [1, 2, 3]


def test_a_put_replaces_a_removal_misses_nothing_and_order_does_not_matter(active: Candidate) -> None:
    active.put(*reversed(RECORDS))
    assert contents(active.store.load()) == encoded(RECORDS)
    newer = partition_record(TOPIC_ID, 1, 1, [1], [1], 1, 1)
    active.store.commit([Remove(RECORDS[7]), Put(newer), Remove(newer)], controller_epoch=active.epoch)
    assert contents(active.store.load()) == encoded([*RECORDS[:6], newer]), "a put wins over a removal"
    active.store.commit([Remove(RECORDS[7])], controller_epoch=active.epoch)  # it is not there
    active.store.commit([Remove(record) for record in RECORDS[4:7]], controller_epoch=active.epoch)
    active.put(*RECORDS[4:])
    assert contents(active.store.load()) == encoded(RECORDS)


def test_quotas_of_any_client_id_are_kept_and_go(active: Candidate) -> None:
    before = list(active.store.load().records())
    rates = {"producer_byte_rate": 1, "consumer_byte_rate": 2}
    quotas = [ClientQuotaRecord(client_id, rates) for client_id in ("", "a/b ü.", "..", "<default>")]
    active.put(*quotas)
    assert contents(active.store.load()) == encoded([*before, *quotas])
    active.store.commit([Remove(quota) for quota in quotas], controller_epoch=active.epoch)
    assert contents(active.store.load()) == encoded(before)


def test_a_commit_needs_no_load_before(active: Candidate, new_candidate: Callable[..., Candidate]) -> None:
    active.put(*RECORDS)
    active.store.resign()
    second = new_candidate()
    epoch = second.campaign()
    assert epoch is not None
    newer = partition_record(TOPIC_ID, 1, 1, [1], [1], 1, 1)
    second.store.commit([Put(newer), Put(VersionRecord(8))], controller_epoch=epoch)
    assert contents(second.store.load()) == encoded([VersionRecord(8), *RECORDS[1:6], newer, RECORDS[7]])


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
    assert time.perf_counter() - started < 10  # about 15 ms, and 40 ms
    assert active.store.load().partition_count() == 1000


# ---- whose store -----------------------------------------------------------------------------------------------------


@pytest.fixture
def used(place: Place, new_candidate: Callable[..., Candidate]) -> Place:
    """A store that a controller has resigned from."""
    candidate = new_candidate()
    candidate.win()
    candidate.put(*RECORDS)
    candidate.store.close()
    return place


def test_another_clusters_store_is_refused_and_not_touched(
    used: Place, new_candidate: Callable[..., Candidate]
) -> None:
    before = used.dump()
    with pytest.raises(ForeignDirectory, match="belongs to cluster test-cluster, not to another"):
        new_candidate(cluster_id="another").win()
    assert used.dump() == before


def test_a_newer_format_is_refused_and_not_touched(used: Place, new_candidate: Callable[..., Candidate]) -> None:
    used.raise_format()
    before = used.dump()
    with pytest.raises(ForeignDirectory, match="format 2; this version reads up to 1"):
        new_candidate().win()
    assert used.dump() == before


def test_another_programs_data_is_refused_and_not_touched(
    place: Place, new_candidate: Callable[..., Candidate]
) -> None:
    place.make_foreign()
    before = place.dump()
    with pytest.raises(ForeignDirectory, match="not a Forebay metadata store"):
        new_candidate().win()
    assert place.dump() == before


def test_a_refused_candidate_is_in_nobodys_way(used: Place, new_candidate: Callable[..., Candidate]) -> None:
    with pytest.raises(ForeignDirectory):
        new_candidate(cluster_id="another").win()
    assert contents(new_candidate().win()) == encoded(RECORDS)


def test_a_lost_record_is_found(used: Place, new_candidate: Callable[..., Candidate]) -> None:
    used.remove(RECORDS[5].path)
    with pytest.raises(StorageError, match="don't fit together"):
        new_candidate().win()


def test_a_changed_record_is_found_and_named(used: Place, new_candidate: Callable[..., Candidate]) -> None:
    used.flip_bit(RECORDS[4].path)
    with pytest.raises(StorageError, match=rf"{RECORDS[4].path} is damaged: checksum \w+, expected"):
        new_candidate().win()


# ---- election --------------------------------------------------------------------------------------------------------


def test_a_standby_waits_and_beats_until_it_is_told_to_stop(
    active: Candidate, new_candidate: Callable[..., Candidate]
) -> None:
    standby = new_candidate()
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(standby.campaign()))
    thread.start()
    standby.wait_beats(3)
    standby.lifeline.stop()
    thread.join(5)
    assert result == [None]
    active.put(VersionRecord(1))
    # what the standby left behind must not win later
    active.store.resign()
    assert new_candidate().win().version == 1


def test_a_resignation_lets_the_standby_win_at_once(active: Candidate, new_candidate: Callable[..., Candidate]) -> None:
    standby = new_candidate()
    thread = threading.Thread(target=standby.win)
    thread.start()
    standby.wait_beats(2)
    active.store.resign()
    thread.join(2)
    assert standby.epoch == active.epoch + 1


def test_one_object_may_be_the_controller_again(active: Candidate) -> None:
    active.put(VersionRecord(1))
    active.store.resign()
    assert active.win().version == 1
    assert active.epoch == 2
    active.put(VersionRecord(2))


def test_who_reigns_may_act(active: Candidate) -> None:
    active.store.check()


# ---- killed ----------------------------------------------------------------------------------------------------------


def start_candidate(processes: Processes, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.brokerd.control.candidate", *arguments]
    return processes.start(command, cwd=ROOT, stdout=subprocess.PIPE, **options)


def test_sigkill_loses_no_acknowledged_commit_and_epochs_only_rise(
    place: Place, new_candidate: Callable[..., Candidate], processes: Processes
) -> None:
    acked = epoch = 0
    for run in range(3):
        child = start_candidate(processes, "commit", place.at)
        assert child.stdout is not None
        said = b""
        while said.count(b"acked") < 5 + 14 * run:
            assert select.select([child.stdout], [], [], 10)[0], "nothing acknowledged"
            said += os.read(child.stdout.fileno(), 65536)
        child.kill()
        while piece := os.read(child.stdout.fileno(), 65536):
            said += piece
        place.bury()
        words = [line.split() for line in said.decode().splitlines()]
        epochs = [int(number) for what, number in words if what == "epoch"]
        assert epochs == [epoch + 1]
        acked = max(int(number) for what, number in words if what == "acked")
        reader = new_candidate()
        image = reader.win()
        reader.store.close()
        epoch = reader.epoch
        assert acked <= image.version <= acked + 1
        assert image.next_producer_id == image.version * 1000, "half a commit"
