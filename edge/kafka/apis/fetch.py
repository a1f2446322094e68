"""Fetch: batches from leaders in Kafka's form, waiting for as many bytes as the client wants.

Always whole fetches: no session is kept (KIP-227 leaves that to the broker).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from edge.kafka.batches import to_kafka
from edge.kafka.brokers import NoConnection
from edge.kafka.codec import Request
from edge.kafka.context import Context
from edge.kafka.fetch_codec import FetchedRecords, encode_fetch
from ingest.client.cluster import monotonic_ms
from ingest.client.offsets import ITEMS_MAX
from ingest.errors import CorruptBatch, ForebayError, RemoteError
from ingest.records.header import decode_header, verify_batch
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import FetchedPartition, FetchPartition, FetchRequest

if TYPE_CHECKING:
    from typing_extensions import Buffer

WAIT_MS_MAX = 30_000
GRACE_MS = 2_000
AGAIN_MS = 20  # before a leader that is away or new is asked again


class _Wanted(NamedTuple):
    """What a client wants of one partition, and who leads it."""

    topic: str
    leader: int
    item: FetchPartition


Place = tuple[str, int]


async def fetch(context: Context, request: Request) -> list[Buffer]:
    """Return the whole answer, in parts."""
    body, version = request.body, request.version
    say = {"version": version, "correlation_id": request.correlation_id}
    if body.replica_id >= 0:
        return (
            encode_fetch([], error_code=int(ErrorCode.CLUSTER_AUTHORIZATION_FAILED), **say)
            if version >= 7
            else (encode_fetch(_refused(body, ErrorCode.CLUSTER_AUTHORIZATION_FAILED), **say))
        )
    if version >= 7 and body.session_id:
        return encode_fetch([], error_code=int(ErrorCode.FETCH_SESSION_ID_NOT_FOUND), **say)
    await context.brokers.known()
    deadline_ms = monotonic_ms() + min(max(body.max_wait_ms, 0), WAIT_MS_MAX)
    while True:
        wanted, outcomes = _resolve(context, body)
        outcomes.update(await _read(context, body, wanted))
        left_ms = deadline_ms - monotonic_ms()
        size = sum(memoryview(part).nbytes for outcome in outcomes.values() for part in outcome.records)
        if size >= body.min_bytes or left_ms <= 0 or any(_is_news(outcome) for outcome in outcomes.values()):
            return encode_fetch(_by_topic(body, outcomes), **say)
        await _await_news(context, wanted, left_ms)


def _is_news(outcome: FetchedRecords) -> bool:
    return bool(outcome.error_code) or outcome.diverging is not None or outcome.preferred_read_replica >= 0


def _refused(body: Any, code: ErrorCode) -> list[tuple[str, list[FetchedRecords]]]:
    return [(one.topic, [FetchedRecords(item.partition, int(code)) for item in one.partitions]) for one in body.topics]


def _resolve(context: Context, body: Any) -> tuple[list[_Wanted], dict[Place, FetchedRecords]]:
    """Return what to ask of whom, and the outcome where nobody can be asked."""
    wanted, outcomes = [], {}
    for one in body.topics:
        for item in one.partitions:
            number = item.partition
            found = context.brokers.partition(one.topic, number)
            code = ErrorCode.NONE
            if found is None:
                code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif found[1].leader < 0:
                code = ErrorCode.LEADER_NOT_AVAILABLE
            if found is None or code:
                context.brokers.outdated(code)
                outcomes[one.topic, number] = FetchedRecords(number, int(code))
                continue
            topic, partition = found
            epoch = item.current_leader_epoch
            asked = FetchPartition(
                topic.topic_id,
                number,
                item.fetch_offset,
                max(0, item.partition_max_bytes),
                epoch if epoch >= 0 else partition.leader_epoch,
                item.last_fetched_epoch,
            )
            wanted.append(_Wanted(one.topic, partition.leader, asked))
    return wanted, outcomes


def _by_leader(wanted: Iterable[_Wanted]) -> list[tuple[int, list[_Wanted]]]:
    """Return leaders with what each is to be asked, in portions that a request has room for."""
    found: dict[int, list[_Wanted]] = defaultdict(list)
    for one in wanted:
        found[one.leader].append(one)
    return [
        (leader, some[start : start + ITEMS_MAX])
        for leader, some in found.items()
        for start in range(0, len(some), ITEMS_MAX)
    ]


async def _read(context: Context, body: Any, wanted: Sequence[_Wanted]) -> dict[Place, FetchedRecords]:
    """Ask every leader for what there is now."""
    answers = await asyncio.gather(*(_ask(context, body, leader, some) for leader, some in _by_leader(wanted)))
    return {place: outcome for answer in answers for place, outcome in answer.items()}


async def _ask(context: Context, body: Any, leader: int, some: Sequence[_Wanted]) -> dict[Place, FetchedRecords]:
    asked = FetchRequest(0, 1, max(1, body.max_bytes), [one.item for one in some])
    try:
        answer, payload = await context.brokers.ask(leader, asked, timeout_ms=GRACE_MS)
    except ForebayError as error:
        code = error.code if isinstance(error, RemoteError) else int(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        context.brokers.outdated(code)
        return {(one.topic, one.item.partition): FetchedRecords(one.item.partition, code) for one in some}
    outcomes = {}
    for one, item in zip(some, answer.partitions, strict=True):
        context.brokers.outdated(item.error_code)
        outcomes[one.topic, item.partition] = _outcome(item, payload)
    return outcomes


def _outcome(item: FetchedPartition, payload: Sequence[Any]) -> FetchedRecords:
    code = item.error_code
    records: list[Buffer] = []
    if item.frame >= 0:
        try:
            records = _converted(memoryview(payload[item.frame]))
        except CorruptBatch:
            code = int(ErrorCode.CORRUPT_MESSAGE)
    if code == ErrorCode.UNKNOWN_TOPIC_ID:
        code = int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    diverging = (item.diverging_epoch, item.diverging_end_offset) if item.diverging_end_offset >= 0 else None
    return FetchedRecords(
        item.partition,
        code,
        item.high_watermark,
        item.log_start_offset,
        item.preferred_read_replica,
        records,
        diverging,
    )


def _converted(data: memoryview) -> list[Buffer]:
    records: list[Buffer] = []
    position = 0
    while position < data.nbytes:
        header = decode_header(data, position)
        batch = data[position : position + header.size]
        verify_batch(batch, header)
        records.extend(to_kafka(batch, header))
        position += header.padded_size
    return records


async def _await_news(context: Context, wanted: Sequence[_Wanted], left_ms: int) -> None:
    """Wait until some high watermark passes what the client has, or the time is over."""
    bells = [asyncio.ensure_future(_ring(context, leader, some, left_ms)) for leader, some in _by_leader(wanted)]
    if not bells:
        await asyncio.sleep(min(left_ms, AGAIN_MS) / 1000)
        return
    try:
        await asyncio.wait(bells, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for bell in bells:
            bell.cancel()


async def _ring(context: Context, leader: int, some: Sequence[_Wanted], left_ms: int) -> None:
    items = [
        FetchPartition(one.item.topic_id, one.item.partition, one.item.offset, 0, one.item.leader_epoch) for one in some
    ]
    try:
        await context.brokers.ask(leader, FetchRequest(left_ms, 1, 0, items), timeout_ms=left_ms + GRACE_MS)
    except NoConnection:
        await asyncio.sleep(AGAIN_MS / 1000)
    except ForebayError:
        return


def _by_topic(body: Any, outcomes: dict[Place, FetchedRecords]) -> list[tuple[str, list[FetchedRecords]]]:
    return [(one.topic, [outcomes[one.topic, item.partition] for item in one.partitions]) for one in body.topics]
