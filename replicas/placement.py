"""Which brokers get the partitions of a topic; pure.

Leaders are spread evenly within the topic first, then over all topics; ties go round from a start that the caller
draws, so that small topics do not all begin at the same broker. Domains of failure come with replication.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


def place(
    count: int,
    replication_factor: int,
    brokers: Sequence[int],
    *,
    leaders_in_topic: Mapping[int, int],
    leaders: Mapping[int, int],
    start: int,
) -> list[list[int]]:
    """Return the replicas of `count` new partitions, the leader first.

    Args:
        brokers: Who is alive, in order; at least `replication_factor` of them.
        leaders_in_topic: How many partitions of this topic each leads already.
        leaders: The same over all topics.
        start: Any number.
    """
    assert 1 <= replication_factor <= len(brokers)
    assert len(set(brokers)) == len(brokers)
    in_topic = Counter(leaders_in_topic)
    overall = Counter(leaders)
    round_of = {broker: (index - start) % len(brokers) for index, broker in enumerate(brokers)}
    placed = []
    for _ in range(count):
        leader = min(brokers, key=lambda b: (in_topic[b], overall[b], round_of[b]))
        in_topic[leader] += 1
        overall[leader] += 1
        at = brokers.index(leader)
        placed.append([brokers[(at + step) % len(brokers)] for step in range(replication_factor)])
    return placed
