"""What the members of a consumer group tell each other through the coordinator, in Kafka's own bytes.

```
Subscription (in JoinGroup)           version int16 · topics [string] · user data bytes?
                                      · owned [topic string, partitions [int32]]       from version 1
                                      · generation int32                               from version 2
                                      · rack string?                                   from version 3
Assignment (in SyncGroup)             version int16 · partitions [topic string, partitions [int32]] · user data bytes?
```

A version only appends, so a reader takes what it knows and leaves the rest: the newest version is written to everyone,
as Kafka's Java client does (3 since Kafka 3.5), and read by those of version 0 (aiokafka) too.
Source: ConsumerProtocolSubscription.json, ConsumerProtocolAssignment.json; KIP-429, KIP-792, KIP-881.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingest.client.groups.fields import (
    read_int16,
    read_int32,
    read_nullable_bytes,
    read_nullable_string,
    read_partitions,
    read_strings,
    write_int16,
    write_int32,
    write_nullable_bytes,
    write_nullable_string,
    write_partitions,
    write_strings,
)
from ingest.client.positions import TopicPartition
from ingest.errors import ProtocolError
from ingest.limits import LIMITS

PROTOCOL_TYPE = "consumer"  # of such a group, in JoinGroup
NO_GENERATION = -1
_VERSION = 3


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one member wants and has.

    Attributes:
        topics: Those it wants, by name.
        owned: What it has and has not given up; nothing where the group rebalances eagerly.
        generation: Of the group when it got `owned`; NO_GENERATION: it never did, or does not say.
        rack: Where it runs; None: it does not say.
        user_data: For the assignor, which alone knows its format.
    """

    topics: tuple[str, ...]
    owned: tuple[TopicPartition, ...] = ()
    generation: int = NO_GENERATION
    rack: str | None = None
    user_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one member is to read until the next rebalance."""

    partitions: tuple[TopicPartition, ...]
    user_data: bytes | None = None


def encode_subscription(subscription: Subscription) -> bytes:
    """Return the metadata of one protocol of JoinGroup."""
    return b"".join(
        (
            write_int16(_VERSION),
            write_strings(subscription.topics),
            write_nullable_bytes(subscription.user_data),
            write_partitions(subscription.owned),
            write_int32(subscription.generation),
            write_nullable_string(subscription.rack),
        )
    )


def decode_subscription(data: bytes) -> Subscription:
    """Read a member's metadata, whatever version it has.

    Bytes that end before a field that their version promises stand for its default: some clients wrote version 1
    without owned partitions.

    Raises:
        ProtocolError: no such bytes; beyond LIMITS.member_metadata_bytes_max.
    """
    version, at = _read_version(data)
    topics, at = read_strings(data, at)
    user_data, at = read_nullable_bytes(data, at)
    owned: tuple[TopicPartition, ...] = ()
    generation, rack = NO_GENERATION, None
    if version >= 1 and at < len(data):
        owned, at = read_partitions(data, at)
    if version >= 2 and at < len(data):
        generation, at = read_int32(data, at)
    if version >= 3 and at < len(data):
        rack, at = read_nullable_string(data, at)
    return Subscription(topics, owned, max(generation, NO_GENERATION), rack or None, user_data)


def encode_assignment(assignment: Assignment) -> bytes:
    """Return the assignment of one member for SyncGroup."""
    return write_int16(_VERSION) + write_partitions(assignment.partitions) + write_nullable_bytes(assignment.user_data)


def decode_assignment(data: bytes) -> Assignment:
    """Read what the leader of the group assigned, whatever version it has.

    Raises:
        ProtocolError: no such bytes; beyond LIMITS.member_metadata_bytes_max.
    """
    _, at = _read_version(data)
    partitions, at = read_partitions(data, at)
    user_data, _ = read_nullable_bytes(data, at)
    return Assignment(partitions, user_data)


def _read_version(data: bytes) -> tuple[int, int]:
    if len(data) > LIMITS.member_metadata_bytes_max:
        raise ProtocolError(f"{len(data)} bytes of a member's metadata > {LIMITS.member_metadata_bytes_max}")
    version, at = read_int16(data, 0)
    if version < 0:
        raise ProtocolError(f"version {version} of a member's metadata")
    return version, at
