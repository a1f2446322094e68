"""OffsetForLeaderEpoch: where leader epochs end, by which clients notice that a log was cut (KIP-320)."""

from __future__ import annotations

from functools import partial
from typing import Any

from edge.kafka.codec import Request
from edge.kafka.context import Context
from edge.kafka.leaders import ask_leaders, client_code, current_epoch
from ingest.wire.messages import (
    EPOCH_END_PARTITIONS_MAX,
    EpochEnd,
    EpochEndPartition,
    OffsetForLeaderEpochRequest,
    PartitionMetadata,
    TopicMetadata,
)

TIMEOUT_MS = 5_000


async def epoch_ends(context: Context, request: Request) -> Any:
    """Ask the leaders."""
    body, response = request.body, request.api.response

    async def ask(leader: int, items: list[EpochEndPartition]) -> list[EpochEnd]:
        answer, _ = await context.brokers.ask(leader, OffsetForLeaderEpochRequest(items), timeout_ms=TIMEOUT_MS)
        found: list[EpochEnd] = answer.partitions
        return found

    wanted = [((one.topic, item.partition), partial(_asked, item)) for one in body.topics for item in one.partitions]
    outcomes = await ask_leaders(context, wanted, ask, EpochEnd, items_max=EPOCH_END_PARTITIONS_MAX)
    kind = response.OffsetForLeaderTopicResult
    topics = [
        kind(
            topic=one.topic,
            partitions=[
                _result(kind.EpochEndOffset, item, outcomes[one.topic, item.partition]) for item in one.partitions
            ],
        )
        for one in body.topics
    ]
    return response(throttle_time_ms=0, topics=topics)


def _result(kind: Any, item: Any, end: EpochEnd) -> Any:
    code = client_code(end.error_code, item.current_leader_epoch)
    return kind(error_code=code, partition=item.partition, leader_epoch=end.epoch, end_offset=end.end_offset)


def _asked(item: Any, topic: TopicMetadata, partition: PartitionMetadata) -> EpochEndPartition:
    epoch = current_epoch(item.current_leader_epoch, partition)
    return EpochEndPartition(topic.topic_id, item.partition, item.leader_epoch, epoch)
