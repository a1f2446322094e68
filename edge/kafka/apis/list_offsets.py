"""ListOffsets: where logs begin and end, and where a time is in them; leaders alone say so."""

from __future__ import annotations

from functools import partial
from typing import Any

from edge.kafka.brokers import leader_code
from edge.kafka.codec import Request
from edge.kafka.context import Context
from edge.kafka.leaders import Place, ask_leaders, client_code, current_epoch
from ingest.client.offsets import first_at_or_after
from ingest.errors import CorruptBatch, ForebayError
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    FetchPartition,
    FetchRequest,
    ListedOffset,
    ListOffsetsPartition,
    ListOffsetsRequest,
    PartitionMetadata,
    TopicMetadata,
)

TIMEOUT_MS = 5_000
MAX_TIMESTAMP = -3  # KIP-734: not served
PARTITIONS_MAX = 200  # in one request to a broker


async def list_offsets(context: Context, request: Request) -> Any:
    """Ask the leaders."""
    outcomes: dict[Place, ListedOffset] = {}
    wanted = []
    for one in request.body.topics:
        for item in one.partitions:
            place = (one.name, item.partition_index)
            if item.timestamp <= MAX_TIMESTAMP:
                outcomes[place] = ListedOffset(int(ErrorCode.UNSUPPORTED_VERSION))
            else:
                wanted.append((place, partial(_asked, item)))

    async def ask(leader: int, items: list[ListOffsetsPartition]) -> list[ListedOffset]:
        answer, _ = await context.brokers.ask(leader, ListOffsetsRequest(items), timeout_ms=TIMEOUT_MS)
        return [await _refined(context, leader, *pair) for pair in zip(items, answer.partitions, strict=True)]

    outcomes.update(await ask_leaders(context, wanted, ask, ListedOffset, items_max=PARTITIONS_MAX))
    return _response(request, outcomes)


def _asked(item: Any, topic: TopicMetadata, partition: PartitionMetadata) -> ListOffsetsPartition:
    epoch = current_epoch(item.current_leader_epoch, partition)
    return ListOffsetsPartition(topic.topic_id, item.partition_index, item.timestamp, epoch)


async def _refined(context: Context, leader: int, wanted: ListOffsetsPartition, found: ListedOffset) -> ListedOffset:
    """Find the record of a time within the batch that the leader named."""
    if wanted.timestamp_ms < 0 or found.error_code or found.offset < 0:
        return found
    item = FetchPartition(wanted.topic_id, wanted.partition, found.offset, 1, wanted.leader_epoch)
    try:
        answer, payload = await context.brokers.ask(leader, FetchRequest(0, 1, 1, [item]), timeout_ms=TIMEOUT_MS)
    except ForebayError as error:
        return ListedOffset(leader_code(error))
    (fetched,) = answer.partitions
    if fetched.error_code or fetched.frame < 0:
        return ListedOffset(fetched.error_code or int(ErrorCode.OFFSET_NOT_AVAILABLE))
    try:
        first = first_at_or_after(payload[fetched.frame], wanted.timestamp_ms, found.offset)
    except CorruptBatch:
        return ListedOffset(int(ErrorCode.CORRUPT_MESSAGE))
    return found if first is None else ListedOffset(0, *first, found.leader_epoch)


def _response(request: Request, outcomes: dict[Place, ListedOffset]) -> Any:
    response = request.api.response
    topic_kind = response.ListOffsetsTopicResponse
    kind = topic_kind.ListOffsetsPartitionResponse
    topics = []
    for one in request.body.topics:
        items = []
        for item in one.partitions:
            found = outcomes[one.name, item.partition_index]
            items.append(
                kind(
                    partition_index=item.partition_index,
                    error_code=client_code(found.error_code, item.current_leader_epoch),
                    timestamp=found.timestamp_ms if item.timestamp >= 0 else -1,
                    offset=found.offset,
                    leader_epoch=found.leader_epoch,
                )
            )
        topics.append(topic_kind(name=one.name, partitions=items))
    return response(throttle_time_ms=0, topics=topics)
