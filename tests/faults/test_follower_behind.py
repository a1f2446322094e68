"""A follower that comes back to a leader whose log has nothing where its own one ends begins anew, whichever way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ingest import Admin, Producer
from ingest.errors import ForebayError
from ingest.log.names import START, file_name
from ingest.wire.messages import EARLIEST_TIMESTAMP
from tests.cluster import Cluster, running_cluster
from tests.faults.appliance import await_value
from tests.faults.copies import await_in_sync, compare_copies, stored

TOPIC = "behind"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path, brokers=3) as running:
        with Admin(running.bootstrap) as admin:
            admin.create_topic(TOPIC, 1, 3)
        yield running


def produce(cluster: Cluster, first: int, last: int) -> None:
    """Send numbered values in batches of ten."""
    with Producer(cluster.bootstrap, linger_ms=1000) as producer:
        for start in range(first, last, 10):
            for number in range(start, start + 10):
                producer.send(TOPIC, b"%d" % number)
            producer.flush(30)


def trim(cluster: Cluster, offset: int) -> None:
    with Admin(cluster.bootstrap) as admin:
        assert admin.delete_records(TOPIC, 0, offset) == offset


def follower(cluster: Cluster) -> int:
    with Admin(cluster.bootstrap) as admin:
        (partition,) = admin.describe_topic(TOPIC).partitions
    return next(broker for broker in partition.replicas if broker != partition.leader)


def starts(cluster: Cluster, broker: int) -> list[int]:
    home = cluster.data_dir / "brokers" / str(broker)
    with Admin(cluster.bootstrap) as admin:
        return sorted(stored(home, admin.describe_topic(TOPIC).topic_id, 0))


def test_records_that_a_follower_lacks_are_deleted_while_it_is_away_up_to_amid_a_batch(cluster: Cluster) -> None:
    produce(cluster, 0, 50)
    await_in_sync(cluster, TOPIC)
    away = follower(cluster)
    cluster.kill(f"broker-{away}")
    produce(cluster, 50, 200)
    trim(cluster, 134)
    cluster.start_broker(away)
    await_in_sync(cluster, TOPIC)
    produce(cluster, 200, 220)
    await_in_sync(cluster, TOPIC)
    assert compare_copies(cluster, TOPIC) == []
    assert starts(cluster, away) == list(range(130, 220, 10))


def test_a_deletion_reaches_followers_that_have_everything_and_outlives_its_leader(cluster: Cluster) -> None:
    produce(cluster, 0, 50)
    await_in_sync(cluster, TOPIC)
    time.sleep(1.5)  # longer than a fetch waits: they know all there is to know
    trim(cluster, 34)
    mark = f"*/{file_name(34, START)}"
    homes = [cluster.data_dir / "brokers" / str(broker) for broker in (1, 2, 3)]
    await_value(lambda: all(list(home.glob(mark)) for home in homes), "the deletion to be everywhere", 10)
    with Admin(cluster.bootstrap) as admin:
        leader = admin.describe_topic(TOPIC).partitions[0].leader
    cluster.kill(f"broker-{leader}")

    def start() -> int:
        with suppress(ForebayError), Admin(cluster.bootstrap) as admin:
            if admin.describe_topic(TOPIC).partitions[0].leader not in (-1, leader):
                return admin.list_offset(TOPIC, 0, EARLIEST_TIMESTAMP)
        return -1

    assert await_value(lambda: start() + 1, "another leader", 20, cluster.log_tail) == 34 + 1


def test_after_an_unclean_election_a_log_that_starts_behind_the_leaders_end_is_given_up(cluster: Cluster) -> None:
    produce(cluster, 0, 50)
    await_in_sync(cluster, TOPIC)
    left = follower(cluster)
    cluster.kill(f"broker-{left}")
    produce(cluster, 50, 200)
    trim(cluster, 150)
    others = [broker for broker in (1, 2, 3) if broker != left]
    for broker in others:
        cluster.kill(f"broker-{broker}")
    cluster.start_broker(left)

    def leads() -> bool:
        with Admin(cluster.bootstrap) as admin:
            admin.elect_leaders([(TOPIC, 0)], unclean=True)
            return admin.describe_topic(TOPIC).partitions[0].leader == left

    await_value(leads, f"broker {left} to lead", 30, cluster.log_tail)
    for broker in others:
        cluster.start_broker(broker)
    await_in_sync(cluster, TOPIC)
    produce(cluster, 50, 80)
    await_in_sync(cluster, TOPIC)
    assert compare_copies(cluster, TOPIC) == []
    for broker in (1, 2, 3):
        assert starts(cluster, broker) == list(range(0, 80, 10))
