"""Brokers are stopped in good order, one after the other, under load: clients see nothing but a pause."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack

from tests.faults.appliance import ProcessTree, await_value
from tests.faults.copies import await_in_sync, compare_copies
from tests.faults.history import History
from tests.faults.native import FIRST_SOURCE, NativeProducer
from tests.faults.readers import Tail, read_back

TOPIC = "rolled"
PARTITIONS = 6
PRODUCERS = 4


def test_a_rolling_restart_loses_and_refuses_nothing(tree: ProcessTree) -> None:
    history = History(random.randrange(10**9))
    tree.create_topic(TOPIC, PARTITIONS, 3)
    await_in_sync(tree, TOPIC)
    stopped: list[tuple[int, float]] = []
    with ExitStack() as stack:
        tail = stack.enter_context(Tail(tree.bootstrap, TOPIC, local=True))
        producers = [
            stack.enter_context(NativeProducer(history, tree.bootstrap, TOPIC, source=FIRST_SOURCE + number))
            for number in range(PRODUCERS)
        ]
        for broker in range(1, tree.brokers + 1):
            seen = len(history.acknowledgements)
            await_value(lambda seen=seen: len(history.acknowledgements) > seen + 50, "progress")  # type: ignore[misc]
            pid = tree.pid(f"broker-{broker}")
            stopped.append((broker, time.monotonic()))
            os.kill(pid, signal.SIGTERM)
            tree.await_replaced(f"broker-{broker}", pid)
            await_in_sync(tree, TOPIC)
        for producer in producers:
            producer.finish()
        values = read_back(tree.bootstrap, TOPIC, local=False)
        tail.await_ends({partition: len(found) for partition, found in values.items()})
    assert [producer.failures for producer in producers] == [[]] * PRODUCERS, "every record was acknowledged"
    assert history.check(values) == [], tree.log_tail()
    assert compare_copies(tree, TOPIC) == []
    assert tail.problems == []
    gaps_ms = {
        broker: round(
            1000 * max(history.gap_s(at_s, float("inf"), [FIRST_SOURCE + number]) for number in range(PRODUCERS))
        )
        for broker, at_s in stopped
    }
    print(f"longest pause of a producer, ms, by broker stopped: {gaps_ms}")
