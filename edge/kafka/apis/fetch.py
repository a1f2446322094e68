"""Fetch: batches from leaders in Kafka's form, waiting for as many bytes as the client wants.

Always whole fetches: no session is kept (KIP-227 leaves that to the broker).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from edge.kafka.brokers import leader_code
from edge.kafka.codec import FETCH, Request
from edge.kafka.context import Context
from edge.kafka.conversion import Batches, Conversion
from edge.kafka.doorbell import Watched
from edge.kafka.fetch_codec import FetchedRecords, encode_fetch
from edge.kafka.leaders import client_code, current_epoch
from edge.kafka.memory import Making
from ingest.client.cluster import monotonic_ms
from ingest.client.offsets import ITEMS_MAX
from ingest.errors import CorruptBatch, ForebayError
from ingest.records.header import decode_header, verify_batch
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import FetchedPartition, FetchPartition, FetchRequest

if TYPE_CHECKING:
    from typing_extensions import Buffer

WAIT_MS_MAX = 30_000
GRACE_MS = 2_000
TURN_BYTES = 1 << 20  # read from a map before others have their turn
RECORDS_BYTES_MAX = 55 << 20  # in one answer; Kafka's fetch.max.bytes of brokers


class _Wanted(NamedTuple):
    """What a client wants of one partition, who leads it, and the epoch that the client told, if any."""

    topic: str
    leader: int
    leader_epoch: int
    item: FetchPartition
    told_epoch: int


Place = tuple[str, int]


async def fetch(context: Context, request: Request) -> list[Buffer]:
    """Return the whole answer, in parts."""
    body, version = request.body, request.version
    say = {"version": version, "correlation_id": request.correlation_id}
    if body.replica_id >= 0:
        return (
            encode_fetch([], error_code=int(ErrorCode.CLUSTER_AUTHORIZATION_FAILED), **say)
            if version >= 7
            else encode_fetch(_refused(body, ErrorCode.CLUSTER_AUTHORIZATION_FAILED), **say)
        )
    if version >= 7 and body.session_id:
        return encode_fetch([], error_code=int(ErrorCode.FETCH_SESSION_ID_NOT_FOUND), **say)
    await context.brokers.known()
    deadline_ms = monotonic_ms() + min(max(body.max_wait_ms, 0), WAIT_MS_MAX)
    while True:
        wanted, outcomes = _resolve(context, body)
        with Making(context.memory) as making:
            await _read(context, request, wanted, outcomes, making)
        size = sum(memoryview(part).nbytes for outcome in outcomes.values() for part in outcome.records)
        if size >= body.min_bytes or context.throttle_ms or any(_is_news(outcome) for outcome in outcomes.values()):
            break
        left_ms = deadline_ms - monotonic_ms()
        if left_ms <= 0 or not await context.doorbells.wait(_watched(wanted, outcomes), left_ms / 1000):
            break
    context.counters.fetched += sum(outcome.record_count for outcome in outcomes.values())
    context.counters.apis.refused(FETCH, (outcome.error_code for outcome in outcomes.values()))
    return encode_fetch(_by_topic(body, outcomes), throttle_ms=context.throttle_ms, **say)


def _is_news(outcome: FetchedRecords) -> bool:
    return bool(outcome.error_code) or outcome.diverging is not None or outcome.preferred_read_replica >= 0


def _refused(body: Any, code: ErrorCode) -> list[tuple[str, list[FetchedRecords]]]:
    return [(one.topic, [FetchedRecords(item.partition, int(code)) for item in one.partitions]) for one in body.topics]


def _resolve(context: Context, body: Any) -> tuple[list[_Wanted], dict[Place, FetchedRecords]]:
    """Return what to ask of whom, and the outcome where nobody can be asked."""
    wanted, outcomes = [], {}
    named: set[Place] = set()
    for one in body.topics:
        for item in one.partitions:
            number = item.partition
            if (one.topic, number) in named:
                continue
            named.add((one.topic, number))
            found = context.brokers.led(one.topic, number)
            if isinstance(found, ErrorCode):
                outcomes[one.topic, number] = FetchedRecords(number, int(found))
                continue
            topic, partition = found
            epoch = item.current_leader_epoch
            asked = FetchPartition(
                topic.topic_id,
                number,
                item.fetch_offset,
                max(0, item.partition_max_bytes),
                current_epoch(epoch, partition),
                item.last_fetched_epoch,
            )
            wanted.append(_Wanted(one.topic, partition.leader, partition.leader_epoch, asked, epoch))
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


async def _read(
    context: Context,
    request: Request,
    wanted: Sequence[_Wanted],
    outcomes: dict[Place, FetchedRecords],
    making: Making,
) -> None:
    """Find what there is now: in the maps of leaders on this machine, elsewhere by asking.

    Each leader has a share of the bytes that may be answered, by its partitions: none keeps another waiting. A client
    with a quota is served by leaders alone, which count what it gets.
    """
    share = min(max(request.body.max_bytes, 1), RECORDS_BYTES_MAX) // max(1, len(wanted))
    may_map = not context.quotas.of_fetch(request.client_id)
    mapped: list[_Wanted] = []
    asked: list[_Wanted] = []
    for one in wanted:
        (mapped if may_map and context.logs.has(one.leader, one.leader_epoch, one.item) else asked).append(one)
    left = max(1, share * len(mapped))
    conversion = Conversion(context.decoding)
    for one in mapped:
        found = await context.logs.read(one.item, left)
        if found is None:
            asked.append(one)
            continue
        batches = making.fitting(found.batches, all_copied=context.is_tls)
        size = sum(batch.nbytes for _, batch in batches)
        left -= size
        if size > TURN_BYTES:
            await asyncio.sleep(0)  # others have their turn
        number, code = one.item.partition, 0
        records: list[Buffer] = []
        count = 0
        try:
            records, count = await conversion.to_kafka(batches)
        except CorruptBatch:
            code = int(ErrorCode.CORRUPT_MESSAGE)
        outcomes[one.topic, number] = FetchedRecords(
            number, code, found.high_watermark, found.log_start, records=records, record_count=count
        )
    if not asked:
        return
    portions = _by_leader(asked)
    room = context.memory.answer_room
    answers = await asyncio.gather(
        *(
            _ask(context, request.client_id, min(share * len(some), room), leader, some, conversion)
            for leader, some in portions
        )
    )
    for answer in answers:
        outcomes.update(answer)


async def _ask(
    context: Context, client_id: str, bytes_max: int, leader: int, some: Sequence[_Wanted], conversion: Conversion
) -> dict[Place, FetchedRecords]:
    asked = FetchRequest(0, 1, max(1, bytes_max), [one.item for one in some])
    try:
        answer, payload = await context.brokers.ask(leader, asked, timeout_ms=GRACE_MS, client_id=client_id)
    except ForebayError as error:
        code = leader_code(error)
        context.brokers.outdated(code)
        return {(one.topic, one.item.partition): FetchedRecords(one.item.partition, code) for one in some}
    context.throttle(answer.throttle_ms)
    outcomes = {}
    for one, item in zip(some, answer.partitions, strict=True):
        context.brokers.outdated(item.error_code)
        context.logs.learn(leader, item)
        outcomes[one.topic, item.partition] = await _outcome(one, item, payload, conversion)
    return outcomes


async def _outcome(
    one: _Wanted, item: FetchedPartition, payload: Sequence[Any], conversion: Conversion
) -> FetchedRecords:
    code = client_code(item.error_code, one.told_epoch)
    records: list[Buffer] = []
    count = 0
    if item.frame >= 0:
        try:
            records, count = await conversion.to_kafka(_batches(memoryview(payload[item.frame])))
        except CorruptBatch:
            code = int(ErrorCode.CORRUPT_MESSAGE)
    diverging = (item.diverging_epoch, item.diverging_end_offset) if item.diverging_end_offset >= 0 else None
    return FetchedRecords(
        item.partition,
        code,
        item.high_watermark,
        item.log_start_offset,
        item.preferred_read_replica,
        records,
        diverging,
        count,
    )


def _batches(data: memoryview) -> Batches:
    batches = []
    position = 0
    while position < data.nbytes:
        header = decode_header(data, position)
        batch = data[position : position + header.size]
        verify_batch(batch, header)
        batches.append((header, batch))
        position += header.padded_size
    return batches


def _watched(wanted: Iterable[_Wanted], outcomes: Mapping[Place, FetchedRecords]) -> list[tuple[int, Watched]]:
    """Return beyond which offsets there would be more than was found now."""
    return [
        (
            one.leader,
            Watched(
                one.item.topic_id,
                one.item.partition,
                max(one.item.offset, outcomes[one.topic, one.item.partition].high_watermark),
                one.item.leader_epoch,
            ),
        )
        for one in wanted
    ]


def _by_topic(body: Any, outcomes: Mapping[Place, FetchedRecords]) -> Iterable[tuple[str, list[FetchedRecords]]]:
    """Return each outcome once, however often the request names it: the records of one may be 55 MiB."""
    found: dict[str, list[FetchedRecords]] = defaultdict(list)
    for place in dict.fromkeys((one.topic, item.partition) for one in body.topics for item in one.partitions):
        found[place[0]].append(outcomes[place])
    return found.items()
