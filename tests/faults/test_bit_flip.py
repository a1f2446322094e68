"""One of three copies is damaged in a sealed segment: nobody reads that, the copy is filled again from its leader."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from ingest import Admin, Producer
from ingest.failpoints import DIRECTORY_VARIABLE
from ingest.log.names import REFILL, partition_name
from tests.cluster import Cluster, running_cluster
from tests.faults.appliance import await_value
from tests.faults.copies import await_in_sync, compare_copies, stored
from tests.faults.readers import Tail, read_back

TOPIC = "flipped"
RECORDS = 1500
SEGMENT_BYTES = 32768
CRASHES = ("refill.marked", "refill.before_putting_aside", "refill.put_aside", "storage.mid_roll")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "laid").mkdir()
    with running_cluster(
        tmp_path,
        brokers=3,
        environment={
            "FOREBAY_FAILPOINTS": ",".join(f"{name}=kill" for name in CRASHES),
            DIRECTORY_VARIABLE: str(tmp_path / "laid"),
        },
    ) as running:
        with Admin(running.bootstrap) as admin:
            admin.create_topic(TOPIC, 1, 3, configs={"segment.bytes": str(SEGMENT_BYTES)})
        yield running


def value(number: int) -> bytes:
    return b"%d:" % number + b"v" * 100


class Producing:
    """Send numbered values until told to stop; each must be acknowledged."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def __enter__(self) -> Producing:
        with Producer(self._cluster.bootstrap) as producer:
            for number in range(RECORDS):
                producer.send(TOPIC, value(number))
                if number % 50 == 0:
                    producer.flush(30)
            producer.flush(30)
        self.sent = RECORDS
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> list[bytes]:
        """Wait for all acknowledgements; return what was acknowledged."""
        self._stopping.set()
        self._thread.join()
        return [value(number) for number in range(self.sent)]

    def _run(self) -> None:
        with Producer(self._cluster.bootstrap) as producer:
            while not self._stopping.wait(0.005):
                producer.send(TOPIC, value(self.sent)).result(30)
                self.sent += 1


def replica(cluster: Cluster, *, leads: bool) -> int:
    with Admin(cluster.bootstrap) as admin:
        (partition,) = admin.describe_topic(TOPIC).partitions
    return partition.leader if leads else next(b for b in partition.replicas if b != partition.leader)


def segment_of(cluster: Cluster, broker: int) -> Path:
    """Return a sealed segment of a broker's copy."""
    with Admin(cluster.bootstrap) as admin:
        directory = partition_name(admin.describe_topic(TOPIC).topic_id, 0)
    segments = sorted((cluster.data_dir / "brokers" / str(broker) / directory).glob("*.log"))
    assert len(segments) > 3
    return segments[1]


def flip_one_bit(path: Path, dice: random.Random) -> None:
    with open(path, "r+b") as file:
        data = file.read()
        position = dice.randrange(len(data.rstrip(b"\0")))
        file.seek(position)
        file.write(bytes([data[position] ^ 1 << dice.randrange(8)]))


def delete(path: Path, dice: random.Random) -> None:
    path.unlink()


def await_refilled(cluster: Cluster, segment: Path, before: IO[bytes]) -> None:
    """Wait until a copy has new files, `before` being one of the old ones, and is in sync."""

    def is_new() -> bool:
        return segment.exists() and not os.path.samestat(segment.stat(), os.fstat(before.fileno()))

    await_value(is_new, "another file", 30, cluster.log_tail)
    await_in_sync(cluster, TOPIC)
    assert not list(segment.parent.parent.glob(f"*{REFILL}"))


def check_told(told: str, segment: Path) -> None:
    """The log names the partition, the file and the place in it."""
    (line,) = [line for line in told.splitlines() if "a replica will be refilled" in line]
    assert f"topic={TOPIC}" in line
    assert "partition=0" in line
    assert str(segment) in line
    assert "at byte" in line or "is gone" in line


@pytest.mark.parametrize(
    ("leads", "down", "harm"),
    [
        pytest.param(False, False, flip_one_bit, id="follower"),
        pytest.param(False, True, flip_one_bit, id="follower-down"),
        pytest.param(True, False, flip_one_bit, id="leader"),
        pytest.param(True, True, flip_one_bit, id="leader-down"),
        pytest.param(True, False, delete, id="leader-deleted"),
    ],
)
def test_a_damaged_copy_is_filled_again_and_nobody_reads_the_damage(
    cluster: Cluster, leads: bool, down: bool, harm: Callable[[Path, random.Random], None]
) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    with ExitStack() as stack:
        tails = [stack.enter_context(Tail(cluster.bootstrap, TOPIC, local=local)) for local in (True, False)]
        producing = stack.enter_context(Producing(cluster))
        broker = replica(cluster, leads=leads)
        segment = segment_of(cluster, broker)
        before = stack.enter_context(open(segment, "rb"))
        if down:
            cluster.kill(f"broker-{broker}")
        harm(segment, random.Random(seed))
        if down:
            cluster.start_broker(broker)
        early = [read_back(cluster.bootstrap, TOPIC, local=local)[0] for local in (True, False)]
        await_refilled(cluster, segment, before)
        acked = producing.finish()
        for tail in tails:
            tail.await_ends({0: len(acked)})
        await_in_sync(cluster, TOPIC)
        assert compare_copies(cluster, TOPIC) == []
        for read in early:
            assert read == acked[: len(read)]
        for local in (True, False):
            assert read_back(cluster.bootstrap, TOPIC, local=local) == {0: acked}
    for tail in tails:
        assert tail.problems == []
        assert tail.values == {0: acked}
    check_told((cluster.data_dir / f"broker-{broker}.log").read_text(), segment)


@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_a_refill_that_is_killed_anywhere_goes_on(cluster: Cluster, leads: bool, crash: str, tmp_path: Path) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    with Producing(cluster) as producing:
        acked = producing.finish()
    await_in_sync(cluster, TOPIC)
    broker = replica(cluster, leads=leads)
    segment = segment_of(cluster, broker)
    laid = tmp_path / "laid" / f"{crash}=kill"
    with open(segment, "rb") as before:
        laid.touch()
        flip_one_bit(segment, random.Random(seed))
        await_value(lambda: not laid.exists(), f"{crash} to be passed", 30, cluster.log_tail)
        cluster.kill(f"broker-{broker}")
        cluster.start_broker(broker)
        await_refilled(cluster, segment, before)
    assert compare_copies(cluster, TOPIC) == []
    assert read_back(cluster.bootstrap, TOPIC, local=True) == {0: acked}
    with Admin(cluster.bootstrap) as admin:
        topic_id = admin.describe_topic(TOPIC).topic_id
    home = cluster.data_dir / "brokers" / str(broker)
    assert len(stored(home, topic_id, 0)) > 3
