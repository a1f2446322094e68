"""Decide what an operator's elections, reassignments and drains change; pure. Source: KIP-460, KIP-455."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from brokerd.control.elections import Elected
from brokerd.control.records import BrokerRecord, Change, PartitionRecord, Put
from brokerd.control.topics import Cluster, Refused
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    AlterPartitionReassignmentsRequest,
    DrainBrokerRequest,
    ElectionType,
    ElectLeadersRequest,
    PartitionResult,
    Reassignment,
)
from replicas.balance import can_return, preferred
from replicas.election import commit, move, settle
from replicas.placement import Load, next_replica, replication_factor_max
from replicas.reassignment import begin, cancel, target
from replicas.state import NO_LEADER
from replicas.throttle import UNBOUNDED


@dataclass(slots=True)
class MovesDecision:
    """What is committed, and what is answered after that."""

    elected: Elected = field(default_factory=Elected)
    results: list[PartitionResult] = field(default_factory=list)

    @property
    def changes(self) -> list[Change]:
        return self.elected.changes


def elect_leaders(cluster: Cluster, request: ElectLeadersRequest) -> MovesDecision:
    """Give partitions back to their preferred leaders, or elect some leader where none may lead."""
    decision = MovesDecision()
    if request.election_type not in (ElectionType.PREFERRED, ElectionType.UNCLEAN):
        raise Refused(ErrorCode.INVALID_REQUEST, f"election type {request.election_type}: expected 0 or 1")
    elect = _elect_preferred if request.election_type == ElectionType.PREFERRED else _elect_unclean
    names = {topic.topic_id: topic.name for topic in cluster.image.topics.values()}
    if request.partitions is None:
        for record in cluster.image.all_partitions():
            try:
                elect(cluster, record, decision)
            except Refused as refused:
                if refused.code == ErrorCode.ELECTION_NOT_NEEDED:
                    continue
                code, text = int(refused.code), str(refused)
                decision.results.append(PartitionResult(names[record.topic_id], record.partition, code, text))
                continue
            decision.results.append(PartitionResult(names[record.topic_id], record.partition, 0))
        return decision
    for name, partition in dict.fromkeys(request.partitions):
        try:
            elect(cluster, _partition(cluster, name, partition), decision)
        except Refused as refused:
            decision.results.append(PartitionResult(name, partition, int(refused.code), str(refused)))
            continue
        decision.results.append(PartitionResult(name, partition, 0))
    return decision


def _elect_preferred(cluster: Cluster, record: PartitionRecord, decision: MovesDecision) -> None:
    leader = preferred(record)
    if record.leader == leader:
        raise Refused(ErrorCode.ELECTION_NOT_NEEDED, f"broker {leader} leads already")
    if not can_return(record, cluster.electorates.common.usable):
        raise Refused(
            ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, f"broker {leader} is not there, or not in sync: isr {record.isr}"
        )
    decision.elected.changes.append(Put(commit(record, move(record, leader))))
    decision.elected.reasons["preferred"] += 1


def _elect_unclean(cluster: Cluster, record: PartitionRecord, decision: MovesDecision) -> None:
    if record.leader != NO_LEADER:
        raise Refused(ErrorCode.ELECTION_NOT_NEEDED, f"broker {record.leader} leads")
    electorate = replace(cluster.electorates.of(record), unclean=True)
    after, chosen = settle(record, electorate)
    if chosen is None:
        raise Refused(ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, f"no replica of {record.replicas} is there")
    elected = commit(record, after, chosen)
    decision.elected.changes.append(Put(elected))
    decision.elected.reasons[chosen.reason] += 1
    if chosen.reason == "unclean":
        decision.elected.lossy.append(elected)


def reassign(cluster: Cluster, request: AlterPartitionReassignmentsRequest) -> MovesDecision:
    """Begin or cancel moves; each partition succeeds or fails by itself."""
    decision = MovesDecision()
    seen: set[tuple[str, int]] = set()
    throttle = request.throttle_bytes_per_s
    if not 0 <= throttle <= UNBOUNDED:
        raise Refused(
            ErrorCode.INVALID_REQUEST, f"a throttle of {throttle} bytes/s: expected 1 to {UNBOUNDED}, 0: none"
        )
    for item in request.partitions:
        try:
            if (item.topic, item.partition) in seen:
                raise Refused(ErrorCode.INVALID_REQUEST, "the request names this partition twice")
            seen.add((item.topic, item.partition))
            record = _partition(cluster, item.topic, item.partition)
            _reassign(cluster, record, item, throttle, decision)
        except Refused as refused:
            decision.results.append(PartitionResult(item.topic, item.partition, int(refused.code), str(refused)))
            continue
        decision.results.append(PartitionResult(item.topic, item.partition, 0))
    return decision


def _reassign(
    cluster: Cluster, record: PartitionRecord, item: Reassignment, throttle_bytes_per_s: int, decision: MovesDecision
) -> None:
    electorate = cluster.electorates.of(record)
    if item.replicas is None:
        if not record.adding and not record.removing:
            raise Refused(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, "nothing is moving")
        after = cancel(record, electorate)
        if after is record:
            raise Refused(ErrorCode.INVALID_REQUEST, "only the new replicas are in sync; it can't be cancelled now")
    else:
        _check_replicas(cluster, record, item.replicas)
        if item.replicas == target(record) and not record.adding:
            return
        after = begin(record, item.replicas, electorate, throttle_bytes_per_s=throttle_bytes_per_s)
    changed = commit(record, after)
    if changed is not record:
        decision.elected.changes.append(Put(changed))
        decision.elected.reasons["reassignment"] += changed.leader_epoch > record.leader_epoch


def _check_replicas(cluster: Cluster, record: PartitionRecord, replicas: list[int]) -> None:
    code, image = ErrorCode.INVALID_REPLICA_ASSIGNMENT, cluster.image
    if not replicas or len(set(replicas)) != len(replicas):
        raise Refused(code, "no replicas, or two on one broker")
    if len(replicas) > cluster.limits.replication_factor_max:
        raise Refused(code, f"{len(replicas)} replicas > {cluster.limits.replication_factor_max}")
    for broker in replicas:
        known = image.brokers.get(broker)
        if known is None or not known.alive:
            raise Refused(code, f"broker {broker} is not there")
        if broker not in record.replicas and not cluster.knows_taken(record, broker):
            # it would go on with the copy it had, which may hold what was deleted and compacted away meanwhile
            text = f"broker {broker} has not heard yet that it has no replica"
            raise Refused(ErrorCode.REPLICA_NOT_AVAILABLE, text)  # it will have, soon: admins ask again
    domains = cluster.electorates.domains
    if replication_factor_max(replicas, domains) < len(replicas):
        raise Refused(code, "two of these brokers are on one machine, and there are others")


def drain(cluster: Cluster, request: DrainBrokerRequest) -> tuple[MovesDecision, int, int]:
    """Move everything off a broker as far as others can take it; return (decision, moving, staying)."""
    decision = MovesDecision()
    broker = cluster.image.brokers.get(request.broker_id)
    if broker is None:
        raise Refused(ErrorCode.INVALID_REQUEST, f"there is no broker {request.broker_id}")
    if broker.draining != request.drain:
        decision.changes.append(Put(msgspec.structs.replace(broker, draining=request.drain)))
    moving = staying = 0
    load = cluster.image.load()
    if request.drain:
        for record in cluster.image.all_partitions():
            if request.broker_id in target(record):
                moved = _drained(cluster, record, broker, load, decision)
                moving, staying = moving + moved, staying + (not moved)
    return decision, moving, staying


def _drained(
    cluster: Cluster, record: PartitionRecord, broker: BrokerRecord, load: Load, decision: MovesDecision
) -> bool:
    domains = cluster.electorates.domains
    stay = [other for other in target(record) if other != broker.broker_id]
    others = [b for b in cluster.image.placeable_brokers() if b != broker.broker_id]
    electorate = cluster.electorates.of(record)
    free = [
        b
        for b in others
        if b not in stay
        and replication_factor_max([*stay, b], domains) > len(stay)
        and (b in record.replicas or cluster.knows_taken(record, b))
    ]
    if free:
        new = next_replica(stay, [*stay, *free], domains, load, start=record.partition)
        load.replicas[new] += 1
        after = begin(record, [new if b == broker.broker_id else b for b in target(record)], electorate)
    else:
        others = [b for b in record.isr if b != broker.broker_id and b in electorate.usable]
        if record.leader != broker.broker_id or not others:
            return False
        after = move(record, others[0])
    changed = commit(record, after)
    if changed is not record:
        decision.elected.changes.append(Put(changed))
        decision.elected.reasons["drain"] += changed.leader_epoch > record.leader_epoch
    return bool(free)


def _partition(cluster: Cluster, name: str, partition: int) -> PartitionRecord:
    topic = cluster.image.topic(name)
    if topic is None:
        raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name[:249]}")
    partitions = cluster.image.partitions[topic.topic_id]
    if not 0 <= partition < len(partitions):
        raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"topic {name} has {len(partitions)} partitions")
    return partitions[partition]
