"""Decoders of ingest/client/groups: what members of a group tell each other, and what clients of others write."""

from __future__ import annotations

from collections.abc import Iterable

from ingest.client.groups.assignors import ASSIGNORS
from ingest.client.groups.consumer_protocol import (
    Assignment,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from ingest.client.positions import TopicPartition
from ingest.limits import LIMITS
from tests.fuzz.decoder import Decoder

_OWNED = (TopicPartition("alarms", 3), TopicPartition("sensors", 0), TopicPartition("sensors", 70_000))
_STICKY = ASSIGNORS["sticky"]


def _count(left: int, item_bytes: int) -> bytes:
    return (left // item_bytes).to_bytes(4, "big")


def _bombs(head: bytes) -> list[bytes]:
    """The most topics and the most partitions that the bytes allow, after `head`."""
    left = LIMITS.member_metadata_bytes_max - len(head) - 16
    one = b"\0\0\0\1\0\1t"
    return [
        head + _count(left, 6) + bytes(left),
        head + one + _count(left, 4) + bytes(left),
        head + one + _count(left, 4) + b"\x7f\0\0\0" * (left // 4),
    ]


def _assign(data: bytes) -> object:
    member = Subscription(("sensors",), _OWNED, 7, user_data=data)
    return _STICKY.assign({"sensors": 8}, {"member": member, "other": member})


def decoders() -> Iterable[Decoder]:
    """Return the decoders of members' metadata."""
    left = LIMITS.member_metadata_bytes_max - 8
    topics = b"\0\3" + _count(left, 2) + bytes(left)
    yield Decoder(
        "subscription",
        [encode_subscription(Subscription(("alarms", "sensors"), _OWNED, 7, "rack-1", b"data"))],
        decode_subscription,
        bombs=lambda: [topics, *_bombs(b"\0\3\0\0\0\0\xff\xff\xff\xff")],
    )
    yield Decoder(
        "assignment", [encode_assignment(Assignment(_OWNED, b"data"))], decode_assignment, bombs=lambda: _bombs(b"\0\3")
    )
    yield Decoder("sticky_user_data", [_STICKY.user_data(_OWNED, 7) or b""], _assign, bombs=lambda: _bombs(b""))
