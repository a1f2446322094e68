"""The facts of groups as records of `__consumer_offsets`: what they say, and their bytes.

A key is the msgpack of a tagged array, a value the msgpack of an array; a record without a value deletes what stood
under its key. The partition of a group is the one of its name's hash, as in Kafka.

    key                               value
    --------------------------------  ------------------------------------------------------------
    ["offset", group, topic id, partition]  [offset, leader epoch, metadata, commit wall ms, commit age ms]
    ["group", group]                  [generation, protocol type, protocol, leader, state, members, changed age ms]
    ["age"]                           [age ms]: how long this partition has been coordinated, all brokers together

Ages count the time in which somebody coordinated the partition, so that no step of a clock forgets offsets.

Source: docs/format/consumer_offsets.md.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import msgspec

from ingest.errors import UnsupportedFormat
from ingest.topic_name import CONSUMER_OFFSETS
from ingest.wire.group_messages import MemberProcess


class OffsetKey(msgspec.Struct, frozen=True, array_like=True, tag="offset"):
    group: str
    topic_id: bytes
    partition: int


class GroupKey(msgspec.Struct, frozen=True, array_like=True, tag="group"):
    group: str


class AgeKey(msgspec.Struct, frozen=True, array_like=True, tag="age"):
    pass


class OffsetValue(msgspec.Struct, frozen=True, array_like=True):
    """A committed offset; `age_ms` is the partition's age when it was committed."""

    offset: int
    leader_epoch: int
    metadata: str
    wall_ms: int
    age_ms: int


class StoredState(IntEnum):
    """What a group does as far as its records tell: a rebalance under way is not among them."""

    EMPTY = 0
    COMPLETING = 1
    STABLE = 2


class StoredMember(msgspec.Struct, frozen=True, array_like=True):
    """A member of a generation; `metadata` is that of the protocol chosen."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    metadata: bytes
    assignment: bytes
    process: MemberProcess | None = None
    attempt: int = 0


class GroupValue(msgspec.Struct, frozen=True, array_like=True):
    """A generation; `age_ms` is the partition's age when it came to be."""

    generation: int
    protocol_type: str
    protocol: str
    leader: str
    state: StoredState
    members: list[StoredMember]
    age_ms: int


class AgeValue(msgspec.Struct, frozen=True, array_like=True):
    age_ms: int


Key: TypeAlias = OffsetKey | GroupKey | AgeKey
Value: TypeAlias = OffsetValue | GroupValue | AgeValue


class Fact(msgspec.Struct, frozen=True):
    """One record; value None: nothing stands under the key any more."""

    key: Key
    value: Value | None


encode = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(Key).decode
_decode_offset = msgspec.msgpack.Decoder(OffsetValue).decode
_decode_group = msgspec.msgpack.Decoder(GroupValue).decode
_decode_age = msgspec.msgpack.Decoder(AgeValue).decode


def decode(key: bytes, value: bytes | None) -> Fact:
    """Return the fact that a record holds.

    Raises:
        UnsupportedFormat: it is none this version knows.
    """
    try:
        known = _decode_key(key)
        if value is None:
            return Fact(known, None)
        match known:
            case OffsetKey():
                return Fact(known, _decode_offset(value))
            case GroupKey():
                return Fact(known, _decode_group(value))
            case _:
                return Fact(known, _decode_age(value))
    except msgspec.DecodeError as error:
        raise UnsupportedFormat(f"a record of {CONSUMER_OFFSETS} that this version does not know: {error}") from None


def partition_of(group: str, partitions: int) -> int:
    """Return the partition that holds a group's facts: Java's hash of the name, as in Kafka."""
    code = 0
    data = group.encode("utf-16-be")
    for high, low in zip(data[::2], data[1::2], strict=True):
        code = (31 * code + (high << 8 | low)) & 0xFFFFFFFF
    return (code & 0x7FFFFFFF) % partitions
