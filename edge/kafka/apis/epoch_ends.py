"""OffsetForLeaderEpoch: where leader epochs end, by which clients notice that a log was cut (KIP-320)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from edge.kafka.codec import Request
from edge.kafka.context import Context
from ingest.errors import ForebayError, RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    EPOCH_END_PARTITIONS_MAX,
    EpochEnd,
    EpochEndPartition,
    OffsetForLeaderEpochRequest,
)

TIMEOUT_MS = 5_000

Place = tuple[str, int]
Asked = tuple[Place, EpochEndPartition]


async def epoch_ends(context: Context, request: Request) -> Any:
    """Ask the leaders."""
    body, response = request.body, request.api.response
    await context.brokers.known()
    outcomes: dict[Place, EpochEnd] = {}
    by_leader: dict[int, list[Asked]] = defaultdict(list)
    for one in body.topics:
        for item in one.partitions:
            place = (one.topic, item.partition)
            found = context.brokers.partition(*place)
            if found is None or found[1].leader < 0:
                code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if found is None else ErrorCode.LEADER_NOT_AVAILABLE
                context.brokers.outdated(code)
                outcomes[place] = EpochEnd(int(code))
                continue
            epoch = item.current_leader_epoch
            asked = EpochEndPartition(
                found[0].topic_id,
                item.partition,
                item.leader_epoch,
                epoch if epoch >= 0 else found[1].leader_epoch,
            )
            by_leader[found[1].leader].append((place, asked))
    portions = [
        (leader, some[start : start + EPOCH_END_PARTITIONS_MAX])
        for leader, some in by_leader.items()
        for start in range(0, len(some), EPOCH_END_PARTITIONS_MAX)
    ]
    for answer in await asyncio.gather(*(_ask(context, leader, some) for leader, some in portions)):
        outcomes.update(answer)
    kind = response.OffsetForLeaderTopicResult
    topics = [
        kind(
            topic=one.topic,
            partitions=[
                _result(kind.EpochEndOffset, item.partition, outcomes[one.topic, item.partition])
                for item in one.partitions
            ],
        )
        for one in body.topics
    ]
    return response(throttle_time_ms=0, topics=topics)


def _result(kind: Any, partition: int, end: EpochEnd) -> Any:
    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if end.error_code == ErrorCode.UNKNOWN_TOPIC_ID else end.error_code
    return kind(error_code=int(code), partition=partition, leader_epoch=end.epoch, end_offset=end.end_offset)


async def _ask(context: Context, leader: int, some: list[Asked]) -> dict[Place, EpochEnd]:
    places = [place for place, _ in some]
    try:
        answer, _ = await context.brokers.ask(
            leader, OffsetForLeaderEpochRequest([item for _, item in some]), timeout_ms=TIMEOUT_MS
        )
    except ForebayError as error:
        code = error.code if isinstance(error, RemoteError) else int(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        context.brokers.outdated(code)
        return dict.fromkeys(places, EpochEnd(code))
    for item in answer.partitions:
        context.brokers.outdated(item.error_code)
    return dict(zip(places, answer.partitions, strict=True))
