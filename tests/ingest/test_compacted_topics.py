"""Topics that keep the latest record of each key: what may be sent to them, and what readers see meanwhile."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from brokerd.serving.stats import BrokerStats
from ingest import Admin, Consumer, Producer
from ingest.errors import RemoteError
from ingest.wire.messages import ResourceType
from tests.cluster import Cluster, running_cluster

_names = itertools.count()
TOPIC = "compacted"


def test_a_record_without_a_key_is_refused_and_never_sent(cluster: Cluster) -> None:
    name = f"keyless-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 1, configs={"cleanup.policy": "compact"})
    with Producer(cluster.bootstrap) as producer:
        held = [producer.send(name, b"v", key) for key in (b"a", None, b"b")]
        assert held[0].result(10).offset == 0
        with pytest.raises(RemoteError, match=r"INVALID_RECORD: a record without a key; .* is compacted") as refused:
            held[1].result(10)
        assert refused.value.definite
        assert refused.value.code == 87
        assert held[2].result(10).offset == 1
        with pytest.raises(RemoteError, match="without a key"):
            producer.send(name, b"v")
        with pytest.raises(RemoteError, match="without a key"):
            producer.send_run(name, [b"1", b"2"])
        for keys in (None, [b"a", None]):
            with pytest.raises(RemoteError, match="without a key"):
                producer.send_arrays(name, keys=keys, values=np.zeros((2, 4), np.uint8))
        producer.send(name, None, b"a").result(10)
        producer.send_run(name, [b"1", b"2"], b"")
        producer.send_arrays(name, keys=np.arange(3), values=np.zeros((3, 4), np.uint8)).result(10)
        time.sleep(0.5)  # then nobody looks after an idle producer any more
        with Admin(cluster.bootstrap) as admin:
            admin.alter_configs(name, {"cleanup.policy": "delete"})
        deadline = time.monotonic() + 10
        while True:  # it hears of it with its next metadata
            try:
                producer.send(name, b"v").result(10)
                break
            except RemoteError:
                assert time.monotonic() < deadline
                time.sleep(0.01)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    """Three brokers that look for something to compact ten times a second."""
    with running_cluster(tmp_path, brokers=3) as running:
        with Admin(running.bootstrap) as admin:
            admin.alter_configs("", {"log.cleaner.backoff.ms": "100"}, kind=ResourceType.BROKER)
        yield running


class Tail(threading.Thread):
    """Follow a topic from its start, and see to it that no offset comes twice or out of order."""

    def __init__(self, cluster: Cluster, *, local: bool) -> None:
        super().__init__(daemon=True)
        self.problems: list[str] = []
        self.state: dict[bytes, bytes | None] = {}
        self.position = 0
        self.stop = threading.Event()
        self._address = cluster.bootstrap
        self._local = local

    def run(self) -> None:
        with Consumer(self._address, auto_offset_reset="earliest", local=self._local) as consumer:
            consumer.assign([(TOPIC, 0)])
            while not self.stop.is_set():
                for record in consumer.poll(100, 500):
                    if record.offset < self.position:
                        self.problems.append(f"offset {record.offset} after {self.position}")
                    self.position = record.offset + 1
                    self.state[record.key] = record.value
                self.position = consumer.position(TOPIC, 0)


def until(look: Callable[[], bool], cluster: Cluster, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"waited for {what}\n{cluster.log_tail()}"
        time.sleep(0.05)


def replay(cluster: Cluster, *, local: bool) -> tuple[dict[bytes, bytes | None], int]:
    """Read a topic from its start to its end; return the last value of each key, and how many records there are."""
    state: dict[bytes, bytes | None] = {}
    count = 0
    with Consumer(cluster.bootstrap, auto_offset_reset="earliest", local=local) as consumer:
        consumer.assign([(TOPIC, 0)])
        end = consumer.end_offsets([(TOPIC, 0)])[(TOPIC, 0)]  # type: ignore[index]
        while consumer.position(TOPIC, 0) < end:
            for record in consumer.poll(1000, 1000):
                state[record.key] = record.value
                count += 1
        assert consumer.position(TOPIC, 0) == end, "the end is reached, whatever was dropped before it"
    return state, count


def cleaned(stats: BrokerStats) -> int:
    return stats.compacted[0].cleaned_end if stats.compacted else 0


@pytest.mark.timeout(240)
def test_replicas_are_compacted_while_they_are_written_read_and_copied(three: Cluster) -> None:
    configs = {
        "cleanup.policy": "compact",
        "segment.bytes": "16384",
        "segment.ms": "1000",
        "min.cleanable.dirty.ratio": "0.01",
        "delete.retention.ms": "1000",
    }
    with Admin(three.bootstrap) as admin:
        admin.create_topic(TOPIC, 1, 3, configs=configs)
        leader = admin.describe_topic(TOPIC).partitions[0].leader
    dice = random.Random(5)
    model: dict[bytes, bytes | None] = {}
    tails = [Tail(three, local=local) for local in (True, False)]
    for tail in tails:
        tail.start()
    sent = 0
    with Producer(three.bootstrap) as producer:

        def produce(count: int) -> None:
            nonlocal sent
            for _ in range(count):
                key = b"key-%d" % dice.randrange(60)
                value = None if dice.random() < 0.2 else b"%d" % sent + bytes(100)
                delivery = producer.send(TOPIC, value, key, headers=[("n", b"%d" % sent)])
                model[key] = value
                sent += 1
                if sent % 20 == 0:
                    delivery.result(30)
            producer.flush(30)

        produce(1500)
        until(
            lambda: all(cleaned(three.stats(number)) > 1000 for number in (1, 2, 3)), three, "every replica to be clean"
        )
        produce(1500)
    live = {key: value for key, value in model.items() if value is not None}
    # the log rolls by time; then all of it is cleaned, and a leader that knows so drops the tombstones
    until(lambda: cleaned(three.stats(leader)) == sent, three, "all of it to be clean")
    until(lambda: replay(three, local=True)[0] == live, three, "the tombstones to go")
    for local in (True, False):
        state, count = replay(three, local=local)
        assert state == live
        assert count == len(live), "one record of each key"
    until(lambda: all(tail.position == sent for tail in tails), three, "the tails to come to the end")
    for tail in tails:
        tail.stop.set()
        tail.join(20)
        assert tail.problems == []
        assert {key: value for key, value in tail.state.items() if value is not None} == live
    stats = [three.stats(number) for number in (1, 2, 3)]
    assert all(broker.cleaner.runs_total >= 2 for broker in stats)
    assert [broker.cleaner.failures_total for broker in stats] == [0, 0, 0]
    three.kill(f"broker-{leader}")  # a follower takes over what it has compacted itself

    def led_by_another() -> bool:
        with Admin(three.bootstrap) as admin:
            return admin.describe_topic(TOPIC).partitions[0].leader not in (-1, leader)

    until(led_by_another, three, "another leader")
    state, _ = replay(three, local=True)
    assert {key: value for key, value in state.items() if value is not None} == live
