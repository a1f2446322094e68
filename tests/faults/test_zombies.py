"""Processes that stand still until others have taken their place, and then go on as if nothing had been.

The supervisor kills nobody here, or stands still itself: else it would kill the zombie before it wakes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.producer import Producer
from ingest.wire.codes import ErrorCode
from tests.faults.appliance import TOPIC, ProcessTree, await_value
from tests.faults.copies import stored
from tests.faults.native import FIRST_SOURCE
from tests.faults.raw import RawProducer
from tests.faults.trial import Trial

OTHERS_LEAD_S = 6.0  # the session time is 2.5 s
STOPPED_CONTROLLER_S = 4.0  # longer than the session time
SILENCE_S = 1.0


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[ProcessTree]:
    tree = ProcessTree(tmp_path / "data", options=("--no-kill-hung",))
    try:
        yield tree
    finally:
        tree.end()


def rounds(pytestconfig: pytest.Config) -> int:
    return 20 if pytestconfig.getoption("--long") else 1


def stop_with_a_tail(trial: Trial, zombie: int, partition: int, raw: RawProducer, source: int) -> None:
    """Stop a leader that has records nobody else has, one of them unanswered, and one request it has not read.

    Its followers stand still for a moment: the one fetch that each has with it is answered by the first record, and
    they ask for no more.
    """
    tree, history = trial.tree, trial.history
    followers = [f"broker-{number}" for number in range(1, tree.brokers + 1) if number != zombie]
    with Producer(tree.bootstrap, acks=1) as producer:

        def produce(seq: int) -> None:
            history.transmitted(source, seq)  # acks=1 promises nothing: it may be lost, and it may not
            producer.send(TOPIC, history.value(source, seq), partition=partition).result(10)

        produce(0)  # it knows its way from here on
        with tree.frozen(*followers):
            for seq in range(1, 5):
                produce(seq)
            for body, acks in ((b"only here", 1), (b"unanswered", -1), (b"read behind that", 1)):
                number = raw.send(trial.topic_id, partition, body, acks=acks)
                if acks == 1:
                    assert raw.answer()[:2] == (number, ErrorCode.NONE)
            tree.stop(f"broker-{zombie}")
    raw.send(trial.topic_id, partition, b"unread")


def diverge(trial: Trial, partition: int, brokers: list[int]) -> bool:
    """Whether the first of these brokers has a batch that another has not, or has otherwise."""
    first, *others = (stored(trial.tree.broker_home(broker), trial.topic_id, partition) for broker in brokers)
    return any(other.get(offset) != batch for other in others for offset, batch in first.items())


@pytest.mark.timeout(600)
def test_a_leader_that_wakes_after_its_successor_acknowledges_nothing_and_gives_up_its_tail(
    tree: ProcessTree, pytestconfig: pytest.Config
) -> None:
    tree.up()
    with Trial(tree, random.randrange(10**9)) as trial:
        for number in range(rounds(pytestconfig)):
            trial.fleet.await_more(200)
            zombie = trial.dice.randint(1, tree.brokers)
            before = next(item for item in trial.partitions() if item.leader == zombie)
            with RawProducer(tree.run_dir / f"broker-{zombie}.sock") as raw:
                stop_with_a_tail(trial, zombie, before.partition, raw, FIRST_SOURCE + 100 + number)
                pid, stopped = tree.pid(f"broker-{zombie}"), time.monotonic()
                after = trial.await_leaders_but(zombie, timeout_s=OTHERS_LEAD_S)[before.partition]
                print(f"broker {zombie} replaced after {time.monotonic() - stopped:.2f} s")
                assert after.leader_epoch > before.leader_epoch
                trial.fleet.await_more(300)
                assert diverge(trial, before.partition, [zombie, *after.isr]), "it had no tail of its own"
                os.kill(pid, signal.SIGCONT)
                answers = [raw.answer() for _ in range(2)]
                print(f"the zombie answered {answers}")
                assert all(code is not ErrorCode.NONE for _, code, _ in answers)
            trial.await_in_sync()
            assert tree.pid(f"broker-{zombie}") == pid
            trial.prefer_leaders()
        trial.judge()


@pytest.mark.timeout(600)
def test_a_leader_wakes_before_its_supervisor(tree: ProcessTree, pytestconfig: pytest.Config) -> None:
    tree.options = ()  # this one would kill it, but stands still for longer
    tree.up()
    with Trial(tree, random.randrange(10**9)) as trial:
        for _ in range(rounds(pytestconfig)):
            trial.fleet.await_more(200)
            zombie = trial.dice.randint(1, tree.brokers)
            pid = tree.pid(f"broker-{zombie}")
            with tree.frozen("supervisor"):
                os.kill(pid, signal.SIGSTOP)
                try:
                    trial.await_leaders_but(zombie, timeout_s=OTHERS_LEAD_S)
                    trial.fleet.await_more(300)
                finally:
                    os.kill(pid, signal.SIGCONT)
                trial.await_in_sync()
            assert tree.pid(f"broker-{zombie}") == pid
            trial.prefer_leaders()
        trial.judge()


@pytest.mark.timeout(600)
def test_a_controller_that_stands_still_stops_elections_and_no_data(
    tree: ProcessTree, pytestconfig: pytest.Config
) -> None:
    tree.up()
    with Trial(tree, random.randrange(10**9)) as trial:
        for _ in range(rounds(pytestconfig)):
            trial.fleet.await_more(200)
            name, epoch = tree.active_controller()
            before, acknowledged = trial.partitions(), trial.history.acknowledged_so_far()
            began = time.monotonic()
            with tree.frozen(name):  # it holds the lock: its standby has to wait
                while time.monotonic() < began + STOPPED_CONTROLLER_S:
                    trial.fleet.await_more(50, SILENCE_S)
                later = trial.history.acknowledged_so_far()
            assert all(len(later[source]) > len(seqs) for source, seqs in acknowledged.items())
            assert tree.active_controller() == (name, epoch)
            assert trial.partitions() == before, "it held its own silence against the brokers"

            broker = f"broker-{trial.dice.randint(1, tree.brokers)}"
            with tree.frozen(name):  # and now one dies: nobody can elect, or say that it is out of sync
                pid = tree.kill(broker)
                await_value(lambda pid=pid, broker=broker: tree.process(broker).pid not in (None, pid), "a restart")
            tree.await_replaced(broker, pid)
            trial.await_in_sync()
            assert tree.active_controller() == (name, epoch)
            trial.prefer_leaders()
        trial.judge()
