"""Which brokers get the partitions of a topic; pure.

Leaders are spread evenly within the topic first, then over all topics; ties go round from a start that the caller
draws, so that small topics do not all begin at the same broker. The other replicas go to other machines, in other
racks first, and on one machine to other disks as far as there are any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from replicas.domains import Domains


@dataclass(slots=True)
class Load:
    """How much each broker has: partitions led, and replicas."""

    leaders: Counter[int] = field(default_factory=Counter)
    replicas: Counter[int] = field(default_factory=Counter)

    def add(self, replicas: Sequence[int]) -> None:
        self.leaders[replicas[0]] += 1
        self.replicas.update(replicas)


def replication_factor_max(brokers: Collection[int], domains: Domains) -> int:
    """Return how many replicas a partition can have on these brokers: one a machine, once there are two machines."""
    if domains.sites > 1:
        return len({domains.site(broker) for broker in brokers})
    return len(brokers)


def default_replication_factor(brokers: Collection[int], domains: Domains) -> int:
    """Return the number of copies that survive something one copy would not: the distinct domains, 1 to 3."""
    return max(1, min(3, domains.count(brokers)))


def place(
    count: int,
    replication_factor: int,
    brokers: Sequence[int],
    *,
    domains: Domains,
    leaders_in_topic: Mapping[int, int],
    load: Load,
    start: int,
) -> list[list[int]]:
    """Return the replicas of `count` new partitions, the leader first; `load` grows by them.

    Args:
        brokers: Who may have replicas, in order.
        leaders_in_topic: How many partitions of this topic each leads already.
        start: Any number.
    """
    assert 1 <= replication_factor <= replication_factor_max(brokers, domains)
    assert len(set(brokers)) == len(brokers)
    in_topic = Counter(leaders_in_topic)
    round_of = {broker: (index - start) % len(brokers) for index, broker in enumerate(brokers)}
    placed = []
    for _ in range(count):
        leader = min(brokers, key=lambda b: (in_topic[b], load.leaders[b], round_of[b]))
        in_topic[leader] += 1
        replicas = [leader]
        while len(replicas) < replication_factor:
            replicas.append(next_replica(replicas, brokers, domains, load, start=round_of[leader] + start))
        load.add(replicas)
        placed.append(replicas)
    return placed


def next_replica(replicas: Sequence[int], brokers: Sequence[int], domains: Domains, load: Load, *, start: int) -> int:
    """Return the broker for one more replica beside these; there is one, see `replication_factor_max`."""
    racks = {domains.rack(broker) for broker in replicas}
    sites = {domains.site(broker) for broker in replicas}
    disks = {domains.disk(broker) for broker in replicas}

    def cost(broker: int) -> tuple[bool, bool, bool, int, int]:
        distance = (brokers.index(broker) - start) % len(brokers)
        same_site, same_rack = domains.site(broker) in sites, domains.rack(broker) in racks
        return same_site, same_rack, domains.disk(broker) in disks, load.replicas[broker], distance

    return min((broker for broker in brokers if broker not in replicas), key=cost)
