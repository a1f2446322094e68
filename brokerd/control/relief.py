"""Relieve a broker of what its heartbeat says it can't do: hold damaged replicas, lead without space; pure."""

from __future__ import annotations

from collections.abc import Collection

from brokerd.control.elections import Elected, Electorates
from brokerd.control.image import ClusterImage
from brokerd.control.records import PartitionRecord, Put
from ingest.wire.messages import BrokerHeartbeatRequest, DamagedReplica
from replicas.election import Chosen, commit
from replicas.refill import leave_for_refill, leave_for_space
from replicas.state import NO_LEADER


def relieve(
    image: ClusterImage, request: BrokerHeartbeatRequest, electorates: Electorates, full: Collection[int]
) -> Elected:
    """Return what changes.

    Args:
        full: Brokers whose disks have no room.
    """
    elected = Elected()
    broker_id = request.broker_id
    for item in dict.fromkeys(request.damaged):  # a broker that names one twice gets one change, not two
        record = _reported(image, item)
        if record is None or broker_id not in record.replicas:
            continue
        left = leave_for_refill(record, broker_id, electorates.of(record))
        if left is None:
            continue
        changed = commit(record, left, None if left.leader == NO_LEADER else Chosen(left.leader, "clean"))
        if changed is not record:
            elected.changes.append(Put(changed))
            elected.reasons["damage"] += changed.leader_epoch > record.leader_epoch
    if request.disk_full and not elected.changes:
        room = set(electorates.common.usable) - set(full)
        for record in image.all_partitions():
            moved = leave_for_space(record, room, electorates.domains) if record.leader == broker_id else None
            if moved is not None:
                elected.changes.append(Put(commit(record, moved)))
                elected.reasons["disk_full"] += 1
    return elected


def _reported(image: ClusterImage, item: DamagedReplica) -> PartitionRecord | None:
    """Return the partition if it still is as the broker knew it: a late word may be of what was refilled since."""
    partitions = image.partitions.get(item.topic_id, [])
    if not 0 <= item.partition < len(partitions):
        return None
    record = partitions[item.partition]
    return record if record.partition_epoch == item.partition_epoch else None
