"""Produce: one batch a partition, checked, given the log's header, and sent to its leader once.

A client's own producer id, epoch and sequence go with it. Nothing is tried again here: whether a batch whose answer was
lost is in the log only the client's next try under the same sequence finds out.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from edge.kafka.batches import Refused, from_kafka, is_compressed
from edge.kafka.brokers import NoConnection
from edge.kafka.codec import Request
from edge.kafka.context import Context
from edge.kafka.leaders import client_code
from edge.kafka.produce_codec import ProduceBody, ProducedRecords
from edge.kafka.tally import Tally
from ingest.errors import ForebayError, RemoteError
from ingest.limits import LIMITS
from ingest.topic_name import is_internal
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import ProducedPartition, ProducePartition, ProduceRequest

GRACE_MS = 1_000  # for the answer that tells that it took too long
TIMEOUT_MS_MAX = 300_000
TURN_S = 0.02  # of a client whose batches are checked
INLINE_BYTES_MAX = 1 << 17  # of a batch checked within the loop; a compressed one may hold a second's work in little
PORTION_BYTES = LIMITS.batch_bytes_max  # of one request to a broker, and one batch more

Outcome = ProducedPartition
Place = tuple[str, int]
Batch = tuple[Place, ProducePartition, bytes]


async def produce(context: Context, request: Request) -> Any | None:
    """Append records; None with acks 0, which is not answered."""
    body: ProduceBody = request.body
    await context.brokers.known()
    with Tally(context.counters) as counted:
        async with context.checking:  # what one client sends goes to the leaders in its order
            outcomes, batches = await _sorted_out(context, body, counted)
            sending = asyncio.gather(
                *(_send(context, request, leader, some) for leader in batches for some in _portions(batches[leader]))
            )
        for answer in await sending:
            outcomes.update(answer)
            counted.appended(place for place, outcome in answer.items() if not outcome.error_code)
    return _response(request, body, outcomes, context.throttle_ms) if body.acks else None


async def _sorted_out(
    context: Context, body: ProduceBody, counted: Tally
) -> tuple[dict[Place, Outcome], dict[int, list[Batch]]]:
    """Return what is refused, and what goes to which leader. Others have their turn while much is checked."""
    outcomes: dict[Place, Outcome] = {}
    batches: dict[int, list[Batch]] = defaultdict(list)
    named = Counter((item.topic, item.partition) for item in body.records)
    began = time.perf_counter()
    for item in body.records:
        place = (item.topic, item.partition)
        try:
            if named[place] > 1:
                raise Refused(ErrorCode.INVALID_RECORD, "more than one batch for a partition")
            leader, partition, batch, count = await _checked(context, body, item)
        except Refused as refused:
            outcomes[place] = Outcome(int(refused.code), message=str(refused))
            counted.came(place, 1)
        else:
            counted.came(place, count)
            batches[leader].append((place, partition, batch))
        if time.perf_counter() - began > TURN_S:
            await asyncio.sleep(0)
            began = time.perf_counter()
    return outcomes, batches


async def _checked(
    context: Context, body: ProduceBody, item: ProducedRecords
) -> tuple[int, ProducePartition, bytes, int]:
    if body.transactional_id is not None:
        raise Refused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "transactions are not served")
    if body.acks not in (-1, 0, 1):
        raise Refused(ErrorCode.INVALID_REQUIRED_ACKS, f"acks {body.acks}")
    if is_internal(item.topic):
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{item.topic} is the brokers' own")
    found = context.brokers.partition(item.topic, item.partition)
    if found is None:
        context.brokers.outdated(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"no {item.topic}-{item.partition}")
    topic, partition = found
    if item.records is None:
        raise Refused(ErrorCode.INVALID_RECORD, "no records")
    if partition.leader < 0:
        raise Refused(ErrorCode.LEADER_NOT_AVAILABLE, f"{item.topic}-{item.partition} has no leader")
    check = partial(from_kafka, item.records, keys_needed="compact" in topic.configs.get("cleanup.policy", ""))
    if item.records.nbytes > INLINE_BYTES_MAX or is_compressed(item.records):
        taken = await asyncio.get_running_loop().run_in_executor(context.decoding, check)
    else:
        taken = check()
    asked = ProducePartition(topic.topic_id, item.partition, partition.leader_epoch)
    return partition.leader, asked, b"".join((taken.header, taken.body)), taken.record_count


def _portions(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Yield as many at a time as a broker takes: more payload frames, or more bytes, it drops without a word."""
    some: list[Batch] = []
    size = 0
    for batch in batches:
        if some and (len(some) >= LIMITS.payload_frames_max or size >= PORTION_BYTES):
            yield some
            some, size = [], 0
        some.append(batch)
        size += len(batch[-1])
    if some:
        yield some


async def _send(context: Context, request: Request, leader: int, some: list[Batch]) -> dict[Place, Outcome]:
    body: ProduceBody = request.body
    timeout_ms = min(max(body.timeout_ms, 1), TIMEOUT_MS_MAX)
    asked = ProduceRequest(body.acks, [partition for _, partition, _ in some], tell_throttle=True)
    places = [place for place, *_ in some]
    try:
        async with context.brokers.produces(leader):
            answer, _ = await context.brokers.ask(
                leader,
                asked,
                timeout_ms=timeout_ms + GRACE_MS,
                payload=[batch for *_, batch in some],
                client_id=request.client_id,
            )
    except RemoteError as error:
        return dict.fromkeys(places, Outcome(error.code, message=str(error)))
    except NoConnection as error:
        context.brokers.outdated(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return dict.fromkeys(places, Outcome(int(ErrorCode.NOT_LEADER_OR_FOLLOWER), message=str(error)))
    except ForebayError as error:
        context.brokers.outdated(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return dict.fromkeys(places, Outcome(int(ErrorCode.REQUEST_TIMED_OUT), message=str(error)))
    context.throttle(answer.throttle_ms)
    for item in answer.partitions:
        context.brokers.outdated(item.error_code)
    return dict(zip(places, answer.partitions, strict=True))


def _response(request: Request, body: ProduceBody, outcomes: dict[Place, Outcome], throttle_ms: int) -> Any:
    response = request.api.response
    topic_kind = response.TopicProduceResponse
    kind = topic_kind.PartitionProduceResponse
    by_topic: dict[str, list[Any]] = defaultdict(list)
    for item in body.records:
        outcome = outcomes[item.topic, item.partition]
        by_topic[item.topic].append(
            kind(
                index=item.partition,
                error_code=client_code(outcome.error_code),
                base_offset=outcome.base_offset,
                log_append_time_ms=outcome.append_time_ms,
                log_start_offset=outcome.log_start_offset,
                record_errors=[],
                error_message=outcome.message or None,
            )
        )
    topics = [topic_kind(name=name, partition_responses=items) for name, items in by_topic.items()]
    return response(responses=topics, throttle_time_ms=throttle_ms)
