"""Compaction is killed at every step and at any moment, in the broker and in its worker: a topic stays the same map."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import psutil
import pytest

from brokerd.serving.stats import BrokerStats
from ingest import Admin
from ingest.failpoints import DIRECTORY_VARIABLE
from ingest.wire.messages import ResourceType
from tests.faults.appliance import ROOT, ProcessTree, await_value
from tests.faults.copies import await_in_sync
from tests.faults.keyed import KeyedProducer, KeyedTail, Ledger, replay, replay_files

TOPIC = "keyed"
PARTITIONS = 2
CONFIGS = {
    "cleanup.policy": "compact",
    "segment.bytes": "16384",
    "segment.ms": "1000",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "1000",
}
IN_THE_WORKER = ("compaction.scanned", "compaction.rewritten", "compaction.written")


def failpoint_names() -> list[str]:
    """Return the names of the failpoints of compaction."""
    text = "\n".join(path.read_text() for path in (ROOT / "brokerd" / "storage" / "compaction").rglob("*.py"))
    return sorted(set(re.findall(r"""\bfailpoint\("([a-z_.]+)"\)""", text)))


NAMES = failpoint_names()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[ProcessTree]:
    laid = tmp_path / "failpoints"
    laid.mkdir()
    tree = ProcessTree(tmp_path / "data", options=("--hung-ms", "1500"))
    tree.environment = {
        "FOREBAY_FAILPOINTS": ",".join(f"{name}={verb}" for name in NAMES for verb in ("kill", "stop", "eio")),
        DIRECTORY_VARIABLE: str(laid),
    }
    try:
        tree.up()
        yield tree
    finally:
        tree.end()


def stats(tree: ProcessTree, broker: int) -> BrokerStats:
    return msgspec.json.decode(tree.identity(f"broker-{broker}").stats, type=BrokerStats)


def restarts(tree: ProcessTree) -> int:
    status = tree.status()
    assert status is not None
    return sum(process.restarts for process in status.processes)


def workers(tree: ProcessTree) -> list[psutil.Process]:
    """Return the compaction workers that are at work."""
    found = []
    for broker in range(1, tree.brokers + 1):
        with contextlib.suppress(psutil.Error):
            found += [
                child
                for child in psutil.Process(tree.pid(f"broker-{broker}")).children()
                if "compaction.worker" in " ".join(child.cmdline()) or "log cleaner" in child.name()
            ]
    return found


class Trial:
    """A compacted topic that is written and read all through a run, and the judgement."""

    def __init__(self, tree: ProcessTree, seed: int) -> None:
        print(f"seed {seed}")
        self.tree = tree
        self.dice = random.Random(seed)
        self.ledger = Ledger()
        self.topic_id = tree.create_topic(
            TOPIC, PARTITIONS, 3, **{key.replace(".", "_"): value for key, value in CONFIGS.items()}
        )
        with Admin(tree.bootstrap) as admin:
            admin.alter_configs("", {"log.cleaner.backoff.ms": "100"}, ResourceType.BROKER)
        self.producer = KeyedProducer(self.ledger, tree.bootstrap, TOPIC, keys=80, seed=seed, per_s=400)
        self.tails = [KeyedTail(self.ledger, tree.bootstrap, TOPIC, PARTITIONS, local=local) for local in (True, False)]
        self._stack = ExitStack()

    def __enter__(self) -> Trial:
        for one in (self.producer, *self.tails):
            self._stack.enter_context(one)
        return self

    def __exit__(self, *args: object) -> None:
        self._stack.__exit__(*args)  # type: ignore[arg-type]

    def judge(self) -> None:
        """See to it that the topic is the map that was written, for every reader and in every copy."""
        tree, ledger = self.tree, self.ledger
        tree.await_ready()
        self.producer.finish()
        assert self.producer.failures == []
        await_in_sync(tree, TOPIC)
        live = {key: value for key, value in ledger.model.items() if value is not None}
        for local in (True, False):
            assert replay(ledger, tree.bootstrap, TOPIC, PARTITIONS, local=local) == live
        # there is an end to it: all is rolled by time, cleaned, and of one record a key is left
        end = len(ledger.sent)

        def clean_everywhere() -> bool:
            with contextlib.suppress(Exception):
                found = [one for broker in range(1, 4) for one in stats(tree, broker).compacted]
                return len(found) == 3 * PARTITIONS and sum(one.cleaned_end for one in found) == 3 * end
            return False

        await_value(clean_everywhere, "all copies to be clean", 60, tree.log_tail)
        assert replay(ledger, tree.bootstrap, TOPIC, PARTITIONS, local=True) == live
        for tail in self.tails:
            tail.__exit__(None, None, None)
            assert tail.rounds > 0
        assert ledger.problems == []
        tree.down()
        for broker in range(1, 4):
            home = tree.broker_home(broker)
            assert replay_files(ledger, home, self.topic_id, PARTITIONS) == live, f"broker {broker}"
        command = [sys.executable, "-m", "ops.cli.main", "log", "verify", str(tree.data_dir)]
        verified = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert verified.returncode == 0, verified.stdout
        assert ledger.problems == []


def test_all_failpoints_of_compaction_are_known() -> None:
    assert set(IN_THE_WORKER) < set(NAMES)
    assert len(NAMES) >= 6


@pytest.mark.timeout(600)
@pytest.mark.parametrize("verb", ["kill", "eio", "stop"])
def test_a_compacted_topic_is_the_same_map_whatever_failpoint_is_met(
    tree: ProcessTree, verb: str, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    long = pytestconfig.getoption("--long")
    with Trial(tree, random.randrange(10**9)) as trial:
        names = [name for name in NAMES if verb != "stop" or name not in IN_THE_WORKER]  # it is given a minute
        trial.dice.shuffle(names)
        if long:
            names = names * 3
        else:
            names = names[: 3 if verb == "kill" else 1]
        for name in names:
            trial.producer.await_more(trial.dice.randint(50, 200))
            before, started = restarts(tree), time.monotonic()
            laid = tmp_path / "failpoints" / f"{name}={verb}"
            laid.touch()
            await_value(lambda laid=laid: not laid.exists(), f"{laid.name} to fire", 60, tree.log_tail)  # type: ignore[misc]
            fired = time.monotonic()
            if name not in IN_THE_WORKER:
                await_value(
                    lambda before=before: restarts(tree) > before,  # type: ignore[misc]
                    f"a restart after {laid.name}",
                    20,
                    tree.log_tail,
                )
                tree.await_ready()
            trial.producer.await_more(100)
            print(f"{laid.name}: fired after {fired - started:.2f} s, whole {time.monotonic() - fired:.2f} s later")
        trial.judge()


@pytest.mark.timeout(900)
def test_a_compacted_topic_is_the_same_map_when_brokers_and_workers_are_killed_at_random(
    tree: ProcessTree, pytestconfig: pytest.Config
) -> None:
    with Trial(tree, random.randrange(10**9)) as trial:
        kills = {"broker": 0, "worker": 0}
        for _ in range(60 if pytestconfig.getoption("--long") else 3):
            trial.producer.await_more(trial.dice.randint(20, 300))
            if trial.dice.random() < 0.6:
                found = await_value(lambda: workers(tree), "a worker at work", 60, tree.log_tail)
                time.sleep(trial.dice.uniform(0, 0.1))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(trial.dice.choice(found).pid, signal.SIGKILL)
                kills["worker"] += 1
            else:
                name = f"broker-{trial.dice.randint(1, 3)}"
                pid = tree.kill(name)
                tree.await_replaced(name, pid)
                kills["broker"] += 1
        print(kills)
        trial.judge()
