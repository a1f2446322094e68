"""One consumer and several threads: one reads, the others may wake it, and are told where they may not."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ingest import Admin, Consumer, Producer
from ingest.errors import UsageError
from tests.cluster import Cluster

_names = itertools.count()
LONG_MS = 20_000


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"threads-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 1)
    with Producer(cluster.bootstrap) as producer:
        for number in range(10):
            producer.send(name, b"%d" % number)
    return name


@pytest.fixture
def consumer(cluster: Cluster, topic: str) -> Iterator[Consumer]:
    with Consumer(cluster.bootstrap, [topic], auto_offset_reset="earliest") as opened:
        yield opened


def later(act: Callable[[], object], seconds: float = 0.2) -> threading.Timer:
    timer = threading.Timer(seconds, act)
    timer.start()
    return timer


def test_a_waiting_poll_returns_when_it_is_woken_and_the_next_one_waits_again(consumer: Consumer) -> None:
    while len(consumer.poll(100)) == 0:
        pass
    timer = later(consumer.wakeup)
    begun = time.monotonic()
    assert consumer.poll(LONG_MS) == []
    assert time.monotonic() - begun < LONG_MS / 2000
    timer.join()
    consumer.wakeup()
    assert consumer.poll_arrays(LONG_MS) == []
    assert time.monotonic() - begun < LONG_MS / 2000
    begun = time.monotonic()
    consumer.poll(300)
    assert time.monotonic() - begun >= 0.29


def test_a_loop_ends_at_the_record_after_it_was_woken_and_what_is_left_is_read_again(consumer: Consumer) -> None:
    seen = []
    for record in consumer:
        seen.append(record.value)
        if len(seen) == 4:
            consumer.wakeup()
    assert len(seen) == 4
    later(consumer.wakeup, 1.0)
    seen += [record.value for record in consumer]
    assert seen == [b"%d" % number for number in range(10)]


def test_a_signal_ends_a_loop(consumer: Consumer) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: consumer.wakeup())
    try:
        later(lambda: signal.raise_signal(signal.SIGUSR1), 0.5)
        assert len(list(consumer)) == 10
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_second_thread_is_refused_while_one_is_in(consumer: Consumer, topic: str) -> None:
    while len(consumer.poll(100)) == 0:
        pass
    outcome: list[object] = []
    waiting = threading.Thread(target=lambda: outcome.append(consumer.poll(LONG_MS)))
    waiting.start()
    time.sleep(0.1)  # it is in
    for call in (consumer.poll, consumer.poll_arrays, consumer.close, lambda: consumer.partitions_for("another")):
        with pytest.raises(UsageError, match="another thread"):
            call()
    consumer.wakeup()
    waiting.join(10)
    assert outcome == [[]]
    assert consumer.position(topic, 0) == 10
