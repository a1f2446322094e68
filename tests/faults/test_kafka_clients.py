"""The faults that replication survives, seen by librdkafka at the Kafka listener: nothing lost, nothing twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ingest.admin import Admin
from ingest.discovery import read_appliance
from tests.faults.appliance import ProcessTree, await_value
from tests.faults.confluent import ConfluentProducer, ConfluentReader, Copy
from tests.faults.copies import await_in_sync, compare_copies
from tests.faults.disks import Disks
from tests.faults.history import History
from tests.faults.readers import read_back

TOPIC = "shared"
PARTITIONS = 3
PER_S = 100  # of each producer
HEALED_S = 30.0
FULL_S = 2.0


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[ProcessTree]:
    tree = ProcessTree(tmp_path / "data", options=("--no-kill-hung", "--mqtt-port", "-1", "--kafka-port", "0"))
    try:
        yield tree
    finally:
        tree.end()


class Load:
    """A producer a partition, a reader on its own and a group of two, all of them librdkafka's."""

    def __init__(self, tree: ProcessTree, disks: Disks, seed: int) -> None:
        self.dice = random.Random(seed)
        self.gateways = ["kafka", "kafka-2"][: self.dice.randint(1, 2)]
        print(f"seed {seed}, {len(self.gateways)} gateways")
        self.tree = tree
        self.disks = disks
        tree.environment["FOREBAY_KAFKA_PROCESSES"] = str(len(self.gateways))
        tree.up()
        self.history = History(seed)
        tree.create_topic(TOPIC, PARTITIONS, 3, min_insync_replicas="2", segment_bytes="262144")
        address = f"127.0.0.1:{read_appliance(tree.data_dir).ports['kafka']}"
        self.producers = [
            ConfluentProducer(self.history, address, TOPIC, source=number, partition=number, per_s=PER_S)
            for number in range(PARTITIONS)
        ]
        self.alone, self.shared = Copy(PARTITIONS), Copy(PARTITIONS)
        members = [ConfluentReader(address, TOPIC, self.shared, group="group", number=number) for number in range(2)]
        self.readers = [ConfluentReader(address, TOPIC, self.alone), *members]
        self._stack = ExitStack()

    def __enter__(self) -> Load:
        for worker in (*self.producers, *self.readers):
            self._stack.enter_context(worker)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def leader(self) -> int:
        """Return the broker that leads one of the partitions; waits for one."""
        partition = self.dice.randrange(PARTITIONS)
        return await_value(lambda: max(0, self.tree.leaders(TOPIC)[partition]), "a leader", explain=self.tree.log_tail)

    def await_more(self, count: int = 100, timeout_s: float = HEALED_S) -> float:
        """Wait until each producer has so many more acknowledged; return after how many seconds."""
        began = time.monotonic()
        wanted = [len(one.places) + count for one in self.producers]
        await_value(
            lambda: all(
                len(one.places) >= end or one.problems for one, end in zip(self.producers, wanted, strict=True)
            ),
            "acknowledgements",
            timeout_s,
            lambda: f"{[len(one.places) for one in self.producers]} of {wanted}\n{self.tree.log_tail()}",
        )
        assert self.problems() == []
        return time.monotonic() - began

    def problems(self) -> list[str]:
        return [text for one in (*self.producers, *self.readers) for text in one.problems]

    def judge(self) -> None:
        self.tree.await_ready(HEALED_S)
        await_in_sync(self.tree, TOPIC, HEALED_S)
        for producer in self.producers:
            producer.stop()
        for producer in self.producers:
            producer.finish()
        log = read_back(self.tree.bootstrap, TOPIC, local=True)
        assert self.history.check(log) == [], self.tree.log_tail()
        assert [text for one in self.producers for text in one.misplaced(log)][:10] == []
        ends = {partition: len(values) for partition, values in log.items()}
        for copy in (self.alone, self.shared):
            await_value(lambda copy=copy: copy.reached(ends) or self.problems(), "the readers to have all", HEALED_S)  # type: ignore[misc]
            assert self.problems() == []
            assert copy.values == log
        assert compare_copies(self.tree, TOPIC) == []
        print(f"{sum(ends.values())} records; the group's members read {self.shared.again} again")


def kill_leader(load: Load) -> None:
    name = f"broker-{load.leader()}"
    load.tree.await_replaced(name, load.tree.kill(name))


def restart_leader(load: Load) -> None:
    name = f"broker-{load.leader()}"
    load.tree.await_replaced(name, load.tree.terminate(name))


def stop_leader(load: Load) -> None:
    """SIGSTOP until others lead, and a little longer; it wakes with requests that it had not read."""
    broker = load.leader()
    pid = load.tree.stop(f"broker-{broker}")
    try:
        await_value(
            lambda: all(leader not in (-1, broker) for leader in load.tree.leaders(TOPIC).values()),
            f"others than {broker} to lead",
            HEALED_S,
            load.tree.log_tail,
        )
        load.await_more(20, 10)  # librdkafka itself waits for 30 s
    finally:
        os.kill(pid, signal.SIGCONT)


def kill_gateway(load: Load) -> None:
    name = load.dice.choice(load.gateways)
    load.tree.await_replaced(name, load.tree.kill(name))


def kill_controller(load: Load) -> None:
    name, _ = load.tree.active_controller()
    load.tree.await_replaced(name, load.tree.kill(name))


def kill_brokers_and_gateways(load: Load) -> None:
    names = [*load.gateways, *(f"broker-{number}" for number in range(1, load.tree.brokers + 1))]
    pids = [load.tree.kill(name) for name in names]
    for name, pid in zip(names, pids, strict=True):
        load.tree.await_replaced(name, pid)


def fill_disk(load: Load) -> None:
    load.disks.fill(load.leader())
    time.sleep(FULL_S)  # who is refused tries on
    load.disks.free()


FAULTS: list[Callable[[Load], None]] = [
    kill_leader, stop_leader, kill_gateway, kill_controller, fill_disk,
    restart_leader, kill_brokers_and_gateways,
]  # fmt: skip
IN_SHORT = 5  # of them


@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_and_nothing_is_there_twice(
    tree: ProcessTree, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    rounds, faults = (15, FAULTS) if pytestconfig.getoption("--long") else (1, FAULTS[:IN_SHORT])
    with ExitStack() as stack:
        disks = stack.enter_context(Disks(tree, tmp_path))
        stack.callback(tree.end)  # before its disks go
        load = stack.enter_context(Load(tree, disks, random.randrange(10**9)))
        load.await_more()
        for _ in range(rounds):
            for fault in load.dice.sample(faults, len(faults)):
                began = time.monotonic()
                fault(load)
                print(f"{fault.__name__}: going on after {load.await_more(20) + time.monotonic() - began:.2f} s")
            await_in_sync(tree, TOPIC, HEALED_S)
            with Admin(tree.bootstrap) as admin:
                admin.elect_leaders()
        load.judge()
