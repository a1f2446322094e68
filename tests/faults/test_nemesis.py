"""A random mix of everything that can go wrong between processes, for as long as one likes: `make nemesis`."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pytest

from ingest.admin import Admin
from ingest.errors import ForebayError
from ingest.log.names import INDEX, TIME_INDEX
from tests.faults.appliance import TOPIC, ProcessTree
from tests.faults.disks import FAILING, Disks
from tests.faults.plan import KINDS, Step, steps
from tests.faults.test_damage import empty
from tests.faults.trial import HEALED_S, Trial

BROKERS, COPIES, PARTITIONS = 4, 3, 6
RUN_S = 60.0  # one appliance; then another, with the next seed
ADMIN_MS = 3000  # an operator's order may come while nobody can carry it out


class Down(Exception):
    """Who is meant does not run, and won't before its disk works again."""


class Nemesis:
    """Does what the plan says, as far as it can be done."""

    def __init__(self, trial: Trial, disks: Disks) -> None:
        self._trial = trial
        self._tree = trial.tree
        self._disks = disks
        self._draining: set[int] = set()

    def do(self, step: Step) -> None:
        try:
            self._do(step)
        except Down as down:
            print(f"    {down} is down")

    def _do(self, step: Step) -> None:
        tree = self._tree
        match step.kind:
            case "kill":
                tree.kill(self._name(step.target, step))
            case "kill two":
                names = {self._name(step.target, step), self._name("leader", step)}
                for pid in [tree.pid(name) for name in names]:
                    os.kill(pid, signal.SIGKILL)
            case "pause":
                with tree.frozen(self._name(step.target, step)):
                    time.sleep(step.length_s)
            case "pause and kill":
                name = self._name(step.target, step)
                with tree.frozen(name):
                    time.sleep(step.length_s)
                    tree.kill(name)
            case "kill the successor":
                paused = self._name("leader", step)
                with tree.frozen(paused):
                    time.sleep(step.length_s)
                    with contextlib.suppress(ForebayError, Down):
                        if (successor := self._name("leader", step)) != paused:
                            tree.kill(successor)
            case "kill the supervisor":
                tree.kill("supervisor")
                self._disks.free()  # it is up when every broker is
                tree.up()
            case "kill everything":
                self._disks.free()
                tree.kill_everything()
                tree.up()
            case "move" | "move and kill":
                self._order(lambda admin: admin.reassign({(TOPIC, step.partition): step.brokers[:COPIES]}))
                if step.kind == "move and kill":
                    tree.kill(self._name(step.target, step))
            case "drain":
                self._draining.add(step.brokers[0])
                self._order(lambda admin: admin.drain_broker(step.brokers[0]))
            case "prefer leaders":
                self._order(lambda admin: admin.elect_leaders())
            case "restart in order":
                tree.terminate(self._broker(step.brokers[0]))
            case "empty a directory" | "delete indexes":
                self._damage(step)
            case "fill a disk":
                self._disks.fill(step.brokers[0])
            case "fail a disk":
                self._disks.fail()
            case "heal":
                self.heal()
            case _:
                raise AssertionError(step.kind)

    def _name(self, target: str, step: Step) -> str:
        """Return the process that is meant."""
        if target == "controller":
            return self._tree.active_controller()[0]
        if target not in ("leader", "follower"):
            return target
        partition = self._trial.partitions()[step.partition]
        leader = partition.leader if partition.leader > 0 else partition.replicas[0]
        if target == "leader":
            return self._broker(leader)
        return self._broker(next(b for b in step.brokers if b != leader and b in partition.replicas))

    def _broker(self, broker: int) -> str:
        if broker == FAILING and self._disks.failing:
            raise Down(f"broker {broker}")
        return f"broker-{broker}"

    def _order(self, order) -> None:  # type: ignore[no-untyped-def]  # what the order returns is nobody's concern
        with contextlib.suppress(ForebayError), Admin(self._tree.bootstrap, timeout_ms=ADMIN_MS) as admin:
            order(admin)

    def _damage(self, step: Step) -> None:
        """Take files away from one broker while it is down; all of them only where two other copies are whole."""
        name, home = self._broker(step.brokers[0]), self._tree.broker_home(step.brokers[0])
        if step.kind == "delete indexes":
            with self._tree.held_down(name):
                for path in [*home.glob(f"*/*{INDEX}"), *home.glob(f"*/*{TIME_INDEX}")]:
                    path.unlink()
            return
        self.heal()
        with self._tree.held_down(name):
            empty(home)
        self.heal()

    def heal(self) -> None:
        """Wait until all is whole, which must not take long."""
        self._disks.free()
        began = time.monotonic()
        self._tree.await_ready(HEALED_S)
        for broker in sorted(self._draining):
            with Admin(self._tree.bootstrap) as admin:
                admin.drain_broker(broker, drain=False)
        self._draining.clear()
        self._trial.await_in_sync(HEALED_S)
        self._trial.fleet.await_more(1, HEALED_S)
        print(f"    whole after {time.monotonic() - began:.1f} s")


def run(folder: Path, seed: int, length_s: float) -> None:
    """Let one appliance live through one plan."""
    hung = ((), ("--no-kill-hung",), ("--hung-ms", "1500"))[seed % 3]
    tree = ProcessTree(folder / "data", brokers=BROKERS, options=hung)
    print(f"up {' '.join(hung)}")
    with ExitStack() as stack:
        disks = stack.enter_context(Disks(tree, folder))
        stack.callback(tree.end)
        tree.up()
        trial = stack.enter_context(Trial(tree, seed, copies=COPIES, partitions=PARTITIONS))
        nemesis = Nemesis(trial, disks)
        began = time.monotonic()
        for step in steps(seed, PARTITIONS, BROKERS):
            time.sleep(step.wait_s)
            now_s = time.monotonic() - began
            if now_s > length_s:
                break
            print(f"{now_s:7.2f} {step}", flush=True)
            nemesis.do(step)
        nemesis.heal()
        trial.judge()


def test_a_seed_is_a_plan_and_every_kind_of_misfortune_comes_up() -> None:
    plan, again, other = (list(islice(steps(seed, PARTITIONS, BROKERS), 400)) for seed in (7, 7, 8))
    assert plan == again != other
    assert {step.kind for step in plan} == set(KINDS)


@pytest.mark.timeout(900)
def test_a_random_mix_of_faults_loses_and_reorders_nothing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    wanted_s = pytestconfig.getoption("--nemesis-seconds")
    seconds = wanted_s or (600 if pytestconfig.getoption("--long") else 20)
    seed = pytestconfig.getoption("--nemesis-seed")
    seed = random.randrange(10**9) if seed is None else seed
    deadline = time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 1:
        print(f"again with: make nemesis SEED={seed} SECONDS={min(RUN_S, left_s):.0f}")
        run(tmp_path / str(seed), seed, min(RUN_S, left_s))
        shutil.rmtree(tmp_path / str(seed))
        seed += 1
