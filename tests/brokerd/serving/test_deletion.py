"""Topics come and go while their records are being flushed: the broker stays."""

from __future__ import annotations

import time
from pathlib import Path

from ingest import Admin, Producer
from ingest.log.names import START, file_name, partition_name
from tests.cluster import Cluster, running_cluster
from tests.processes import Processes


def test_topics_deleted_while_they_are_flushed_harm_nobody(tmp_path: Path, processes: Processes) -> None:
    cluster = Cluster(processes, tmp_path)
    try:
        cluster.start()
        with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap, acks=0) as producer:
            for number in range(40):
                name = f"passing-{number}"
                admin.create_topic(name, 2)
                for _ in range(20):
                    producer.send(name, b"v")
                admin.delete_topics([name])
        with Producer(cluster.bootstrap) as producer:
            assert producer.send("stays", b"v").result(10).offset == 0
        assert cluster.children["broker-1"].poll() is None, cluster.log_tail()
    finally:
        processes.end()
        cluster.close()


def test_followers_hear_of_deleted_records_though_nobody_produces(tmp_path: Path) -> None:
    with running_cluster(tmp_path, 2) as cluster, Admin(cluster.bootstrap) as admin:
        admin.create_topic("t", 1, 2)
        with Producer(cluster.bootstrap) as producer:
            for _ in range(10):
                producer.send("t", b"v").result(10)
        found = admin.describe_topic("t")
        (follower,) = set(found.partitions[0].replicas) - {found.partitions[0].leader}
        log_dir = cluster.data_dir / "brokers" / str(follower) / partition_name(found.topic_id, 0)
        for offset in (3, 5):  # the first may go with the mark of the last record
            assert admin.delete_records("t", 0, offset) == offset
            deadline = time.monotonic() + 10
            while not (log_dir / file_name(offset, START)).exists():
                assert time.monotonic() < deadline, "what was deleted would come back with the next leader"
                time.sleep(0.02)
