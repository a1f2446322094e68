"""Questions about partitions, put to their leaders, in portions that a request has room for."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from edge.kafka.brokers import leader_code
from edge.kafka.context import Context
from ingest.errors import ForebayError
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import PartitionMetadata, TopicMetadata

Place = tuple[str, int]  # topic and partition


class Outcome(Protocol):
    """What a leader answers of one partition."""

    @property
    def error_code(self) -> int: ...


Item = TypeVar("Item")
Answer = TypeVar("Answer", bound=Outcome)


async def ask_leaders(
    context: Context,
    wanted: Iterable[tuple[Place, Callable[[TopicMetadata, PartitionMetadata], Item]]],
    ask: Callable[[int, list[Item]], Awaitable[Sequence[Answer]]],
    failed: Callable[[int], Answer],
    *,
    items_max: int,
) -> dict[Place, Answer]:
    """Return the outcome for each place.

    Args:
        wanted: Places, and how to ask about each once its leader is known; of one named twice the first counts.
        ask: Ask a leader about some; one answer for each, in order.
        failed: Makes an outcome of an error code, where there is no leader or it could not be asked.
        items_max: How many a request may ask about.
    """
    await context.brokers.known()
    outcomes: dict[Place, Answer] = {}
    by_leader: dict[int, list[tuple[Place, Item]]] = defaultdict(list)
    named: set[Place] = set()
    for place, make in wanted:
        if place in named:
            continue
        named.add(place)
        found = context.brokers.led(*place)
        if isinstance(found, ErrorCode):
            outcomes[place] = failed(int(found))
        else:
            by_leader[found[1].leader].append((place, make(*found)))

    async def ask_some(leader: int, some: Sequence[tuple[Place, Item]]) -> dict[Place, Answer]:
        places = [place for place, _ in some]
        try:
            answers = await ask(leader, [item for _, item in some])
        except ForebayError as error:
            code = leader_code(error)
            context.brokers.outdated(code)
            return dict.fromkeys(places, failed(code))
        for answer in answers:
            context.brokers.outdated(answer.error_code)
        return dict(zip(places, answers, strict=True))

    portions = [
        ask_some(leader, some[start : start + items_max])
        for leader, some in by_leader.items()
        for start in range(0, len(some), items_max)
    ]
    for answered in await asyncio.gather(*portions):
        outcomes.update(answered)
    return outcomes


def current_epoch(told: int, partition: PartitionMetadata) -> int:
    """Return the leader epoch to ask under: what the client knows, or else what metadata says."""
    return told if told >= 0 else partition.leader_epoch


def client_code(code: int, told: int = -1) -> int:
    """Return a leader's code in the words of a client that knows no topic id, and an epoch only where it told one.

    Librdkafka gives a batch up for a FENCED_LEADER_EPOCH, which Kafka never answers to Produce, nor that too many wait.
    """
    if code == ErrorCode.UNKNOWN_TOPIC_ID:
        return int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    if code == ErrorCode.THROTTLING_QUOTA_EXCEEDED:
        return int(ErrorCode.REQUEST_TIMED_OUT)
    if told < 0 and code in (ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.UNKNOWN_LEADER_EPOCH):
        return int(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    return code
