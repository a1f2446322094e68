"""Consumer groups: how long rebalances take, how long commits, and how long groups are without a coordinator."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from ingest import Admin
from ingest.wire.messages import ResourceType
from ops.bench.appliance import Appliance, running_appliance
from ops.bench.benchmarks import create_topic
from ops.bench.machine import machine_limits
from ops.bench.measured import run_worker

COMMIT = "ops.bench.commit_worker"
MEMBER = "ops.bench.member_worker"
SETTLED_S = 30.0
FETCHED_S = 10.0


class Members:
    """Processes of one group, and how many partitions each has."""

    def __init__(self, appliance: Appliance, topic: str, group: str, strategy: str, partitions: int) -> None:
        self._arguments = {
            "data_dir": str(appliance.data_dir),
            "topic": topic,
            "group": group,
            "strategy": strategy,
        }
        self._partitions = partitions
        self._selector = selectors.DefaultSelector()
        self.living: list[subprocess.Popen[bytes]] = []
        self._held: dict[int, tuple[float, float, int]] = {}  # by pid: since when, begun when, how many

    def add(self) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", MEMBER, json.dumps(self._arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        self.living.append(process)
        self._selector.register(process.stdout, selectors.EVENT_READ, process)
        return process.pid

    def take_out(self, process: subprocess.Popen[bytes], *, kill: bool) -> float:
        """End a member, at once or in good order; return when."""
        self.living.remove(process)
        at = time.monotonic()
        assert process.stdin is not None
        assert process.stdout is not None
        if kill:
            os.kill(process.pid, signal.SIGKILL)
        self._selector.unregister(process.stdout)
        process.stdin.close()
        process.wait()
        self._held.pop(process.pid, None)
        return at

    def settled(self) -> float:
        """Wait until every partition has a reader and all have their share; return when that came to be."""
        deadline = time.monotonic() + SETTLED_S
        fair = self._partitions // len(self.living)
        while True:
            counts = [held[2] for held in self._held.values()]
            if (
                len(counts) == len(self.living)
                and sum(counts) == self._partitions
                and max(counts) - min(counts) <= 1
                and min(counts) >= fair
            ):
                return max(held[0] for held in self._held.values())
            assert time.monotonic() < deadline, f"no rest: {counts}"
            for key, _ in self._selector.select(0.1):
                for line in os.read(key.fd, 65_536).splitlines():  # a line is written at once
                    told = json.loads(line)
                    self._held[key.data.pid] = (told["at"], told["began"], told["partitions"])

    def began(self, pid: int) -> float:
        return self._held[pid][1]

    def end(self) -> None:
        for process in self.living:
            process.kill()
            process.wait()


def bench_groups(*, members: int, partitions: int, rounds: int, groups: int, rate: int, seconds: float) -> Any:
    """Rebalances with members killed, leaving and joining; commits; and a coordinator's death."""
    with running_appliance("--brokers", "3") as appliance:
        with Admin(str(appliance.data_dir)) as admin:
            for key, value in {"offsets.topic.replication.factor": "3", "log.durability": "os"}.items():
                admin.alter_configs("", {key: value}, ResourceType.BROKER)
        topic = create_topic(appliance, "bench-groups", "os", 3, partitions)
        rebalances = {
            name: _rebalances(appliance, topic, f"bench-{name}", strategy, members, partitions, rounds)
            for name, strategy in (("eager", "range"), ("cooperative", "cooperative-sticky"))
        }
        commits = run_worker(
            COMMIT, data_dir=str(appliance.data_dir), topic=topic, prefix="bench-commit", groups=groups,
            partitions_each=10, rate=rate, seconds=seconds,
        )  # fmt: skip
        failover = _coordinator_failover(appliance, topic, groups)
        limits = machine_limits(appliance.data_dir)
    return {
        "benchmark": "groups",
        "members": members,
        "partitions": partitions,
        "rebalance_ms": rebalances,
        "commit": {"groups": groups, "rate": rate, "durability": "os", "copies": 3, **commits},
        "coordinator_failover": failover,
        "machine": limits,
    }


def _rebalances(
    appliance: Appliance, topic: str, group: str, strategy: str, count: int, partitions: int, rounds: int
) -> dict[str, Any]:
    members = Members(appliance, topic, group, strategy, partitions)
    took: dict[str, list[float]] = {"killed": [], "left": [], "joined": []}
    try:
        for _ in range(count):
            members.add()
        members.settled()
        for number in range(rounds):
            for how in ("killed", "left"):
                at = members.take_out(members.living[number % count], kill=how == "killed")
                took[how].append(members.settled() - at)
                pid = members.add()
                done = members.settled()
                took["joined"].append(done - members.began(pid))
    finally:
        members.end()
    return {
        how: {"median": round(1000 * median(found), 1), "max": round(1000 * max(found), 1)}
        for how, found in took.items()
    }


def _coordinator_failover(appliance: Appliance, topic: str, groups: int) -> dict[str, Any]:
    """Kill the broker that coordinates most groups; return until when all of them are answered again."""
    from ingest.client.groups.coordinator import Coordinator
    from ingest.wire.group_messages import OffsetFetchRequest

    with _cluster(appliance) as cluster:
        offsets_topic = cluster.topics["__consumer_offsets"]
        leaders = [item.leader for item in offsets_topic.partitions]
        victim = max(set(leaders), key=leaders.count)
        coordinators = [Coordinator(cluster, f"bench-commit-{number}") for number in range(groups)]

        def fetch_all() -> float:
            answered: list[float] = []
            found: list[int] = []

            def on_outcome(body: Any, error: Any) -> None:
                assert error is None, error
                answered.append(time.monotonic())
                found.append(len(body.offsets))

            for coordinator in coordinators:
                coordinator.ask(OffsetFetchRequest(coordinator.group), on_outcome, timeout_ms=30_000)
            deadline = time.monotonic() + 2 * FETCHED_S
            while len(answered) < groups:
                assert time.monotonic() < deadline, f"{len(answered)} of {groups} groups answer"
                cluster.poll()
                for coordinator in coordinators:
                    if coordinator.busy:
                        coordinator.poll()
                if not cluster.unsure:
                    cluster.wait(5)
            assert min(found) >= 10, "an offset is missing"
            return max(answered)

        start = time.monotonic()
        healthy_ms = 1000 * (fetch_all() - start)
        pid = next(p["pid"] for p in appliance.status()["processes"] if p["name"] == f"broker-{victim}")
        os.kill(pid, signal.SIGKILL)
        start = time.monotonic()
        all_ms = 1000 * (fetch_all() - start)
    return {
        "groups": groups,
        "committed_partitions": groups * 10,
        "shards_of_the_dead": leaders.count(victim),
        "all_groups_answered_ms": round(all_ms, 1),
        "all_groups_answered_before_ms": round(healthy_ms, 1),
    }


@contextmanager
def _cluster(appliance: Appliance) -> Iterator[Any]:
    from ingest.client.cluster import Cluster

    cluster = Cluster(str(appliance.data_dir), client_id="bench", all_topics=True)
    try:
        deadline = time.monotonic() + FETCHED_S
        while "__consumer_offsets" not in cluster.topics:
            assert time.monotonic() < deadline, "no groups"
            cluster.poll()
            cluster.wait(5)
        yield cluster
    finally:
        cluster.close()
