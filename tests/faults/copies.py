"""The replicas of a topic, compared byte by byte after a fault run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ingest.admin import Admin
from ingest.log.names import partition_name
from ingest.records.header import verify_batch, verify_header
from tests.cluster import Cluster
from tests.faults.appliance import ProcessTree, await_value


def await_in_sync(tree: ProcessTree | Cluster, topic: str, timeout_s: float = 30.0) -> None:
    """Wait until every replica of a topic is in sync."""

    def in_sync() -> bool:
        with Admin(tree.bootstrap) as admin:
            return all(
                p.leader > 0 and set(p.isr) == set(p.replicas) and not p.eligible
                for p in admin.describe_topic(topic).partitions
            )

    await_value(in_sync, f"all replicas of {topic} to be in sync", timeout_s, tree.log_tail)


def compare_copies(tree: ProcessTree | Cluster, topic: str) -> list[str]:
    """Return what two replicas of a partition don't have in common, from where the later one begins."""
    with Admin(tree.bootstrap) as admin:
        described = admin.describe_topic(topic)
    problems = []
    for partition in described.partitions:
        homes = {broker: tree.data_dir / "brokers" / str(broker) for broker in partition.replicas}
        problems += compare_directories(homes, described.topic_id, partition.partition)
    return problems


def compare_directories(homes: Mapping[int, Path], topic_id: bytes, partition: int) -> list[str]:
    """Return what two replicas of one partition don't have in common, given the directory of each broker."""
    problems = []
    copies = {broker: stored(home, topic_id, partition) for broker, home in homes.items()}
    (first, expected), *others = copies.items()
    for broker, found in others:
        start = max(min(expected, default=0), min(found, default=0))
        mine = {offset: data for offset, data in expected.items() if offset >= start}
        theirs = {offset: data for offset, data in found.items() if offset >= start}
        if mine != theirs:
            problems.append(f"partition {partition}: brokers {first} and {broker} differ")
        if bool(expected) != bool(found):
            problems.append(f"partition {partition}: broker {first} or {broker} holds nothing")
    return problems


def stored(home: Path, topic_id: bytes, partition: int) -> dict[int, bytes]:
    """Return the batches of one replica by base offset, straight from the files in a broker's directory."""
    directory = home / partition_name(topic_id, partition)
    batches: dict[int, bytes] = {}
    for path in sorted(directory.glob("*.log")):
        data, position = path.read_bytes(), 0
        while data[position : position + 4].strip(b"\0"):
            header = verify_header(data, position)
            verify_batch(data[position : position + header.size], header)
            batches[header.base_offset] = data[position : position + header.size]
            position += header.padded_size
    return batches
