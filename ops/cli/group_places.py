"""Topics and partitions as options name them: t1,t2, or Kafka's t:0,1."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ingest.errors import UsageError

if TYPE_CHECKING:
    from ingest.admin import Admin

TopicPartition = tuple[str, int]


def parse_topics(names: Iterable[str], lists: Iterable[str] = ()) -> dict[str, list[int] | None]:
    """Return topics with the partitions named of each, None for all.

    Args:
        names: Each a topic, or t:0,1.
        lists: Each some topics, by commas.
    Raises:
        UsageError: a partition is no number.
    """
    found: dict[str, list[int] | None] = {}
    for text in (*names, *(part for some in lists for part in some.split(","))):
        topic, colon, numbers = text.strip().partition(":")
        if not topic:
            raise UsageError(f"{text!r} names no topic; expected t, or t:0,1")
        wanted = parse_partitions([numbers], text) if colon else None
        known = found.get(topic, [])
        found[topic] = None if wanted is None or known is None else [*known, *wanted]
    return found


def parse_partitions(texts: Iterable[str], shown: str = "") -> list[int]:
    """Return the numbers of lists such as 0,1.

    Raises:
        UsageError: one is no number.
    """
    found = []
    for text in texts:
        for part in text.split(","):
            if not (part.strip().isascii() and part.strip().isdigit()):
                raise UsageError(f"{shown or text}: expected partitions such as 0,1")
            found.append(int(part))
    return found


def places_of(
    admin: Admin,
    topics: dict[str, list[int] | None],
    partitions: list[int],
    also: Collection[TopicPartition] = (),
) -> list[TopicPartition]:
    """Return the partitions that are meant, those in `partitions` alone if there are any there.

    Args:
        also: Places that count as being there, whatever their topics have.
    Raises:
        RemoteError: there is no such topic.
        UsageError: it has no such partition.
    """
    places = []
    for topic, numbers in topics.items():
        there = [item.partition for item in admin.describe_topic(topic).partitions]
        known = sorted({*there, *(number for name, number in also if name == topic)})
        wanted = numbers if numbers is not None else partitions or known
        for number in wanted:
            if number not in known:
                raise UsageError(f"{topic} has no partition {number}; it has {len(there)}, from 0 on")
        places += [(topic, number) for number in wanted if not partitions or number in partitions]
    return list(dict.fromkeys(places))
