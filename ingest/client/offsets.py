"""Offsets by time: a broker knows times per batch, since it never looks inside; the client looks for the record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ingest.client.cluster import Answered, Cluster, monotonic_ms
from ingest.client.positions import Position
from ingest.errors import CorruptBatch, ForebayError, RemoteError, RequestTimedOut, TransportError, UsageError
from ingest.records.batch import decode_batch
from ingest.records.header import verify_batch
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.messages import (
    LATEST_TIMESTAMP,
    FetchPartition,
    FetchRequest,
    ListOffsetsPartition,
    ListOffsetsRequest,
    PartitionMetadata,
    TopicMetadata,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

Found = tuple[int, int]  # (offset, timestamp_ms); offset -1: no record is that late
OnFound = Callable[[Found | ForebayError], None]
RETRY_MS = 20
END_TIMEOUT_MS = 5_000
ITEMS_MAX = 1_000  # partitions in one request, whose header may take 64 KiB


def first_at_or_after(batch: Buffer, timestamp_ms: int, start_offset: int = 0) -> Found | None:
    """Return the first record of a batch, from an offset on, that is not before a time; None if there is none."""
    header = verify_batch(batch)
    columns = decode_batch(batch, "", 0, header)
    late = (columns.timestamps_ms >= timestamp_ms) & (columns.offsets >= start_offset)
    index = int(np.argmax(late)) if len(late) else 0
    if not len(late) or not late[index]:
        return None
    return int(columns.offsets[index]), int(columns.timestamps_ms[index])


def look_up(
    cluster: Cluster,
    topic_id: bytes,
    item: PartitionMetadata,
    timestamp_ms: int,
    on_found: OnFound,
    *,
    timeout_ms: int,
) -> bool:
    """Ask the leader for an offset by time (-1 the end, -2 the start), then fetch one batch to find the record.

    `on_found` is called from a later `poll`. False: nothing was sent.
    """

    def on_listed(answered: Answered) -> None:
        if answered.error is not None:
            on_found(answered.error)
            return
        listed = answered.body.partitions[0]
        if listed.error_code:
            on_found(error_from_code(listed.error_code))
        elif timestamp_ms < 0 or listed.offset < 0:
            on_found((listed.offset, listed.timestamp_ms))
        else:
            wanted = FetchPartition(topic_id, item.partition, listed.offset, 1, item.leader_epoch)
            fallback = (listed.offset, listed.timestamp_ms)

            def on_fetched(fetched: Answered) -> None:
                on_found(_refine(fetched, timestamp_ms, fallback))

            body = FetchRequest(0, 1, 1, [wanted])
            if not cluster.send(item.leader, body, on_fetched, timeout_ms=timeout_ms):
                on_found(TransportError("the leader has gone"))

    request = ListOffsetsRequest([ListOffsetsPartition(topic_id, item.partition, timestamp_ms, item.leader_epoch)])
    return cluster.send(item.leader, request, on_listed, timeout_ms=timeout_ms)


def _refine(fetched: Answered, timestamp_ms: int, fallback: Found) -> Found | ForebayError:
    if fetched.error is not None:
        return fetched.error
    partition = fetched.body.partitions[0]
    if partition.error_code == ErrorCode.CORRUPT_MESSAGE:
        return fallback  # reading from there tells of the damage
    if partition.error_code:
        return error_from_code(partition.error_code)
    if partition.frame < 0:
        return fallback
    try:
        return first_at_or_after(fetched.payload[partition.frame], timestamp_ms, fallback[0]) or fallback
    except CorruptBatch:
        return fallback


def learn_ends(cluster: Cluster, positions: Sequence[Position]) -> None:
    """Ask leaders where the logs end that are read at followers, whose marks are behind: lag counts from there.

    `high_watermark` is set from a later `poll`.
    """
    by_leader: dict[int, list[Position]] = defaultdict(list)
    for position in positions:
        by_leader[position.leader].append(position)
    for leader, led in by_leader.items():
        for start in range(0, len(led), ITEMS_MAX):
            _learn_some_ends(cluster, leader, led[start : start + ITEMS_MAX])


def _learn_some_ends(cluster: Cluster, leader: int, positions: Sequence[Position]) -> None:
    asked = [(position, position.topic_id, position.leader_epoch) for position in positions]

    def on_listed(answered: Answered) -> None:
        if answered.error is None:
            for (position, *then), listed in zip(asked, answered.body.partitions, strict=False):
                if not listed.error_code and [position.topic_id, position.leader_epoch] == then:
                    position.high_watermark = listed.offset

    items = [ListOffsetsPartition(i, p.name.partition, LATEST_TIMESTAMP, epoch) for p, i, epoch in asked]
    cluster.send(leader, ListOffsetsRequest(items), on_listed, timeout_ms=END_TIMEOUT_MS)


def find_offset(cluster: Cluster, topic: str, partition: int, timestamp_ms: int, timeout_ms: int) -> Found:
    """Look an offset up and wait for it, asking again while that may help.

    Raises:
        RemoteError, TransportError: the leader refused, or could not be asked in time.
        UsageError: the topic has no such partition.
    """
    deadline_ms = monotonic_ms() + timeout_ms
    cluster.want([topic])
    outcome: list[Found | ForebayError] = []
    asked = False
    error: ForebayError = RequestTimedOut(f"topic {topic} is not known after {timeout_ms} ms")
    while monotonic_ms() < deadline_ms:
        cluster.poll()
        if outcome:
            found = outcome.pop()
            if not isinstance(found, ForebayError):
                return found
            if isinstance(found, RemoteError) and not found.retriable:
                raise found
            error, asked = found, False
            cluster.wait_for_newer(monotonic_ms())
            cluster.wait(RETRY_MS)
            continue
        known = cluster.topics.get(topic)
        if known is not None and not asked:
            left_ms = max(1, deadline_ms - monotonic_ms())
            item = _partition(known, partition)
            asked = look_up(cluster, known.topic_id, item, timestamp_ms, outcome.append, timeout_ms=left_ms)
        cluster.wait(5)
    raise error


def _partition(topic: TopicMetadata, partition: int) -> PartitionMetadata:
    for item in topic.partitions:
        if item.partition == partition:
            return item
    raise UsageError(f"{topic.name} has no partition {partition}; it has {len(topic.partitions)}")
