"""Topics come and go while their records are being flushed: the broker stays."""

from __future__ import annotations

from pathlib import Path

from ingest import Admin, Producer
from tests.cluster import Cluster
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
