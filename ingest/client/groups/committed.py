"""Committed offsets as a client names them, and the requests that commit and fetch them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ingest.client.cluster import Cluster
from ingest.client.positions import TopicPartition
from ingest.limits import KIB
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.group_messages import (
    NO_GENERATION,
    CommittedOffset,
    OffsetCommitRequest,
    OffsetFetchRequest,
)

OFFSETS_IN_REQUEST = 100  # each with a text of nearly 64 KiB, the most a commit can bring, fit an answer's 8 MiB
OFFSETS_BYTES_MAX = 60 * KIB  # a request's header may take 64
_OFFSET_BYTES = 50  # the most one takes beside its metadata


class Committed(NamedTuple):
    """A committed offset: the next record to read."""

    offset: int
    metadata: str = ""
    leader_epoch: int = -1


class MemberId(NamedTuple):
    """Under which membership a commit is made; the default is that of nobody."""

    generation: int = NO_GENERATION
    member_id: str = ""
    instance_id: str | None = None


def commit_requests(
    cluster: Cluster, group: str, offsets: Mapping[TopicPartition, Committed], member: MemberId
) -> list[OffsetCommitRequest]:
    """Return the requests that commit these offsets.

    Raises:
        RemoteError: metadata does not know a topic.
    """
    items = [
        CommittedOffset(topic_id(cluster, name), name.partition, item.offset, item.leader_epoch, item.metadata)
        for name, item in offsets.items()
    ]
    return [OffsetCommitRequest(group, some, *member) for some in in_requests(items)]


def in_requests(items: Sequence[CommittedOffset]) -> list[list[CommittedOffset]]:
    """Return the offsets in portions that a request has room for, whatever text comes with them."""
    portions: list[list[CommittedOffset]] = [[]]
    room = OFFSETS_BYTES_MAX
    for item in items:
        room -= _OFFSET_BYTES + 4 * len(item.metadata)
        if room < 0 and portions[-1]:
            portions.append([])
            room = OFFSETS_BYTES_MAX - _OFFSET_BYTES - 4 * len(item.metadata)
        portions[-1].append(item)
    return portions if items else []


def fetch_requests(cluster: Cluster, group: str, names: Sequence[TopicPartition]) -> list[OffsetFetchRequest]:
    """Return the requests that fetch what is committed for these partitions."""
    places = [(topic_id(cluster, name), name.partition) for name in names]
    return [
        OffsetFetchRequest(group, places[start : start + OFFSETS_IN_REQUEST])
        for start in range(0, len(places), OFFSETS_IN_REQUEST)
    ]


def topic_id(cluster: Cluster, name: TopicPartition) -> bytes:
    """Return the id of a topic that metadata knows.

    Raises:
        RemoteError: UNKNOWN_TOPIC_OR_PARTITION.
    """
    topic = cluster.topics.get(name.topic)
    if topic is None:
        raise error_from_code(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"topic {name.topic}")
    return topic.topic_id
