"""A backup of a broker's directory is put back behind the cluster's back: the others keep what it lacks."""

from __future__ import annotations

import shutil
from pathlib import Path

from ingest import Admin, Producer
from tests.cluster import Cluster, running_cluster
from tests.faults.appliance import await_value
from tests.faults.copies import await_in_sync, compare_copies
from tests.faults.readers import read_back

TOPIC = "kept"


def produce(cluster: Cluster, first: int, last: int) -> None:
    with Producer(cluster.bootstrap) as producer:
        sent = [producer.send(TOPIC, b"%d" % number) for number in range(first, last)]
        for delivery in sent:
            delivery.result(30)


def await_registered(cluster: Cluster, broker: int, epoch_min: int) -> None:
    def registered() -> bool:
        with Admin(cluster.bootstrap) as admin:
            found = {item.broker_id: item for item in admin.brokers()}
        return found[broker].alive and found[broker].broker_epoch >= epoch_min

    await_value(registered, f"broker {broker} to be registered", explain=cluster.log_tail)


def test_a_backup_that_is_started_first_does_not_lead_the_others(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with running_cluster(tmp_path / "cluster", brokers=3) as cluster:
        with Admin(cluster.bootstrap) as admin:
            admin.create_topic(TOPIC, 1, 3)
            leader = admin.describe_topic(TOPIC).partitions[0].leader
        produce(cluster, 0, 100)
        await_in_sync(cluster, TOPIC)
        home = cluster.data_dir / "brokers" / str(leader)
        broker = cluster.children[f"broker-{leader}"]
        broker.terminate()  # in good order: what it leaves says that it is whole
        broker.wait(30)
        shutil.copytree(home, backup)
        cluster.start_broker(leader)
        await_in_sync(cluster, TOPIC)
        produce(cluster, 100, 200)
        await_in_sync(cluster, TOPIC)
        for name in ("controller", "broker-1", "broker-2", "broker-3"):
            cluster.kill(name)
        shutil.rmtree(home)
        shutil.move(backup, home)
        cluster.start_controller()
        cluster.start_broker(leader)
        await_registered(cluster, leader, 3)
        for other in {1, 2, 3} - {leader}:
            cluster.start_broker(other)
        await_in_sync(cluster, TOPIC)
        values = read_back(cluster.bootstrap, TOPIC, local=False)
        assert values == {0: [b"%d" % number for number in range(200)]}, cluster.log_tail()
        assert compare_copies(cluster, TOPIC) == []
