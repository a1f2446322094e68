"""Topics are created, grown, deleted and cut: the controller and the leaders do it, the gateway asks them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any
from uuid import UUID

from edge.kafka.codec import Request
from edge.kafka.context import Context
from edge.kafka.leaders import ask_leaders, client_code
from ingest.errors import ForebayError, RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.message import Message
from ingest.wire.messages import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeletedRecords,
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
    NewPartitions,
    NewTopic,
    PartitionMetadata,
    TopicMetadata,
    TopicResult,
)

NEWS_TIMEOUT_MS = 5_000
TIMEOUT_MS_MAX = 60_000
CUTS_MAX = 1_000  # in one request to a broker, whose header may take 64 KiB
_CHOSEN = "brokers choose where replicas go; leave the assignment out, and reassign afterwards"


async def create_topics(context: Context, request: Request) -> Any:
    """Create topics, or only tell whether they could be."""
    body, response = request.body, request.api.response
    results = {
        one.name: TopicResult(one.name, int(ErrorCode.INVALID_REPLICA_ASSIGNMENT), _CHOSEN)
        for one in body.topics
        if one.assignments
    }
    names = Counter(one.name for one in body.topics)
    for name, count in names.items():
        if count > 1:
            results[name] = TopicResult(name, int(ErrorCode.INVALID_REQUEST), "named twice")
    wanted = [
        NewTopic(
            one.name,
            one.num_partitions,
            one.replication_factor,
            {item.name: item.value for item in one.configs if item.value is not None},
        )
        for one in body.topics
        if one.name not in results
    ]
    validate_only = bool(body.validate_only) if request.version >= 1 else False
    if wanted:
        results.update(
            await _changed(context, CreateTopicsRequest(wanted, validate_only), [one.name for one in wanted], body)
        )
        if not validate_only:
            await context.brokers.newer(NEWS_TIMEOUT_MS)
    kind = response.CreatableTopicResult
    topics = []
    for name in names:
        result = results[name]
        made = context.brokers.topics.get(name)
        topics.append(
            kind(
                name=name,
                topic_id=UUID(bytes=result.topic_id) if result.topic_id else UUID(int=0),
                error_code=result.error_code,
                error_message=result.message or None,
                num_partitions=len(made.partitions) if made else -1,
                replication_factor=len(made.partitions[0].replicas) if made and made.partitions else -1,
                configs=[],
            )
        )
    return response(throttle_time_ms=0, topics=topics)


async def delete_topics(context: Context, request: Request) -> Any:
    """Delete topics, by name or by id."""
    body, response = request.body, request.api.response
    await context.brokers.known()
    kind = response.DeletableTopicResult
    if request.version < 6:
        wanted = [(name, UUID(int=0)) for name in body.topic_names]
    else:
        by_id = {topic.topic_id: topic.name for topic in context.brokers.topics.values()}
        wanted = [
            (one.name if one.name is not None else by_id.get(one.topic_id.bytes), one.topic_id) for one in body.topics
        ]
    names = [name for name, _ in wanted if name is not None]
    results = await _changed(context, DeleteTopicsRequest(names), names, body) if names else {}
    await context.brokers.newer(NEWS_TIMEOUT_MS)
    responses = []
    for name, topic_id in wanted:
        result = results.get(name or "") or TopicResult("", int(ErrorCode.UNKNOWN_TOPIC_ID))
        responses.append(
            kind(name=name, topic_id=topic_id, error_code=result.error_code, error_message=result.message or None)
        )
    return response(throttle_time_ms=0, responses=responses)


async def create_partitions(context: Context, request: Request) -> Any:
    """Grow topics."""
    body, response = request.body, request.api.response
    results = {
        one.name: TopicResult(one.name, int(ErrorCode.INVALID_REPLICA_ASSIGNMENT), _CHOSEN)
        for one in body.topics
        if one.assignments
    }
    wanted = [NewPartitions(one.name, one.count) for one in body.topics if one.name not in results]
    if wanted:
        asked = CreatePartitionsRequest(wanted, bool(body.validate_only))
        results.update(await _changed(context, asked, [one.name for one in wanted], body))
        await context.brokers.newer(NEWS_TIMEOUT_MS)
    kind = response.CreatePartitionsTopicResult
    found = [
        kind(name=name, error_code=result.error_code, error_message=result.message or None)
        for name, result in results.items()
    ]
    return response(throttle_time_ms=0, results=found)


async def _changed(context: Context, asked: Message, names: Iterable[str], body: Any) -> dict[str, TopicResult]:
    timeout_ms = min(max(body.timeout_ms, 1_000), TIMEOUT_MS_MAX)
    try:
        answer = await context.brokers.ask_any(asked, timeout_ms=timeout_ms)
    except RemoteError as error:
        return {name: TopicResult(name, error.code, str(error)) for name in names}
    except ForebayError as error:
        return {name: TopicResult(name, int(ErrorCode.REQUEST_TIMED_OUT), str(error)) for name in names}
    return {result.name: result for result in answer.topics}


async def delete_records(context: Context, request: Request) -> Any:
    """Delete what lies below an offset."""
    body, response = request.body, request.api.response
    timeout_ms = min(max(body.timeout_ms, 1_000), TIMEOUT_MS_MAX)

    async def ask(leader: int, items: list[DeleteRecordsPartition]) -> list[DeletedRecords]:
        answer, _ = await context.brokers.ask(leader, DeleteRecordsRequest(items), timeout_ms=timeout_ms)
        found: list[DeletedRecords] = answer.partitions
        return found

    wanted = [((one.name, item.partition_index), partial(_cut, item)) for one in body.topics for item in one.partitions]
    outcomes = await ask_leaders(context, wanted, ask, DeletedRecords, items_max=CUTS_MAX)
    kind = response.DeleteRecordsTopicResult
    topics = [
        kind(
            name=one.name,
            partitions=[
                kind.DeleteRecordsPartitionResult(
                    partition_index=item.partition_index,
                    low_watermark=outcomes[one.name, item.partition_index].log_start_offset,
                    error_code=client_code(outcomes[one.name, item.partition_index].error_code),
                )
                for item in one.partitions
            ],
        )
        for one in body.topics
    ]
    return response(throttle_time_ms=0, topics=topics)


def _cut(item: Any, topic: TopicMetadata, _: PartitionMetadata) -> DeleteRecordsPartition:
    return DeleteRecordsPartition(topic.topic_id, item.partition_index, item.offset)
