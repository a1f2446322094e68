"""Decide on the in-sync sets that leaders propose; pure. Source: KIP-497, KIP-841, KIP-903."""

from __future__ import annotations

from dataclasses import dataclass, field

from brokerd.control.elections import Elected, Electorates
from brokerd.control.image import ClusterImage
from brokerd.control.records import PartitionRecord, Put
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import AlteredPartition, AlterPartition, AlterPartitionRequest
from replicas.election import alter, commit
from replicas.reassignment import finish


@dataclass(slots=True)
class InSyncDecision:
    """What is committed, and what is answered after that."""

    elected: Elected = field(default_factory=Elected)
    results: list[AlteredPartition] = field(default_factory=list)


def alter_partitions(image: ClusterImage, request: AlterPartitionRequest, electorates: Electorates) -> InSyncDecision:
    """Take over in-sync sets, each a compare-and-set on leader epoch and partition epoch."""
    decision = InSyncDecision()
    seen: set[tuple[bytes, int]] = set()
    for item in request.partitions:
        key = (item.topic_id, item.partition)
        code = ErrorCode.INVALID_REQUEST if key in seen else _why_not(image, request.broker_id, item, electorates)
        seen.add(key)
        if code == ErrorCode.NONE:
            before = image.partitions[item.topic_id][item.partition]
            changed = _altered(before, item, electorates)
            decision.elected.changes.append(Put(changed))
            decision.elected.reasons["clean"] += changed.leader_epoch > before.leader_epoch
        decision.results.append(AlteredPartition(item.topic_id, item.partition, int(code)))
    return decision


def _altered(before: PartitionRecord, item: AlterPartition, electorates: Electorates) -> PartitionRecord:
    electorate = electorates.of(before)
    after = finish(alter(before, [replica.broker_id for replica in item.isr], electorate), electorate)
    return commit(before, after, forced=True)  # whatever was proposed at this partition epoch is void now


def _why_not(image: ClusterImage, broker_id: int, item: AlterPartition, electorates: Electorates) -> ErrorCode:
    partitions = image.partitions.get(item.topic_id)
    if partitions is None or not 0 <= item.partition < len(partitions):
        return ErrorCode.UNKNOWN_TOPIC_ID
    record = partitions[item.partition]
    if item.leader_epoch != record.leader_epoch or record.leader != broker_id:
        return ErrorCode.FENCED_LEADER_EPOCH if item.leader_epoch <= record.leader_epoch else ErrorCode.INVALID_REQUEST
    if item.partition_epoch != record.partition_epoch:
        return ErrorCode.INVALID_UPDATE_VERSION
    members = {replica.broker_id: replica.broker_epoch for replica in item.isr}
    if broker_id not in members or len(members) != len(item.isr) or not set(members) <= set(record.replicas):
        return ErrorCode.INVALID_REQUEST
    for member, broker_epoch in members.items():
        known = image.brokers.get(member)
        if known is None or known.broker_epoch != broker_epoch or not known.alive:
            return ErrorCode.INELIGIBLE_REPLICA
        if member not in electorates.common.usable and member not in record.isr:
            return ErrorCode.INELIGIBLE_REPLICA
    return ErrorCode.NONE
