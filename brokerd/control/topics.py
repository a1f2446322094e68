"""Decide what creating, growing and deleting topics changes; pure. Nothing here touches the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from brokerd.control.broker_settings import EffectiveConfigs
from brokerd.control.elections import Electorates
from brokerd.control.image import ClusterImage
from brokerd.control.limits import ControlLimits
from brokerd.control.records import Change, DeletedTopicRecord, PartitionRecord, Put, Remove, TopicRecord
from ingest.errors import ConfigError
from ingest.topic_config import parse_topic_configs
from ingest.topic_name import CONSUMER_OFFSETS, collision_key, is_internal, why_illegal, why_internal
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    NewPartitions,
    NewTopic,
    TopicResult,
)
from replicas.balance import preferred
from replicas.placement import Load, default_replication_factor, place, replication_factor_max
from replicas.reassignment import target

# What counts is the latest record under each key. Small segments: a new coordinator reads what is not compacted yet.
OFFSETS_MESSAGE_BYTES_MIN = 1_048_588  # Kafka's default: coordinators store groups as large as that allows
OFFSETS_TOPIC_CONFIGS = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 << 20),
    "max.message.bytes": str(OFFSETS_MESSAGE_BYTES_MIN),
}
_OFFSETS_LIVE_BY = ("cleanup.policy", "retention.ms", "retention.bytes", "delete.retention.ms")


class Refused(Exception):
    """One topic of a request can't be had; the others go on."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Decision:
    """What a request changes, and what is answered once that is durable."""

    changes: list[Change] = field(default_factory=list)
    results: list[TopicResult] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What decisions are made from.

    Attributes:
        knows_taken: Whether a broker acts by metadata in which it had no replica of a partition, if it ever lost one.
    """

    image: ClusterImage
    configs: EffectiveConfigs
    limits: ControlLimits
    electorates: Electorates
    knows_taken: Callable[[PartitionRecord, int], bool]


def create_topics(
    cluster: Cluster, request: CreateTopicsRequest, topic_ids: Sequence[bytes], placement_start: int
) -> Decision:
    """Validate as Kafka does and place the partitions. Each topic succeeds or fails by itself."""
    assert len(topic_ids) >= len(request.topics), "the shell hands in an id for each topic"
    decision = Decision()
    names = Counter(topic.name for topic in request.topics)
    taken = {collision_key(name): name for name in cluster.image.topic_ids}
    load = cluster.image.load()
    total = cluster.image.partition_count()
    for new, topic_id in zip(request.topics, topic_ids, strict=False):
        try:
            if names[new.name] > 1:
                raise Refused(ErrorCode.INVALID_REQUEST, "the request names this topic twice")
            new = _as_it_should_be(cluster.configs, new)
            _check_name(cluster.image, new.name, taken)
            records = _new_topic(cluster, new, topic_id, total, load, placement_start)
        except Refused as refused:
            decision.results.append(TopicResult(new.name, int(refused.code), str(refused)))
            continue
        taken[collision_key(new.name)] = new.name
        total += len(records) - 1
        decision.changes.extend(map(Put, records))
        decision.results.append(
            TopicResult(new.name, int(ErrorCode.NONE), topic_id=b"" if request.validate_only else topic_id)
        )
    if request.validate_only:
        decision.changes.clear()
    return decision


def create_partitions(cluster: Cluster, request: CreatePartitionsRequest, placement_start: int) -> Decision:
    """Add partitions to topics; keys hash elsewhere after that, as in Kafka."""
    decision = Decision()
    names = Counter(topic.name for topic in request.topics)
    load = cluster.image.load()
    total = cluster.image.partition_count()
    for new in request.topics:
        try:
            if names[new.name] > 1:
                raise Refused(ErrorCode.INVALID_REQUEST, "the request names this topic twice")
            topic, records = _more_partitions(cluster, new, total, load, placement_start)
        except Refused as refused:
            decision.results.append(TopicResult(new.name, int(refused.code), str(refused)))
            continue
        total += len(records)
        decision.changes.extend(map(Put, records))
        decision.results.append(TopicResult(new.name, int(ErrorCode.NONE), topic_id=topic.topic_id))
    if request.validate_only:
        decision.changes.clear()
    return decision


def delete_topics(cluster: Cluster, request: DeleteTopicsRequest, version: int) -> Decision:
    """Take topics away and leave a mark by which brokers may erase their files.

    Args:
        version: The metadata version in which they are gone.
    """
    decision = Decision()
    names = Counter(request.topics)
    image = cluster.image
    room = cluster.limits.deleted_topics_max - len(image.deleted_topics)
    for name in request.topics:
        topic = image.topic(name)
        if topic is None:
            code, text = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "there is no such topic"
        elif is_internal(name):
            code, text = ErrorCode.INVALID_REQUEST, f"{name} is the brokers' own: all committed offsets would be gone"
        elif names[name] > 1:
            code, text = ErrorCode.INVALID_REQUEST, "the request names this topic twice"
        elif room <= 0:
            code = ErrorCode.THROTTLING_QUOTA_EXCEEDED
            text = "a registered broker is away and has not erased the topics deleted before; start it, then try again"
        else:
            room -= 1
            decision.changes.append(Remove(topic))
            decision.changes.extend(map(Remove, image.partitions[topic.topic_id]))
            decision.changes.append(Put(DeletedTopicRecord(topic.topic_id, name, version)))
            decision.results.append(TopicResult(name, int(ErrorCode.NONE), topic_id=topic.topic_id))
            continue
        decision.results.append(TopicResult(name, int(code), text))
    return decision


def check_topic_configs(configs: EffectiveConfigs, name: str, own: dict[str, str], replication_factor: int) -> None:
    """Refuse configs of a topic that can't be used.

    Raises:
        Refused: INVALID_CONFIG, naming key and value.
    """
    try:
        parse_topic_configs(own)
        parsed = parse_topic_configs(configs.topic(own))
    except ConfigError as error:
        raise Refused(ErrorCode.INVALID_CONFIG, str(error)) from None
    if name == CONSUMER_OFFSETS and parsed["max.message.bytes"] < OFFSETS_MESSAGE_BYTES_MIN:
        raise Refused(
            ErrorCode.INVALID_CONFIG,
            f"max.message.bytes={parsed['max.message.bytes']}: {name} needs {OFFSETS_MESSAGE_BYTES_MIN}",
        )
    if parsed["min.insync.replicas"] > replication_factor:
        raise Refused(
            ErrorCode.INVALID_CONFIG,
            f"min.insync.replicas={parsed['min.insync.replicas']}: the topic has {replication_factor} replica(s), "
            "so nothing could be acknowledged with acks=all",
        )


def check_own_configs(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Refuse configs by which a topic of the brokers' own would lose what it stores; back to what they were is fine.

    Raises:
        Refused: INVALID_CONFIG, naming the key.
    """
    for key in _OFFSETS_LIVE_BY if is_internal(name) else ():
        if after.get(key) not in (before.get(key), OFFSETS_TOPIC_CONFIGS.get(key)):
            raise Refused(
                ErrorCode.INVALID_CONFIG, f"{name} is the brokers' own: with another {key} offsets would be gone"
            )


def _as_it_should_be(configs: EffectiveConfigs, new: NewTopic) -> NewTopic:
    """Return the topic of committed offsets as settings want it, whoever asks for it; any other as it is asked for."""
    if new.name != CONSUMER_OFFSETS:
        return new
    if (new.partitions, new.replication_factor, new.configs) != (-1, -1, {}):
        raise Refused(ErrorCode.INVALID_REQUEST, f"{new.name} is created by offsets.topic.… settings alone")
    factor = configs.number("offsets.topic.replication.factor") or -1
    return NewTopic(new.name, configs.number("offsets.topic.num.partitions"), factor, OFFSETS_TOPIC_CONFIGS)


def _check_name(image: ClusterImage, name: str, taken: dict[str, str]) -> None:
    reason = why_illegal(name) or ("" if name == CONSUMER_OFFSETS else why_internal(name))
    if reason:
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, reason)
    if name in image.topic_ids:
        raise Refused(ErrorCode.TOPIC_ALREADY_EXISTS, f"topic {name} exists already")
    other = taken.get(collision_key(name))
    if other is not None:
        raise Refused(
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            f"topic {name} collides with {other}: names that differ only in '.' and '_' are one in metrics",
        )


def _new_topic(
    cluster: Cluster, new: NewTopic, topic_id: bytes, total: int, load: Load, start: int
) -> list[TopicRecord | PartitionRecord]:
    count = cluster.configs.number("num.partitions") if new.partitions == -1 else new.partitions
    _check_count(cluster, count, total)
    brokers, domains = cluster.image.placeable_brokers(), cluster.image.domains()
    factor = new.replication_factor
    if factor == -1:
        factor = cluster.configs.number("default.replication.factor") or default_replication_factor(brokers, domains)
    _check_factor(cluster, factor, brokers)
    check_topic_configs(cluster.configs, new.name, new.configs, factor)
    replicas = place(count, factor, brokers, domains=domains, leaders_in_topic={}, load=load, start=start)
    return [
        TopicRecord(topic_id, new.name, dict(new.configs)),
        *(_new_partition(topic_id, index, ids) for index, ids in enumerate(replicas)),
    ]


def _new_partition(topic_id: bytes, partition: int, replicas: list[int]) -> PartitionRecord:
    return PartitionRecord(
        topic_id=topic_id, partition=partition, leader=replicas[0], replicas=replicas, isr=list(replicas)
    )


def _check_factor(cluster: Cluster, factor: int, brokers: Sequence[int]) -> None:
    if factor < 1:
        raise Refused(ErrorCode.INVALID_REPLICATION_FACTOR, f"replication factor {factor} is below 1")
    if factor > cluster.limits.replication_factor_max:
        raise Refused(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"replication factor {factor} is above {cluster.limits.replication_factor_max}",
        )
    if factor > len(brokers):
        raise Refused(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"replication factor {factor} is larger than the number of brokers that are up and not drained, "
            f"{len(brokers)}; `forebay up --brokers N` runs more",
        )
    most = replication_factor_max(brokers, cluster.image.domains())
    if factor > most:
        raise Refused(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"replication factor {factor}: only {most} machines are up, and each keeps one copy of a partition at most",
        )


def _more_partitions(
    cluster: Cluster, new: NewPartitions, total: int, load: Load, start: int
) -> tuple[TopicRecord, list[PartitionRecord]]:
    topic = cluster.image.topic(new.name)
    if topic is None:
        raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "there is no such topic")
    if is_internal(new.name):
        raise Refused(ErrorCode.INVALID_REQUEST, f"{new.name} keeps its partitions, or groups would be lost")
    present = cluster.image.partitions[topic.topic_id]
    if new.total_count <= len(present):
        raise Refused(
            ErrorCode.INVALID_PARTITIONS,
            f"topic {new.name} has {len(present)} partitions; {new.total_count} is not more",
        )
    _check_count(cluster, new.total_count - len(present), total)
    factor = len(target(present[0]))
    brokers = cluster.image.placeable_brokers()
    _check_factor(cluster, factor, brokers)
    replicas = place(
        new.total_count - len(present),
        factor,
        brokers,
        domains=cluster.image.domains(),
        leaders_in_topic=Counter(preferred(partition) for partition in present),
        load=load,
        start=start,
    )
    first = len(present)
    return topic, [_new_partition(topic.topic_id, first + index, ids) for index, ids in enumerate(replicas)]


def _check_count(cluster: Cluster, count: int, total: int) -> None:
    if count < 1:
        raise Refused(ErrorCode.INVALID_PARTITIONS, f"{count} partitions: a topic needs at least 1")
    if total + count > cluster.limits.partitions_max:
        raise Refused(
            ErrorCode.INVALID_PARTITIONS,
            f"{count} partitions more would make {total + count}; this cluster takes {cluster.limits.partitions_max}",
        )
