"""Each named failpoint is met under load: the process is killed there, stopped there, or told of an I/O error."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ingest.failpoints import DIRECTORY_VARIABLE
from tests.faults.appliance import ROOT, TOPIC, ProcessTree, await_value
from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.readers import MappedReader, read_back
from tests.faults.trial import Trial

PARTITIONS = 4
PER_S = 400
_PACKAGES = ("ingest", "replicas", "brokerd", "edge", "ops")
# passed when a broker starts, so one is killed to bring it about
_AT_START = ("storage.mid_recovery", "control.before_commit", "control.after_commit")
# not passed on one machine: tests/brokerd/control/test_zookeeper.py; not without damage: test_bit_flip.py; not without
# a compacted topic, and some in a process that nobody supervises: test_compaction.py
_ELSEWHERE = ("zookeeper.", "refill.", "compaction.")
# where the system itself can answer with an error
_CAN_FAIL = ("storage.", "control.before_commit", "serving.")


def failpoint_names() -> list[str]:
    """Return the names of all failpoints in the code that an appliance passes."""
    text = "\n".join(path.read_text() for package in _PACKAGES for path in (ROOT / package).rglob("*.py"))
    names = set(re.findall(r"""\bfailpoint\("([a-z_.]+)"\)""", text))
    return sorted(name for name in names if not name.startswith(_ELSEWHERE))


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


def test_all_failpoints_of_the_code_are_known() -> None:
    assert {name.split(".")[0] for name in NAMES} == {"storage", "control", "serving", "mqtt"}
    assert len(NAMES) >= 13


def restarts(tree: ProcessTree) -> int:
    status = tree.status()
    assert status is not None
    return sum(process.restarts for process in status.processes)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("verb", ["kill", "stop", "eio"])
def test_nothing_acknowledged_is_lost_at_any_failpoint(
    tree: ProcessTree, verb: str, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    long = pytestconfig.getoption("--long")
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    dice = random.Random(seed)
    names = [name for name in NAMES if verb != "eio" or name.startswith(_CAN_FAIL)]
    dice.shuffle(names)
    if long:
        names = [name for _ in range(3) for name in names]
    elif verb == "stop":
        names = names[:4]  # each takes as long as the supervisor's patience
    history = History(seed)
    tree.create_topic(TOPIC, PARTITIONS, segment_bytes="32768")
    with ExitStack() as stack:
        mapped = stack.enter_context(MappedReader(tree.data_dir, seed=seed))
        fleet = stack.enter_context(
            Fleet(history, lambda: tree.mqtt_port, devices=20, messages=1_000_000, per_s=PER_S, patience_s=10)
        )
        for name in names:
            fleet.await_more(dice.randint(50, 200))
            before, started = restarts(tree), time.monotonic()
            laid = tmp_path / "failpoints" / f"{name}={verb}"
            laid.touch()
            if name in _AT_START:
                tree.kill(f"broker-{dice.randint(1, tree.brokers)}")
            await_value(lambda laid=laid: not laid.exists(), f"{laid.name} to fire", explain=tree.log_tail)
            fired = time.monotonic()
            await_value(
                lambda before=before: restarts(tree) > before, f"a restart after {laid.name}", 20, tree.log_tail
            )
            tree.await_ready()
            fleet.await_more(PER_S // 4)
            print(f"{laid.name}: fired after {fired - started:.2f} s, whole {time.monotonic() - fired:.2f} s later")
        fleet.finish()
        by_map = read_back(tree.bootstrap, TOPIC, local=True)
        by_fetch = read_back(tree.bootstrap, TOPIC, local=False)
    assert fleet.problems == []
    assert mapped.problems == []
    assert by_map == by_fetch
    assert history.check(by_map) == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("verb", ["kill", "stop", "eio"])
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_nothing_acknowledged_is_lost_at_any_failpoint_of_a_replica(
    tree: ProcessTree, role: str, verb: str, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    long = pytestconfig.getoption("--long")
    with Trial(tree, random.randrange(10**9), partitions=1, patience_s=10, segment_bytes="32768") as trial:
        names = [name for name in NAMES if verb != "eio" or name.startswith(_CAN_FAIL)]
        names = [name for name in names if not name.startswith("mqtt.")]  # no replica passes it
        trial.dice.shuffle(names)
        if long:
            names = [name for _ in range(3) for name in names]
        else:  # a part of them, another each time
            names = names[:2] if verb == "stop" else names[::2]
        for name in names:
            trial.fleet.await_more(trial.dice.randint(50, 100))
            (partition,) = trial.partitions()
            followers = [number for number in partition.replicas if number != partition.leader]
            # the one that was restarted less often: the supervisor waits longer each time
            calm = min(followers, key=lambda number: tree.process(f"broker-{number}").restarts)
            broker = f"broker-{partition.leader if role == 'leader' else calm}"
            pid, before, started = tree.pid(broker), restarts(tree), time.monotonic()
            laid = tmp_path / "failpoints" / f"{name}={verb}"
            laid.with_suffix(".tmp").write_text("" if name in _AT_START else str(pid))
            laid.with_suffix(".tmp").rename(laid)
            if name in _AT_START:
                tree.kill(broker)

            def fired(laid: Path = laid) -> bool:
                trial.partitions()  # a follower has no other requests to answer
                return not laid.exists()

            await_value(fired, f"{laid.name} to fire in {broker}", explain=tree.log_tail)
            fired_s = time.monotonic() - started
            await_value(
                lambda before=before: restarts(tree) > before, f"a restart after {laid.name}", 20, tree.log_tail
            )
            tree.await_ready()
            trial.await_in_sync()
            print(f"{laid.name} in {broker}: after {fired_s:.2f} s, whole {time.monotonic() - started:.2f} s")
        trial.judge()
