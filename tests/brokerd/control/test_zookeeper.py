"""The ZooKeeper store when servers, sessions and controllers come and go; the rest of its promises: test_store.py."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from brokerd.control.image import ClusterImage
from brokerd.control.records import Record, TopicRecord, VersionRecord
from brokerd.control.zookeeper import reign as zookeeper_reign
from brokerd.control.zookeeper import session as zookeeper_session
from brokerd.control.zookeeper.cluster import ClusterFolder
from brokerd.control.zookeeper.session import Refused, Requests, Unreachable
from brokerd.control.zookeeper.store import ZookeeperStore
from brokerd.control.zookeeper.tree import BrokerNode
from ingest.errors import ConfigError, DiskFull, Fenced, ForeignDirectory, StorageError
from tests.brokerd.control.candidate import PARTITIONS
from tests.brokerd.control.harness import CLUSTER_ID, SESSION_MS, Candidate, found_cluster, open_store, partition_record
from tests.brokerd.control.test_store import ROOT, TOPIC_ID, start_candidate
from tests.processes import Processes
from tests.zookeeper import Ensemble

pytestmark = pytest.mark.needs("zookeeper")


@pytest.fixture
def folder() -> str:
    return f"cluster-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def at(ensemble: Ensemble, folder: str) -> str:
    """Return where a cluster is, founded and never used."""
    found_cluster(ensemble.connect(folder))
    return f"zookeeper:{ensemble.connect(folder)}"


@pytest.fixture
def new_candidate(at: str) -> Iterator[Callable[..., Candidate]]:
    candidates: list[Candidate] = []

    def make(**options: Any) -> Candidate:
        candidates.append(Candidate(open_store(options.pop("at", at), **options)))
        return candidates[-1]

    yield make
    for candidate in candidates:
        candidate.store.close()


@pytest.fixture
def active(new_candidate: Callable[..., Candidate]) -> Candidate:
    candidate = new_candidate(endpoint="tcp://active:1")
    candidate.win()
    return candidate


def present(candidate: Candidate) -> set[int]:
    """Return who of two brokers is there."""
    return {1, 2} - candidate.store.absent({1, 2})


def wait_present(candidate: Candidate, expected: set[int]) -> None:
    """Wait until it sees these brokers; nobody is told, so it is asked."""
    deadline = time.monotonic() + 10
    seen = None
    while seen != expected:
        assert time.monotonic() < deadline, f"present: {seen}"
        with contextlib.suppress(StorageError):
            seen = present(candidate)
        time.sleep(0.01)


class Campaign:
    """A candidate that tries to win in a thread."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.image: ClusterImage | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.image = self.candidate.win()

    def wait_won(self, seconds: float = 20) -> ClusterImage:
        self._thread.join(seconds)
        assert self.image is not None, "it does not win"
        return self.image


def wait_fenced(candidate: Candidate) -> None:
    """Wait until it may no longer act."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            candidate.store.check()
        except Fenced:
            return
        time.sleep(0.01)
    raise AssertionError("it goes on reigning")


class Child:
    """A candidate in a process of its own, which a test may stop and kill."""

    def __init__(self, processes: Processes, *arguments: str) -> None:
        self._process = start_candidate(processes, *arguments, stdin=subprocess.PIPE)
        self._said = b""

    def line(self, start: str) -> str:
        """Wait for a line that starts so; return the rest of it."""
        assert self._process.stdout is not None
        while True:
            line, newline, rest = self._said.partition(b"\n")
            if newline:
                self._said = rest
                if line.startswith(start.encode()):
                    return line.decode()[len(start) :].strip()
                continue
            assert select.select([self._process.stdout], [], [], 20)[0], f"no {start!r}"
            piece = os.read(self._process.stdout.fileno(), 65536)
            assert piece, f"it ended without {start!r}"
            self._said += piece

    def tell(self) -> None:
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), b"go\n")

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> list[str]:
        """SIGKILL it; return the lines it had said."""
        self._process.kill()
        return self.rest()

    def rest(self) -> list[str]:
        """Wait for its end; return the lines it had said."""
        said, _ = self._process.communicate(timeout=20)
        return (self._said + said).decode().splitlines()


def test_a_controller_that_was_stopped_writes_nothing_after_another_has_won(
    at: str, new_candidate: Callable[..., Candidate], processes: Processes, ensemble: Ensemble, folder: str
) -> None:
    zombie = Child(processes, "told", at)
    epoch = int(zombie.line("active"))
    next_one = new_candidate()
    assert present(next_one) == {1}
    zombie.signal(signal.SIGSTOP)
    image = Campaign(next_one).wait_won()
    assert next_one.epoch == epoch + 1
    assert present(next_one) == set(), "its brokers went with its session"
    next_one.put(VersionRecord(image.version + 10))
    before = ensemble.dump(folder)
    zombie.tell()
    zombie.signal(signal.SIGCONT)
    assert "Fenced" in zombie.line("")
    assert ensemble.dump(folder)[f"/{folder}/records/version"] == before[f"/{folder}/records/version"]
    assert next_one.store.load().version == image.version + 10


def test_a_deposed_controller_is_fenced_by_the_servers_though_its_lease_runs(
    active: Candidate, new_candidate: Callable[..., Candidate], ensemble: Ensemble, folder: str
) -> None:
    active.put(VersionRecord(1))
    with ensemble.client() as client:
        client.delete(f"/{folder}/controller")
    next_one = new_candidate()
    next_one.win()
    before = ensemble.dump(folder)
    with pytest.raises(Fenced, match=r"controller epoch 1 is over, 2 has begun|no longer this process's"):
        active.put(VersionRecord(9))
    with pytest.raises(Fenced):
        active.put(VersionRecord(9))
    assert ensemble.dump(folder) == before


def test_a_controller_whose_node_went_is_fenced_though_nobody_else_has_won(
    active: Candidate, ensemble: Ensemble, folder: str
) -> None:
    with ensemble.client() as client:
        client.delete(f"/{folder}/controller")
    with pytest.raises(Fenced, match="no longer this process's"):
        active.put(VersionRecord(9))
    assert active.win().version == 0


def test_past_the_lease_nothing_is_sent(active: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    monkeypatch.setattr(Requests, "transact", lambda _, operations: sent.append(operations))
    monkeypatch.setattr(zookeeper_reign, "now_ms", lambda: zookeeper_session.now_ms() + SESSION_MS * 2 // 3 + 1)
    for _ in range(2):
        with pytest.raises(Fenced, match="was not confirmed in time"):
            active.put(VersionRecord(9))
    with pytest.raises(Fenced):
        active.store.load()
    with pytest.raises(Fenced):
        active.store.check()
    monkeypatch.undo()
    with pytest.raises(Fenced):  # also once the clock is right again: others may have acted since
        active.put(VersionRecord(9))
    assert sent == []


def test_a_shorter_session_than_was_asked_for_is_reckoned_with(
    new_candidate: Callable[..., Candidate], ensemble: Ensemble
) -> None:
    candidate = new_candidate(session_timeout_ms=60_000)
    candidate.win()
    store: Any = candidate.store
    assert store._session.grant().session_ms == ensemble.session_ms_max


# ---- a commit without an answer --------------------------------------------------------------------------------------


class Network:
    """Lose the answer of the next transaction of a store, or the transaction itself, or deliver it late."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._transact = Requests.transact
        self._monkeypatch = monkeypatch
        self.late: Callable[[], None] = lambda: None

    def lose(self, what: str) -> None:
        def transact(requests: Requests, operations: Any) -> None:
            self._monkeypatch.undo()
            self.late = lambda: self._transact(requests, operations)
            if what == "answer":
                self.late()
            raise Unreachable("no answer (test)")

        self._monkeypatch.setattr(Requests, "transact", transact)


@pytest.mark.parametrize("lost", ["answer", "request"])
def test_a_commit_without_an_answer_is_settled_by_the_next_load(
    active: Candidate, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    network = Network(monkeypatch)
    network.lose(lost)
    with pytest.raises(StorageError):
        active.put(VersionRecord(1))
    with pytest.raises(StorageError, match="load again first"):
        active.put(VersionRecord(2))
    assert active.store.load().version == (1 if lost == "answer" else 0)
    if lost == "request":  # it was only slow: what the load did not see must never come
        with pytest.raises(Refused):
            network.late()
    active.put(VersionRecord(2))
    assert active.store.load().version == 2


def test_a_load_whose_own_write_has_no_answer_is_tried_again(
    active: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(monkeypatch)
    network.lose("answer")
    with pytest.raises(StorageError):
        active.put(VersionRecord(1))
    network.lose("answer")
    with pytest.raises(StorageError):
        active.store.load()
    assert active.store.load().version == 1
    active.put(VersionRecord(2))


def test_records_changed_by_another_hand_stop_the_commit(active: Candidate, ensemble: Ensemble, folder: str) -> None:
    active.put(VersionRecord(1), TopicRecord(TOPIC_ID, "t", {}), partition_record(TOPIC_ID, 0, 1, [1], [1], 0, 0))
    with ensemble.client() as client:
        client.delete(f"/{folder}/records/version")
    with pytest.raises(StorageError, match=r"/records/version: .* is not there: someone else changed"):
        active.put(VersionRecord(2))
    assert active.store.load().version == 0
    active.put(VersionRecord(3))
    assert active.store.load().version == 3


# ---- servers that come and go ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["follower", "leader"])
def test_one_dead_server_of_three_ends_no_reign(active: Candidate, ensemble: Ensemble, which: str) -> None:
    leader = ensemble.leader()
    dead = leader if which == "leader" else next(n for n in ensemble.numbers if n != leader)
    active.put(VersionRecord(1))
    ensemble.kill(dead)
    for version in range(2, 12):
        try:
            active.put(VersionRecord(version))
        except StorageError:  # was on its way when the server went
            assert active.store.load().version in (version - 1, version)
            active.put(VersionRecord(version))
    assert active.store.load().version == 11
    assert active.epoch == 1


def test_a_lost_quorum_ends_the_reign_and_the_campaign_goes_on(
    active: Candidate, new_candidate: Callable[..., Candidate], ensemble: Ensemble
) -> None:
    active.put(VersionRecord(1))
    standby = new_candidate()
    campaign = Campaign(standby)
    standby.wait_beats(2)
    ensemble.kill(1, 2)
    with pytest.raises((Fenced, StorageError)):
        active.put(VersionRecord(2))
    wait_fenced(active)
    with pytest.raises(StorageError):
        present(standby)
    standby.wait_beats(standby.lifeline.beats + 3)
    again = Campaign(active)
    ensemble.start()
    while campaign.image is None and again.image is None:
        time.sleep(0.01)
    winner = active if again.image is not None else standby
    image = again.image or campaign.image
    assert image is not None
    assert image.version in (1, 2)
    assert winner.epoch == 2
    winner.put(VersionRecord(3))
    winner.store.resign()
    other = campaign if winner is active else again
    assert other.wait_won().version == 3


def test_a_hung_server_holds_up_a_commit_for_a_limited_time(active: Candidate, ensemble: Ensemble) -> None:
    ensemble.stop(*ensemble.numbers)
    started = time.monotonic()
    with pytest.raises(StorageError):
        active.put(VersionRecord(1))
    assert time.monotonic() - started < 6
    ensemble.resume(*ensemble.numbers)
    ensemble.wait_serving()
    assert active.win().version in (0, 1)
    active.put(VersionRecord(2))


# ---- presence --------------------------------------------------------------------------------------------------------


def end_session(store: Any, ensemble: Ensemble) -> None:
    """Have the servers end a store's session behind its back, as if it had been silent for too long."""
    with ensemble.client(client_id=store._session._client.client_id):
        pass


def test_presence_outlives_its_session(new_candidate: Callable[..., Candidate], ensemble: Ensemble) -> None:
    candidate, watcher = new_candidate(), new_candidate(machine="another")
    candidate.store.register_broker(1)
    wait_present(watcher, {1})
    end_session(candidate.store, ensemble)
    wait_present(watcher, set())
    wait_present(watcher, {1})


def test_a_reign_does_not_outlive_its_session(active: Candidate, ensemble: Ensemble) -> None:
    end_session(active.store, ensemble)
    with pytest.raises((Fenced, StorageError)):
        active.put(VersionRecord(1))
    wait_fenced(active)
    assert active.win().version == 0
    assert active.epoch == 2


def test_a_standby_keeps_its_brokers_present_and_sees_who_reigns(
    active: Candidate, new_candidate: Callable[..., Candidate]
) -> None:
    standby = new_candidate(machine="another", endpoint="tcp://standby:1")
    standby.store.register_broker(2)
    campaign = Campaign(standby)
    standby.wait_beats(2)
    wait_present(active, {2})
    assert standby.store.controller_endpoint() == "tcp://active:1"
    active.store.resign()
    campaign.wait_won()
    assert standby.store.controller_endpoint() == "tcp://standby:1"
    assert present(standby) == {2}


def test_who_holds_the_lock_of_a_machine_waits_for_no_session_of_a_dead_one(
    at: str, new_candidate: Callable[..., Candidate], processes: Processes
) -> None:
    killed = Child(processes, "told", at)
    epoch = int(killed.line("active"))
    killed.kill()
    stranger = new_candidate(machine="another")
    waiting = Campaign(stranger)
    stranger.wait_beats(2)
    heir = new_candidate(machine="this-machine")
    heir.win()
    assert heir.epoch == epoch + 1
    assert waiting.image is None, "another machine's may live"
    heir.store.close()
    waiting.wait_won()


def test_a_machines_next_candidate_takes_its_brokers_over_and_no_other_machines(
    at: str, new_candidate: Callable[..., Candidate], processes: Processes, ensemble: Ensemble, folder: str
) -> None:
    killed = Child(processes, "told", at)
    killed.line("active")
    killed.kill()
    stranger = new_candidate(machine="another")
    assert present(stranger) == {1}, "until its session times out"
    with capture_logs() as told:
        stranger.store.register_broker(1)
        stranger.store.register_broker(2)
        wait_present(stranger, {1, 2})
    assert any("kept by machine this-machine, not by another" in entry.get("reason", "") for entry in told)
    heir = new_candidate(machine="this-machine")
    with ensemble.client() as client:
        path = f"/{folder}/brokers/ids/1"
        before = client.get(path)[1].ephemeralOwner
        heir.store.register_broker(1)
        wait_present(heir, {1, 2})
        while client.get(path)[1].ephemeralOwner == before:
            time.sleep(0.01)


def test_presence_that_someone_removed_is_made_again(
    new_candidate: Callable[..., Candidate], ensemble: Ensemble, folder: str
) -> None:
    candidate = new_candidate()
    candidate.store.register_broker(1)
    wait_present(candidate, {1})
    with ensemble.client() as client:
        client.delete(f"/{folder}/brokers/ids/1")
    wait_present(candidate, {1})


def test_kafkas_tools_find_brokers_that_have_a_gateway(
    new_candidate: Callable[..., Candidate], ensemble: Ensemble, folder: str
) -> None:
    candidate = new_candidate(machine="m")
    candidate.store.register_broker(0)
    candidate.store.register_broker(1, ["SSL://log1:9093", "PLAINTEXT://log1:9092"])
    candidate.store.register_broker(2, ["SSL://log1:9095"])
    wait_present(candidate, {1, 2})
    with ensemble.client() as client:
        nodes = [msgspec.json.decode(client.get(f"/{folder}/brokers/ids/{number}")[0]) for number in (1, 2, 0)]
    assert int(nodes[0].pop("timestamp")) > 1_700_000_000_000
    assert nodes[0] == {
        "machine": nodes[2]["machine"],
        "version": 4,
        "listener_security_protocol_map": {"SSL": "SSL", "PLAINTEXT": "PLAINTEXT"},
        "endpoints": ["SSL://log1:9093", "PLAINTEXT://log1:9092"],
        "host": "log1",
        "port": 9092,
        "jmx_port": -1,
    }
    assert (nodes[1]["host"], nodes[1]["port"]) == (None, -1)
    assert nodes[2].keys() == {"machine"}


def test_what_was_registered_during_an_outage_is_seen_after_it(
    new_candidate: Callable[..., Candidate], ensemble: Ensemble
) -> None:
    candidate, watcher = new_candidate(), new_candidate(machine="another")
    candidate.store.register_broker(1)
    wait_present(watcher, {1})
    ensemble.kill(*ensemble.numbers)
    candidate.store.register_broker(2)
    ensemble.start()
    ensemble.wait_serving()
    wait_present(watcher, {1, 2})


# ---- a thousand partitions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_bytes_max", [512 << 10, 60_000], ids=["transaction", "journal"])
def test_a_commit_of_a_thousand_partitions_is_whole_or_not_there_after_sigkill(
    at: str,
    folder: str,
    ensemble: Ensemble,
    new_candidate: Callable[..., Candidate],
    processes: Processes,
    request_bytes_max: int,
) -> None:
    dice = random.Random(request_bytes_max)
    for _ in range(3):
        child = Child(processes, "partitions", at, str(request_bytes_max))
        child.line("ready")
        acked = int(child.line("acked"))
        time.sleep(dice.uniform(0, 0.3))  # a random point is the point
        acked = max([acked, *(int(line.split()[1]) for line in child.kill() if line.startswith("acked"))])
        with ensemble.client() as client:  # instead of waiting for the session of a process that is dead
            client.delete(f"/{folder}/controller")
        reader = new_candidate()
        check_whole(reader.win(), acked)
        reader.store.close()


@pytest.mark.parametrize(
    ("place", "whole"),
    [
        ("zookeeper.journal_part=kill@6", False),
        ("control.before_commit=kill@2", False),
        ("zookeeper.journal_written=kill@2", True),
        ("zookeeper.journal_piece=kill@10", True),
        ("control.after_commit=kill@2", True),
    ],
)
def test_a_commit_through_the_journal_counts_from_one_transaction_on(
    at: str,
    folder: str,
    ensemble: Ensemble,
    new_candidate: Callable[..., Candidate],
    processes: Processes,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    whole: bool,
) -> None:
    monkeypatch.setenv("FOREBAY_FAILPOINTS", place)
    child = Child(processes, "partitions", at, "60000")
    assert child.line("acked") == "1"
    assert child.rest() == []
    with ensemble.client() as client:
        client.delete(f"/{folder}/controller")
    reader = new_candidate()
    image = reader.win()
    assert image.version == (2 if whole else 1)
    check_whole(image, image.version)
    with ensemble.client() as client:
        assert client.get_children(f"/{folder}/journal") == []
    reader.put(VersionRecord(9))
    assert reader.store.load().version == 9


def check_whole(image: ClusterImage, acked: int) -> None:
    assert acked <= image.version <= acked + 1
    epochs = [partition.leader_epoch for partition in image.all_partitions()]
    assert epochs == [image.version] * PARTITIONS, "half a commit"


def test_all_partitions_a_cluster_may_have_change_in_one_commit(active: Candidate) -> None:
    records: list[Record] = [TopicRecord(TOPIC_ID, "t", {})]
    records += [partition_record(TOPIC_ID, n, 1, [1, 2, 3], [1, 2, 3], 1, 1) for n in range(10_000)]
    active.put(*records)
    image = active.store.load()
    assert image.partition_count() == 10_000


# ---- whose tree, who may ---------------------------------------------------------------------------------------------


def test_an_address_without_a_cluster_is_no_new_one_where_data_is(
    new_candidate: Callable[..., Candidate], ensemble: Ensemble, folder: str
) -> None:
    empty = f"{folder}-empty"
    with pytest.raises(StorageError, match=f"{empty} holds no cluster, though this one has data"):
        new_candidate(at=f"zookeeper:{ensemble.connect(empty)}").win()
    with ensemble.client() as client:
        assert client.exists(f"/{empty}") is None


def test_nobody_but_its_user_reads_or_changes_a_tree_with_credentials(
    new_candidate: Callable[..., Candidate], ensemble: Ensemble, folder: str
) -> None:
    connect = f"{ensemble.connect(folder)}/deep/cluster"
    with ClusterFolder(connect, credentials="forebay:secret:word", session_timeout_ms=SESSION_MS) as first:
        first.found(CLUSTER_ID, {})
    deep = f"zookeeper:{connect}"
    owner = new_candidate(at=deep, credentials="forebay:secret:word")
    owner.win()
    owner.store.register_broker(1)
    owner.put(VersionRecord(1), TopicRecord(TOPIC_ID, "t", {}), partition_record(TOPIC_ID, 0, 1, [1], [1], 0, 0))
    for credentials in ("", "forebay:wrong", "other:secret:word"):
        stranger = new_candidate(at=deep, credentials=credentials)
        with pytest.raises(StorageError, match="not permitted; use the user and password it was made with"):
            stranger.win()
        with pytest.raises(StorageError, match="not permitted"):
            present(stranger)
    with ensemble.client(auth_data=[("digest", "forebay:secret:word")]) as client:
        top = f"/{folder}/deep/cluster"
        waiting = [top]
        while waiting:
            path = waiting.pop()
            acl, _ = client.get_acls(path)
            assert [(entry.id.scheme, entry.id.id.partition(":")[0]) for entry in acl] == [("digest", "forebay")], path
            waiting += [f"{path}/{name}" for name in client.get_children(path)]
        assert client.get_acls(f"/{folder}/deep")[0][0].id.id == "anyone", "other clusters have their folders there"


@pytest.mark.parametrize("connect", ["", "/folder", "host:2181/", "host:2181//a", "host:port/a"])
def test_an_address_that_can_not_be_used_is_named(connect: str) -> None:
    with pytest.raises(ConfigError, match=r"zookeeper"):
        Candidate(ZookeeperStore(connect, cluster_id="c", endpoint="", machine="m")).win()


def test_a_record_too_large_for_a_node_is_refused_and_the_next_commit_succeeds(active: Candidate) -> None:
    partition = partition_record(TOPIC_ID, 0, 1, [1], [1], 0, 0)
    with pytest.raises(DiskFull, match=r"topics/.* more than a node may have .* nothing was changed"):
        active.put(TopicRecord(TOPIC_ID, "t", {"x": "y" * 1_000_000}), partition)
    active.put(TopicRecord(TOPIC_ID, "t", {"x": "y" * 800_000}), partition)
    assert active.store.load().partition_count() == 1


def test_who_does_not_use_zookeeper_does_not_load_kazoo() -> None:
    script = "import sys, brokerd.control.process, brokerd.control.zookeeper; sys.exit('kazoo' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_a_client_that_gave_up_is_begun_anew(new_candidate: Callable[..., Candidate]) -> None:
    candidate = new_candidate()
    candidate.win()
    store: Any = candidate.store
    store._session._client.stop()
    wait_fenced(candidate)
    assert candidate.win().version == 0


def test_without_kazoo_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kazoo.client", None)
    candidate = Candidate(ZookeeperStore("127.0.0.1:1/x", cluster_id="c", endpoint="", machine="m"))
    with pytest.raises(ConfigError, match=r"pip install 'forebay\[zookeeper\]'"):
        candidate.win()


def test_without_a_server_a_campaign_waits_and_stops_when_told() -> None:
    candidate = Candidate(ZookeeperStore("127.0.0.1:1/x", cluster_id=CLUSTER_ID, endpoint="", machine="m"))
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(candidate.campaign()))
    thread.start()
    candidate.wait_beats(3)
    candidate.lifeline.stop()
    thread.join(5)
    assert result == [None]


def test_a_node_that_is_no_brokers_is_named(active: Candidate, ensemble: Ensemble, folder: str) -> None:
    with ensemble.client() as client:
        client.create(f"/{folder}/brokers/ids/x", msgspec.json.encode(BrokerNode("m")))
    with pytest.raises(StorageError, match="/brokers/ids/x: no broker's id"):
        present(active)


def test_the_whole_root_of_an_ensemble_may_not_be_someone_elses(ensemble: Ensemble) -> None:
    with ensemble.client() as client:
        client.ensure_path("/someone/else")
    candidate = Candidate(ZookeeperStore(ensemble.hosts, cluster_id="c", endpoint="", machine="m"))
    with pytest.raises(ForeignDirectory, match="not a Forebay metadata store"):
        candidate.win()


# ---- founding and joining --------------------------------------------------------------------------------------------


def membership(ensemble: Ensemble, folder: str) -> ClusterFolder:
    return ClusterFolder(ensemble.connect(folder), credentials="", session_timeout_ms=SESSION_MS)


def test_the_first_machine_founds_a_cluster_and_others_find_it(ensemble: Ensemble, folder: str) -> None:
    with membership(ensemble, folder) as first, membership(ensemble, folder) as second:
        assert first.cluster_id() == ""
        first.found("one", {"log.retention.ms": "5"})
        assert second.cluster_id() == "one"
        with pytest.raises(ForeignDirectory, match="belongs to cluster one, not to two"):
            second.found("two", {"log.retention.ms": "7"})
    candidate = Candidate(open_store(f"zookeeper:{ensemble.connect(folder)}", cluster_id="one"))
    with contextlib.closing(candidate.store):
        assert candidate.win().broker_configs == {"log.retention.ms": "5"}, "the founder's settings are the cluster's"


def test_no_two_machines_are_given_the_same_broker_id(ensemble: Ensemble, folder: str) -> None:
    with membership(ensemble, folder) as first:
        first.found("one", {})
        assert first.take_broker_ids(2) == [1, 2]
    taken: list[int] = []

    def take() -> None:
        with membership(ensemble, folder) as machine:
            for _ in range(3):
                taken.extend(machine.take_broker_ids(2))

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(taken) == list(range(3, 21))


def test_what_is_no_cluster_of_ours_is_not_joined(ensemble: Ensemble, folder: str) -> None:
    with ensemble.client() as client:
        client.create(f"/{folder}/cluster/id", b'{"version":"1","id":"xyz"}', makepath=True)
    with membership(ensemble, folder) as machine, pytest.raises(ForeignDirectory, match="not a Forebay metadata store"):
        machine.cluster_id()
