"""Ten members of a group that are killed, stopped, sent away and replaced under load, their coordinator killed too."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ingest import Producer
from ingest.wire.codes import ErrorCode
from tests.faults.appliance import ROOT, ProcessTree, await_value

TOPIC = "shared"
PARTITIONS = 20
MEMBERS = 10
CHAOS_S, LONG_CHAOS_S = 10.0, 60.0
MAX_POLL_MS = 3_000
LATE_S = 1.0  # after a pause, until it has caught up with what happened
STALE = {
    int(code) for code in (ErrorCode.ILLEGAL_GENERATION, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.REBALANCE_IN_PROGRESS)
}


@dataclass
class Member:
    """One member's process and what it wrote."""

    process: subprocess.Popen[bytes]
    path: Path
    killed_s: float | None = None
    paused: list[tuple[float, float]] = field(default_factory=list)

    def events(self) -> list[dict[str, Any]]:
        lines = self.path.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1]]


class Crowd:
    """The members there have been. Each is ended at the end, whatever happens."""

    def __init__(self, tree: ProcessTree, folder: Path, strategy: str) -> None:
        self._tree = tree
        self._folder = folder
        self._strategy = strategy
        self.all: list[Member] = []

    def living(self) -> list[Member]:
        return [member for member in self.all if member.process.poll() is None]

    def settled(self) -> list[Member]:
        """Return those that have been given something: others may not have begun yet."""
        return [one for one in self.living() if any(event["event"] == "assigned" for event in one.events())]

    def told_late(self) -> bool:
        """Whether anybody was told that the group has gone on without it."""
        return any(event["event"] in ("refused", "lost") for member in self.all for event in member.events())

    def add(self) -> None:
        path = self._folder / f"member-{len(self.all)}.jsonl"
        command = [sys.executable, "-m", "tests.faults.group_member", self._tree.bootstrap, TOPIC, "crowd"]
        with path.open("wb") as out:
            process = subprocess.Popen(
                [*command, self._strategy, str(MAX_POLL_MS)], cwd=ROOT, stdout=out, stdin=subprocess.DEVNULL
            )
        self.all.append(Member(process, path))

    def kill(self, member: Member) -> None:
        os.kill(member.process.pid, signal.SIGKILL)
        member.process.wait()
        member.killed_s = time.monotonic()

    def pause(self, member: Member, seconds: float) -> None:
        began = time.monotonic()
        os.kill(member.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(member.process.pid, signal.SIGCONT)
        member.paused.append((began, time.monotonic()))

    def make_late(self, member: Member, other: Member) -> None:
        """Stop a member for longer than a rebalance waits for it, and have one meanwhile."""
        threading.Timer(0.2, self.kill, [other]).start()
        self.pause(member, 0.2 + 1.5 * MAX_POLL_MS / 1000)

    def end(self) -> None:
        for member in self.living():
            member.process.terminate()
        for member in self.all:
            try:
                member.process.wait(15)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()


class Load:
    """Records to all partitions, until it is stopped."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failures: list[str] = []
        self.ends: dict[int, int] = {}

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with Producer(self._bootstrap) as producer:
            handles = []
            number = 0
            while not self._stop.is_set():
                for _ in range(20):
                    handles.append(producer.send(TOPIC, b"%d" % number, partition=number % PARTITIONS))
                    number += 1
                self._stop.wait(0.02)
            for handle in handles:
                done = handle.result(30)
                self.ends[done.partition] = max(self.ends.get(done.partition, 0), done.offset + 1)


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
def test_every_record_is_read_and_nobody_reads_what_is_anothers(
    tree: ProcessTree, tmp_path: Path, strategy: str, request: pytest.FixtureRequest
) -> None:
    tree.create_topic(TOPIC, PARTITIONS, 3)
    seed = random.randrange(10**9)
    dice = random.Random(seed)
    crowd = Crowd(tree, tmp_path, strategy)
    try:
        with Load(tree.bootstrap) as load:
            for _ in range(MEMBERS):
                crowd.add()
            deadline = time.monotonic() + (LONG_CHAOS_S if request.config.getoption("--long") else CHAOS_S)
            while time.monotonic() < deadline:
                time.sleep(dice.uniform(0.2, 1.0))
                match dice.choice(("kill", "kill", "pause", "leave", "join", "coordinator")):
                    case "kill":
                        crowd.kill(dice.choice(crowd.living()))
                    case "pause":
                        crowd.pause(dice.choice(crowd.living()), dice.choice((0.5, 1.5 * MAX_POLL_MS / 1000)))
                    case "leave":
                        dice.choice(crowd.living()).process.terminate()
                    case "coordinator":
                        tree.kill(f"broker-{dice.randint(1, 3)}")
                while len(crowd.living()) < MEMBERS:
                    crowd.add()
            await_value(lambda: len(crowd.settled()) > 1, "two members to be given something", timeout_s=60)
            for _ in range(5):  # one that has just let go of everything has nothing to be late with
                crowd.make_late(*dice.sample(crowd.settled(), 2))
                time.sleep(LATE_S)
                if crowd.told_late():
                    break
        await_value(lambda: read_so_far(crowd) >= load.ends.items(), "everything to be read", timeout_s=60)
    finally:
        crowd.end()
    problems = check(crowd, load.ends)
    assert problems == [], (seed, problems[:5], tree.log_tail())
    told = Counter(event["event"] for member in crowd.all for event in member.events())
    print(f"{len(crowd.all)} members: {dict(told)}")
    assert crowd.told_late(), "nobody was late: the test did not reach what it is for"


def read_so_far(crowd: Crowd) -> set[tuple[int, int]]:
    """Return (partition, end) as far as each was read without a gap from the start."""
    return set(covered(crowd).items())


def covered(crowd: Crowd) -> dict[int, int]:
    ranges: dict[int, list[list[int]]] = defaultdict(list)
    for member in crowd.all:
        for event in member.events():
            for partition, place in event.get("ranges", {}).items():
                ranges[int(partition)].append(place)
    ends = {}
    for partition, found in ranges.items():
        end = 0
        for first, last in sorted(found):
            if first > end:
                break
            end = max(end, last + 1)
        ends[partition] = end
    return ends


def check(crowd: Crowd, ends: dict[int, int]) -> list[str]:
    """Compare what the members wrote with what a group promises."""
    problems = [
        f"member {number} ended by itself, with {member.process.returncode}"
        for number, member in enumerate(crowd.all)
        if member.process.returncode not in (0, -signal.SIGTERM) and not member.killed_s
    ]
    by_generation: dict[tuple[int, int], set[int]] = defaultdict(set)
    spells: dict[int, list[tuple[float, float, int, int]]] = defaultdict(list)  # from, until, member, generation
    commits: dict[int, list[tuple[float, float, int, int]]] = defaultdict(list)  # asked, told, offset, member
    begins: list[tuple[float, int, int, int]] = []  # when assigned, partition, first offset read, member
    for number, member in enumerate(crowd.all):
        held: dict[int, tuple[float, int]] = {}
        fresh: dict[int, float] = {}
        for event in member.events():
            at_s = event["at_s"]
            match event["event"]:
                case "assigned":
                    for partition in event["partitions"]:
                        by_generation[event["generation"], partition].add(number)
                        held[partition] = (at_s, event["generation"])
                        fresh[partition] = at_s
                case "revoked" | "lost":
                    for partition in event["partitions"]:
                        if partition in held:
                            since_s, generation = held.pop(partition)
                            spells[partition].append((since_s, at_s, number, generation))
                case "read":
                    for partition, (first, _) in event["ranges"].items():
                        if (since_s := fresh.pop(int(partition), None)) is not None:
                            begins.append((since_s, int(partition), first, number))
                case "committed":
                    for partition, offset in event["offsets"].items():
                        commits[int(partition)].append((event["asked_s"], at_s, offset, number))
                case "refused":
                    if event["code"] not in STALE:
                        problems.append(f"member {number}: a commit was refused with {event['code']}")
        for partition, (since_s, generation) in held.items():
            spells[partition].append((since_s, member.killed_s or float("inf"), number, generation))
    for (generation, partition), owners in by_generation.items():
        if len(owners) > 1:
            problems.append(f"generation {generation}: partition {partition} was given to members {owners}")
    for partition, found in spells.items():
        found.sort()
        for (_, until_s, first, owned), (since_s, _, second, begun) in pairwise(found):
            if since_s >= until_s or first == second or crowd.all[first].killed_s:
                continue
            # one that was stopped before it took up what it was given does so when it wakes, and is told then
            late = first if begun > owned else second
            if not any(began_s < since_s < ended_s + LATE_S for began_s, ended_s in crowd.all[late].paused):
                problems.append(f"partition {partition}: {second} began while {first} had it and {late} was not late")
            if begun > owned and any(
                since_s < asked_s <= until_s and who == first for asked_s, _, _, who in commits[partition]
            ):
                problems.append(f"partition {partition}: {first} committed after {second} had begun")
    for since_s, partition, offset, number in begins:
        committed = max((o for _, at_s, o, _ in commits[partition] if at_s < since_s), default=0)
        if offset < committed:
            problems.append(f"partition {partition}: member {number} began at {offset}, {committed} was committed")
    got = covered(crowd)
    problems += [f"partition {p}: read up to {got.get(p)} of {end}" for p, end in ends.items() if got.get(p, 0) < end]
    return problems
