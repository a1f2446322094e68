"""Committed offsets of groups: topics by name outside, by id inside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from edge.kafka.codec import Request
from edge.kafka.context import Context
from edge.kafka.coordinators import ask_each
from ingest.errors import RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import (
    CommittedOffset,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
)

TIMEOUT_MS = 10_000
OFFSETS_IN_REQUEST = 100  # each may carry 4 KiB of metadata, and a header takes 64 KiB times some

Place = tuple[str, int]


async def offset_commit(context: Context, request: Request) -> Any:
    """Commit: in portions that a request has room for; what one portion is refused for is its partitions' error."""
    body, response = request.body, request.api.response
    await context.brokers.known()
    codes: dict[Place, int] = {}
    items: list[tuple[Place, CommittedOffset]] = []
    for one in body.topics:
        topic = context.brokers.topics.get(one.name)
        for item in one.partitions:
            place = (one.name, item.partition_index)
            if topic is None:
                context.brokers.outdated(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
                codes[place] = int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
                continue
            committed = CommittedOffset(
                topic.topic_id,
                item.partition_index,
                item.committed_offset,
                item.committed_leader_epoch if request.version >= 6 else -1,
                item.committed_metadata or "",
            )
            items.append((place, committed))
    for some in _portions(items):
        asked = OffsetCommitRequest(
            body.group_id,
            [committed for _, committed in some],
            body.generation_id_or_member_epoch,
            body.member_id,
            body.group_instance_id,
        )
        try:
            answer = await context.coordinators.ask(
                body.group_id, asked, timeout_ms=TIMEOUT_MS, client_id=request.client_id
            )
            found = list(answer.offsets) or [answer.error_code] * len(some)
        except RemoteError as error:
            found = [error.code] * len(some)
        codes.update(zip((place for place, _ in some), found, strict=True))
    kind = response.OffsetCommitResponseTopic
    topics = [
        kind(
            name=one.name,
            partitions=[
                kind.OffsetCommitResponsePartition(
                    partition_index=item.partition_index, error_code=_outside(codes[one.name, item.partition_index])
                )
                for item in one.partitions
            ],
        )
        for one in body.topics
    ]
    return response(throttle_time_ms=0, topics=topics)


def _portions(items: Sequence[tuple[Place, CommittedOffset]]) -> Iterable[list[tuple[Place, CommittedOffset]]]:
    portion: list[tuple[Place, CommittedOffset]] = []
    room = 0
    for place, item in items:
        size = 50 + 4 * len(item.metadata)
        if portion and (room < size or len(portion) >= OFFSETS_IN_REQUEST * 10):
            yield portion
            portion = []
        if not portion:
            room = 60 * 1024
        room -= size
        portion.append((place, item))
    if portion:
        yield portion


def _outside(code: int) -> int:
    return int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION) if code == ErrorCode.UNKNOWN_TOPIC_ID else code


async def offset_fetch(context: Context, request: Request) -> Any:
    """Tell what is committed: of the partitions named, or of all."""
    body, response = request.body, request.api.response
    await context.brokers.known()
    if request.version >= 8:
        found = await ask_each(lambda one: _fetched(context, one.group_id, one.topics), body.groups)
        kind = response.OffsetFetchResponseGroup
        groups = [
            kind(group_id=one.group_id, topics=_topics(kind.OffsetFetchResponseTopics, offsets), error_code=code)
            for one, (code, offsets) in zip(body.groups, found, strict=True)
        ]
        return response(throttle_time_ms=0, groups=groups)
    code, offsets = await _fetched(context, body.group_id, body.topics)
    if code and request.version < 2:  # there is no place for it but the partitions'
        offsets = {place: None for one in body.topics or () for place in _places(one)}
    topics = _topics(response.OffsetFetchResponseTopic, offsets, code if request.version < 2 else 0)
    return response(throttle_time_ms=0, topics=topics, error_code=code)


def _places(topic: Any) -> list[Place]:
    return [(topic.name, number) for number in topic.partition_indexes]


async def _fetched(context: Context, group: str, topics: Any) -> tuple[int, dict[Place, CommittedOffset | None]]:
    """Return the group's error, and offsets by place, None where nothing is committed."""
    try:
        if topics is None:
            return 0, await _all(context, group)
        wanted = [place for one in topics for place in _places(one)]
        return 0, await _named(context, group, wanted)
    except RemoteError as error:
        return error.code, {}


async def _all(context: Context, group: str) -> dict[Place, CommittedOffset | None]:
    names = {topic.topic_id: topic.name for topic in context.brokers.topics.values()}
    found: dict[Place, CommittedOffset | None] = {}
    after: tuple[bytes, int] | None = None
    while True:
        answer = await context.coordinators.ask(
            group, OffsetFetchRequest(group, None, after=after), timeout_ms=TIMEOUT_MS
        )
        if answer.error_code:
            raise RemoteError(answer.message, code=answer.error_code)
        found.update({(names[one.topic_id], one.partition): one for one in answer.offsets if one.topic_id in names})
        if not answer.more or not answer.offsets:
            return found
        after = (answer.offsets[-1].topic_id, answer.offsets[-1].partition)


async def _named(context: Context, group: str, wanted: Sequence[Place]) -> dict[Place, CommittedOffset | None]:
    found: dict[Place, CommittedOffset | None] = dict.fromkeys(wanted)
    known = [place for place in wanted if place[0] in context.brokers.topics]
    for start in range(0, len(known), OFFSETS_IN_REQUEST):
        some = known[start : start + OFFSETS_IN_REQUEST]
        ids = [(context.brokers.topics[name].topic_id, number) for name, number in some]
        answer = await context.coordinators.ask(group, OffsetFetchRequest(group, ids), timeout_ms=TIMEOUT_MS)
        if answer.error_code:
            raise RemoteError(answer.message, code=answer.error_code)
        found.update(zip(some, answer.offsets, strict=True))
    return found


def _topics(kind: Any, offsets: dict[Place, CommittedOffset | None], code: int = 0) -> list[Any]:
    by_name: dict[str, list[tuple[int, CommittedOffset | None]]] = defaultdict(list)
    for (name, number), item in offsets.items():
        by_name[name].append((number, item))
    partition = (
        kind.OffsetFetchResponsePartitions
        if hasattr(kind, "OffsetFetchResponsePartitions")
        else (kind.OffsetFetchResponsePartition)
    )
    return [
        kind(
            name=name,
            partitions=[
                partition(
                    partition_index=number,
                    committed_offset=-1 if item is None else item.offset,
                    committed_leader_epoch=-1 if item is None else item.leader_epoch,
                    metadata="" if item is None else item.metadata,
                    error_code=code,
                )
                for number, item in items
            ],
        )
        for name, items in by_name.items()
    ]


async def offset_delete(context: Context, request: Request) -> Any:
    """Forget what a group has committed for partitions that no member reads."""
    body, response = request.body, request.api.response
    await context.brokers.known()
    places = [(one.name, item.partition_index) for one in body.topics for item in one.partitions]
    codes: dict[Place, int] = dict.fromkeys(places, int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
    known = [place for place in places if place[0] in context.brokers.topics]
    ids = [(context.brokers.topics[name].topic_id, number) for name, number in known]
    code = 0
    try:
        answer = await context.coordinators.ask(
            body.group_id, OffsetDeleteRequest(body.group_id, ids), timeout_ms=TIMEOUT_MS
        )
        code = answer.error_code
        if not code:
            codes.update(zip(known, answer.partitions, strict=True))
    except RemoteError as error:
        code = error.code
    kind = response.OffsetDeleteResponseTopic
    topics = [
        kind(
            name=one.name,
            partitions=[
                kind.OffsetDeleteResponsePartition(
                    partition_index=item.partition_index, error_code=_outside(codes[one.name, item.partition_index])
                )
                for item in one.partitions
            ],
        )
        for one in body.topics
    ]
    return response(error_code=code, throttle_time_ms=0, topics=[] if code else topics)
