"""A power cut: what the disks hold at some moment, brokers and store each at another, is all that is left.

The directories lie on ext4 file systems in image files, mounted so that the kernel helps as little as it can: a commit
of the journal every 300 s, no write-back at rename. An image is copied while its owner stands still; what was never
flushed is not in it. The copies are mounted elsewhere, without a state page: nothing tells of a cache that survived.
"""

from __future__ import annotations

import random
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from ingest.producer import Producer
from tests.brokerd.storage.mounts import ext4, make_ext4
from tests.faults.appliance import TOPIC, ProcessTree, await_value
from tests.faults.copies import await_in_sync, compare_copies
from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.native import FIRST_SOURCE, NativeProducer
from tests.faults.readers import MappedReader, read_back

BROKERS = 2
PARTITIONS = 6
NATIVE = 4
IMAGE_BYTES = 96 << 20
OPTIONS = "commit=300,noauto_da_alloc"
STORE = 0  # the part that is no broker's: store, appliance.json, failed marks
DRAIN_S = 0.03  # for acknowledgements that had left their broker when it was stopped

Acknowledged = dict[int, frozenset[int]]


class Disks:
    """One file system for the store and one for each broker, in files of a folder."""

    def __init__(self, folder: Path, brokers: int) -> None:
        self.folder = folder
        self.brokers = brokers
        folder.mkdir(exist_ok=True)

    def make(self) -> None:
        for part in range(self.brokers + 1):
            make_ext4(self.image(part), IMAGE_BYTES)

    def image(self, part: int) -> Path:
        return self.folder / f"{part}.image"

    def mount(self, stack: ExitStack, target: Path) -> None:
        """Mount them as a data directory, for as long as the stack lives."""
        stack.enter_context(ext4(self.image(STORE), target, OPTIONS))
        for part in range(1, self.brokers + 1):
            (target / "brokers" / str(part)).mkdir(parents=True, exist_ok=True)
            stack.enter_context(ext4(self.image(part), target / "brokers" / str(part), OPTIONS))


def cut(tree: ProcessTree, part: int, disks: Disks, copies: Disks, history: History) -> Acknowledged:
    """Copy one image while nobody writes to it; return what was acknowledged by then."""
    writers = [f"broker-{part}"] if part else ["controller-1", "controller-2"]
    with tree.frozen("supervisor", *writers):
        time.sleep(DRAIN_S)
        acknowledged = history.acknowledged_so_far()
        copy = ["cp", "--sparse=always", str(disks.image(part)), str(copies.image(part))]
        subprocess.run(copy, check=True, timeout=60)
    return acknowledged


def check_copy(copies: Disks, target: Path, expected: Acknowledged, history: History) -> dict[int, list[bytes]]:
    """Start an appliance on what was copied; return what it has, after some more was produced to it."""
    with ExitStack() as stack:
        copies.mount(stack, target)
        tree = ProcessTree(target, brokers=copies.brokers)
        stack.callback(tree.end)
        tree.up()
        values = read_back(tree.bootstrap, TOPIC, local=True)
        assert values == read_back(tree.bootstrap, TOPIC, local=False)
        assert history.check(values, expected) == []
        with Producer(tree.bootstrap) as producer:
            for partition, own in values.items():
                assert producer.send(TOPIC, b"goes on", partition=partition).result(20).offset == len(own)
        await_in_sync(tree, TOPIC)
        await_value(lambda: not compare_copies(tree, TOPIC), "the copies to be equal", 10)
        tree.down()
    return values


@pytest.mark.needs("loop_mounts")
@pytest.mark.timeout(300)
def test_after_a_power_cut_nothing_acknowledged_is_missing(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    cuts = 10 if pytestconfig.getoption("--long") else 2
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    dice = random.Random(seed)
    history = History(seed)
    disks = Disks(tmp_path / "disks", BROKERS)
    disks.make()
    taken: list[tuple[Disks, list[int], dict[int, Acknowledged]]] = []
    with ExitStack() as stack:
        disks.mount(stack, tmp_path / "data")
        tree = ProcessTree(tmp_path / "data", brokers=BROKERS)
        stack.callback(tree.end)
        tree.up()
        tree.create_topic(TOPIC, PARTITIONS, segment_bytes="65536")
        fleet = stack.enter_context(
            Fleet(history, lambda: tree.mqtt_port, messages=1_000_000, per_s=600, seed=dice.randrange(10**9))
        )
        natives = [
            stack.enter_context(NativeProducer(history, tree.bootstrap, TOPIC, source=FIRST_SOURCE + number))
            for number in range(NATIVE)
        ]
        for number in range(cuts):
            copies = Disks(tmp_path / f"copy-{number}", BROKERS)
            parts = dice.sample(range(BROKERS + 1), BROKERS + 1)
            acknowledged = {}
            for part in parts:
                fleet.await_more(dice.randint(1, 400))
                acknowledged[part] = cut(tree, part, disks, copies, history)
            taken.append((copies, parts, acknowledged))
            if dice.random() < 0.5:  # the next cut meets a broker that has just recovered
                tree.kill(f"broker-{dice.randint(1, BROKERS)}")
        fleet.finish()
        for native in natives:
            native.finish()
            assert native.failures == []
        values = read_back(tree.bootstrap, TOPIC, local=True)
        assert history.check(values) == []
        brokers = tree.leaders(TOPIC)
        leaders = {source: brokers[partition] for source, partition in history.homes(values).items()}
        tree.down()
    for number, (copies, parts, acknowledged) in enumerate(taken):
        expected = {
            source: seqs for source, broker in leaders.items() if (seqs := acknowledged[broker].get(source)) is not None
        }
        print(f"cut {number}: {sum(map(len, expected.values()))} acknowledged, in the order {parts}")
        left = check_copy(copies, tmp_path / f"mount-{number}", expected, history)
        for partition, own in left.items():
            assert values[partition][: len(own)] == own, f"cut {number}: partition {partition} is no prefix"


@pytest.mark.needs("loop_mounts")
@pytest.mark.timeout(600)
def test_of_three_copies_cut_at_different_times_what_was_acknowledged_before_the_first_cut_is_there(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Whoever had such a record in sync when it was acknowledged has it in its image, for that was taken later.

    Those were two or three of three. The store, also cut later, names two or three that may know everything. So one of
    them at least has the record, whatever happened to the in-sync set between; all are back: the greatest log leads.
    """
    sets = 8 if pytestconfig.getoption("--long") else 1
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    dice = random.Random(seed)
    history = History(seed)
    brokers = 3
    disks = Disks(tmp_path / "disks", brokers)
    disks.make()
    taken: list[tuple[Disks, Acknowledged]] = []
    with ExitStack() as stack:
        disks.mount(stack, tmp_path / "data")
        tree = ProcessTree(tmp_path / "data", brokers=brokers)
        stack.callback(tree.end)
        tree.up()
        tree.create_topic(TOPIC, PARTITIONS, 3, segment_bytes="65536")
        mapped = stack.enter_context(MappedReader(tree.data_dir, seed=seed))
        fleet = stack.enter_context(
            Fleet(history, lambda: tree.mqtt_port, messages=1_000_000, per_s=600, seed=dice.randrange(10**9))
        )
        for number in range(sets):
            copies = Disks(tmp_path / f"copy-{number}", brokers)
            fleet.await_more(dice.randint(200, 600))
            cuts = []
            for part in dice.sample(range(brokers + 1), brokers + 1):
                cuts.append(cut(tree, part, disks, copies, history))
                if dice.random() < 0.5:  # other leaders, another in-sync set
                    tree.kill(f"broker-{dice.randint(1, brokers)}")
                fleet.await_more(dice.randint(1, 400))
            taken.append((copies, cuts[0]))
            await_in_sync(tree, TOPIC)
        fleet.finish()
        assert not mapped.problems, mapped.problems
        values = read_back(tree.bootstrap, TOPIC, local=True)
        assert history.check(values) == []
        tree.down()
    for number, (copies, expected) in enumerate(taken):
        print(f"set {number}: {sum(map(len, expected.values()))} acknowledged")
        left = check_copy(copies, tmp_path / f"mount-{number}", expected, history)
        for partition, own in values.items():
            known = [
                offset
                for offset, value in enumerate(own)
                if (origin := history.parse(value)) is not None and origin[1] in expected.get(origin[0], ())
            ]
            end = max(known, default=-1) + 1
            assert left[partition][:end] == own[:end], f"set {number}: partition {partition} is another log"
