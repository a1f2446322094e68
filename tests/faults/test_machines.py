"""Three machines: one is cut off, one way or both; ZooKeeper's servers are killed. Nothing acknowledged is lost."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import pytest

from tests.faults.appliance import await_value
from tests.faults.copies import compare_directories
from tests.faults.history import History
from tests.faults.machines import MachineCluster, Site
from tests.faults.native import FIRST_SOURCE
from tests.faults.readers import MappedReader
from tests.network import network

pytestmark = [pytest.mark.needs("network_namespaces"), pytest.mark.needs("zookeeper")]

SESSION_MS = 4000  # the longest the test's servers grant
PARTITIONS = 6
MORE = 50  # records of a producer that prove that it gets on
GAP_S_MAX = SESSION_MS / 1000 + 4  # asked is a second more than the session, of a machine with nothing else to do
PAUSE_S_MAX = 3.0  # of a machine that is stopped in good order; seen are 60 ms


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineCluster]:
    directory = tmp_path_factory.mktemp("machines")
    with network(directory, 3) as machines:
        cluster = MachineCluster(machines, directory, data_machines=3, session_ms=SESSION_MS)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.end()


class Run:
    """One topic with a producer and a mapped reader on each machine, judged at the end."""

    def __init__(self, cluster: MachineCluster, topic: str, copies: int = 3) -> None:
        self.cluster = cluster
        self.topic = topic
        seed = random.randrange(10**9)
        self.history = History(seed)
        cluster.sites[0].forebay("topic", "create", topic, "-p", str(PARTITIONS), "-r", str(copies))
        cluster.await_in_sync(topic)
        self.mapped = [MappedReader(site.data_dir, seed=number) for number, site in enumerate(cluster.sites)]
        for reader in self.mapped:
            reader.seen = self.mapped[0].seen  # copies of different machines have the same bytes
        for number, site in enumerate(cluster.sites):
            site.start_producer(seed, topic, number)

    def __enter__(self) -> Run:
        with ExitStack() as stack:
            for reader in self.mapped:
                stack.enter_context(reader)
            self._stack = stack.pop_all()
        self.await_progress(self.cluster.sites)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def await_progress(self, sites: list[Site], timeout_s: float = 40.0) -> None:
        """Wait until the producers of these machines have got on."""
        before = {site.machine.name: site.acknowledged() for site in sites}
        for site in sites:
            wanted = before[site.machine.name] + MORE
            await_value(
                lambda site=site, wanted=wanted: site.acknowledged() >= wanted,  # type: ignore[misc]
                f"acknowledgements on {site.machine.name}",
                timeout_s,
                self.cluster.logs,
            )

    def judge(self) -> None:
        """End the producers and check what was stored, on each machine."""
        seen = self.cluster.await_in_sync(self.topic)
        for site in self.cluster.sites:
            site.finish_producer(self.history)
        reader = random.choice(self.cluster.sites)
        values = reader.ask("read", str(reader.data_dir), self.topic)
        partitions = {int(number): [value.encode() for value in found] for number, found in values.items()}
        assert self.history.check(partitions) == [], self.cluster.logs()
        self.cluster.await_in_sync(self.topic)
        topic_id = bytes.fromhex(seen["topic_id"])
        for number, partition in seen["partitions"].items():
            homes = {b: self.cluster.site_of(b).data_dir / "brokers" / str(b) for b in partition["replicas"]}
            assert compare_directories(homes, topic_id, int(number)) == []
        for mapped in self.mapped:
            assert not mapped.problems, mapped.problems
            assert mapped.batches, "a mapped reader saw nothing"

    def gap_s(self, since_s: float, sites: list[Site], until_s: float = float("inf")) -> float:
        """Return the longest time that a producer of these machines was without an acknowledgement."""
        numbers = [self.cluster.sites.index(site) for site in sites]
        return max(self.history.gap_s(since_s, until_s, [FIRST_SOURCE + number]) for number in numbers)


@pytest.fixture
def run(cluster: MachineCluster, request: pytest.FixtureRequest) -> Iterator[Run]:
    with Run(cluster, re.sub(r"\W", "-", request.node.name)) as run:
        yield run


@pytest.mark.parametrize("role", ["controller", "other"])
def test_a_machine_that_is_cut_off_is_done_without_and_comes_back(
    run: Run, cluster: MachineCluster, role: str, pytestconfig: pytest.Config
) -> None:
    controller = cluster.controller()
    lost = controller if role == "controller" else cluster.others(controller)[0]
    rest = cluster.others(lost)
    since_s = time.monotonic()
    lost.machine.cut()
    run.await_progress(rest)
    before = lost.acknowledged()
    if pytestconfig.getoption("--long"):  # so long that the kernel asks only once a minute whether it is back
        time.sleep(100)
    run.await_progress(rest)
    assert lost.acknowledged() == before, "nobody confirms anything on a machine that reaches no one"
    lost.machine.heal()
    run.await_progress([lost], timeout_s=30)
    run.judge()
    gap_s = run.gap_s(since_s, rest)
    print(f"{role}: gap {gap_s:.2f} s, session {SESSION_MS} ms")
    assert gap_s < GAP_S_MAX


@pytest.mark.parametrize("role", ["controller", "other"])
def test_a_machine_that_loses_zookeeper_alone_stops_no_other(run: Run, cluster: MachineCluster, role: str) -> None:
    controller = cluster.controller()
    lost = controller if role == "controller" else cluster.others(controller)[0]
    rest = cluster.others(lost)
    since_s = time.monotonic()
    lost.machine.cut(ports=cluster.ensemble.ports)
    await_value(lambda: time.monotonic() - since_s > 2 * SESSION_MS / 1000, "its session to be over")
    run.await_progress(rest)
    assert cluster.controller() in rest
    lost.machine.heal()
    run.await_progress(cluster.sites)
    run.judge()
    gap_s = run.gap_s(since_s, rest)
    print(f"{role}: gap {gap_s:.2f} s, session {SESSION_MS} ms")
    assert gap_s < GAP_S_MAX


def test_machines_are_restarted_one_by_one_without_a_failed_record(run: Run, cluster: MachineCluster) -> None:
    stopped: list[tuple[str, float]] = []
    for site in [*cluster.others(cluster.controller()), cluster.controller()]:
        run.await_progress(cluster.sites)
        stopped.append((site.machine.name, time.monotonic()))
        site.restart(session_ms=SESSION_MS)
        cluster.await_in_sync(run.topic)
    run.judge()
    ends_s = [at_s for _, at_s in stopped[1:]] + [float("inf")]
    gaps_s = [run.gap_s(at_s, cluster.sites, until_s) for (_, at_s), until_s in zip(stopped, ends_s, strict=True)]
    print(f"longest pause of a producer, s, machine by machine: {[round(gap_s, 2) for gap_s in gaps_s]}")
    assert max(gaps_s) < PAUSE_S_MAX


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
def test_a_machine_that_only_hears_or_only_speaks_stops_no_other(
    run: Run, cluster: MachineCluster, direction: str
) -> None:
    lost = cluster.controller()
    since_s = time.monotonic()
    lost.machine.cut(inbound=direction == "inbound", outbound=direction == "outbound")
    run.await_progress(cluster.others(lost))
    lost.machine.heal()
    run.await_progress([lost])
    run.judge()
    print(f"{direction}: gap {run.gap_s(since_s, cluster.others(lost)):.2f} s, session {SESSION_MS} ms")


def test_two_machines_and_a_witness_survive_the_end_of_one(tmp_path: Path) -> None:
    with network(tmp_path, 3) as machines:
        cluster = MachineCluster(machines, tmp_path, data_machines=2, session_ms=SESSION_MS)
        try:
            cluster.start()
            with Run(cluster, "witnessed", copies=2) as run:
                lost = cluster.controller()
                cluster.ensemble.kill(1 + cluster.sites.index(lost))
                since_s = time.monotonic()
                lost.machine.cut()
                run.await_progress(cluster.others(lost))
                lost.machine.heal()
                cluster.ensemble.restore()
                run.await_progress([lost])
                run.judge()
            gap_s = run.gap_s(since_s, cluster.others(lost))
            print(f"witness: gap {gap_s:.2f} s, session {SESSION_MS} ms")
            assert gap_s < GAP_S_MAX
        finally:
            cluster.end()


def test_without_zookeeper_what_is_led_goes_on(run: Run, cluster: MachineCluster) -> None:
    ensemble = cluster.ensemble
    for number in ensemble.numbers:
        ensemble.kill(number)
        run.await_progress(cluster.sites)
        ensemble.start(number)
        ensemble.wait_serving()
    ensemble.kill(*ensemble.numbers)
    since_s = time.monotonic()
    await_value(lambda: time.monotonic() - since_s > 2 * SESSION_MS / 1000, "every session to be over")
    run.await_progress(cluster.sites)

    lost, rest = cluster.sites[0], cluster.sites[1:]  # and a machine goes that nobody can take out of the in-sync sets
    lost.machine.cut()
    await_value(lambda: time.monotonic() - since_s > 3 * SESSION_MS / 1000, "what was under way to end")
    before = [site.acknowledged() for site in cluster.sites]
    time.sleep(2)
    assert [site.acknowledged() for site in cluster.sites] == before, "acknowledged without a copy that is in sync"
    numbers = [1 + cluster.sites.index(site) for site in rest]
    ensemble.start(*numbers)
    ensemble.wait_serving(*numbers)
    run.await_progress(rest)
    lost.machine.heal()
    ensemble.restore()
    run.await_progress(cluster.sites)
    run.judge()
