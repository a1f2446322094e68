"""Kafka's assignors: how the leader of a group shares the partitions out. Pure: subscriptions in, assignments out.

Names and user data are Kafka's, so that members of any client can be in one group, and any of them can lead it.
Racks are written and read, but not looked at (KIP-881): of a topic, an assignor is told its number of partitions alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import cycle
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from ingest.client.groups.consumer_protocol import NO_GENERATION, Subscription
from ingest.client.groups.fields import read_int32, read_partitions, write_int32, write_partitions
from ingest.client.groups.sticky import Claim, owners_of, spread
from ingest.client.positions import TopicPartition
from ingest.errors import ConfigError, ProtocolError

_NO_INSTANCES: Mapping[str, str] = MappingProxyType({})


class _Group(NamedTuple):
    """What is to be shared out, and among whom; everything in order, so that the same gives the same.

    Attributes:
        partitions_per_topic: Of the topics that have subscribers, and maybe of more.
        subscribers: Members by topic: the static ones by their instance ids, then the others by their member ids.
        subscriptions: Of all members, by member id, in that order too.
    """

    partitions_per_topic: Mapping[str, int]
    subscribers: Mapping[str, Sequence[str]]
    subscriptions: Mapping[str, Subscription]


class Assignor(ABC):
    """One way to share partitions out. It has no state: one object serves every group.

    Attributes:
        name: Of the protocol in JoinGroup.
        cooperative: Members keep what they have while the group rebalances (KIP-429). One that misses something in its
            assignment gives that up and joins again; the next round hands it on.
    """

    name: ClassVar[str]
    cooperative: ClassVar[bool] = False

    def assign(
        self,
        partitions_per_topic: Mapping[str, int],
        members: Mapping[str, Subscription],
        instance_ids: Mapping[str, str] = _NO_INSTANCES,
    ) -> dict[str, list[TopicPartition]]:
        """Return the partitions of every member, in order; the same for the same arguments in any order.

        Args:
            partitions_per_topic: A topic that is not in it is left out.
            members: Subscriptions by member id.
            instance_ids: `group.instance.id` by member id, of the static members (KIP-345).
        """
        ranks = sorted(members, key=lambda member: (member not in instance_ids, instance_ids.get(member, ""), member))
        subscribers: dict[str, list[str]] = {}
        for member in ranks:
            for topic in partitions_per_topic.keys() & members[member].topics:
                subscribers.setdefault(topic, []).append(member)
        shares = self._share(
            _Group(partitions_per_topic, dict(sorted(subscribers.items())), {rank: members[rank] for rank in ranks})
        )
        return {member: sorted(shares.get(member, ())) for member in members}

    def user_data(self, owned: Sequence[TopicPartition], generation: int) -> bytes | None:
        """Return what a member is to put into its subscription for this assignor.

        Args:
            owned: Its last assignment, even if it has given that up by now in order to join.
            generation: Of that assignment; NO_GENERATION: it has had none.
        """
        return None

    @abstractmethod
    def _share(self, group: _Group) -> Mapping[str, Sequence[TopicPartition]]:
        """Return the partitions of each member that gets some."""


class RangeAssignor(Assignor):
    """Cut each topic into one range a member: the same partitions of two topics go to the same one."""

    name = "range"

    def _share(self, group: _Group) -> Mapping[str, Sequence[TopicPartition]]:
        shares: dict[str, list[TopicPartition]] = {}
        for topic, members in group.subscribers.items():
            count = group.partitions_per_topic[topic]
            size, larger = divmod(count, len(members))
            start = 0
            for place, member in enumerate(members[:count]):
                end = start + size + (place < larger)
                shares.setdefault(member, []).extend(TopicPartition(topic, number) for number in range(start, end))
                start = end
        return shares


class RoundRobinAssignor(Assignor):
    """Deal out the partitions of all topics, one a turn; who has not subscribed to the topic is passed over."""

    name = "roundrobin"

    def _share(self, group: _Group) -> Mapping[str, Sequence[TopicPartition]]:
        shares: dict[str, list[TopicPartition]] = {member: [] for member in group.subscriptions}
        turns = cycle(shares)
        for topic, members in group.subscribers.items():
            takers = frozenset(members)
            for number in range(group.partitions_per_topic[topic]):
                shares[next(member for member in turns if member in takers)].append(TopicPartition(topic, number))
        return shares


class StickyAssignor(Assignor):
    """Share evenly, and leave what can be left where it was; what that is, members say in their user data.

    They own nothing any more when they join: this one rebalances eagerly. The user data is Kafka's
    StickyAssignorUserDataV1: partitions, generation int32; version 0 has no generation.
    """

    name = "sticky"

    def user_data(self, owned: Sequence[TopicPartition], generation: int) -> bytes | None:
        """Return the last assignment and its generation."""
        return None if generation == NO_GENERATION else write_partitions(owned) + write_int32(generation)

    def _share(self, group: _Group) -> Mapping[str, Sequence[TopicPartition]]:
        return spread(group.partitions_per_topic, group.subscribers, self._owners(group))

    def _owners(self, group: _Group) -> dict[TopicPartition, str | None]:
        return owners_of(self._claim(member, subscription) for member, subscription in group.subscriptions.items())

    def _claim(self, member: str, subscription: Subscription) -> Claim:
        data = subscription.user_data or b""
        try:
            partitions, at = read_partitions(data, 0)
            return Claim(member, partitions, _read_generation(data[at:]))
        except ProtocolError:  # one member's mistake costs it its claims, not the group its rebalance; so does Kafka
            return Claim(member, (), NO_GENERATION)


class CooperativeStickyAssignor(StickyAssignor):
    """Share as `sticky` does, but hand on in the next round what somebody still has in this one.

    What members have stands in their subscriptions, the generation too from version 2. Those of version 1 have it
    in their user data, which is written for leaders that know version 1 alone.
    """

    name = "cooperative-sticky"
    cooperative = True

    def user_data(self, owned: Sequence[TopicPartition], generation: int) -> bytes | None:
        """Return the generation of the last assignment."""
        return write_int32(generation)

    def _share(self, group: _Group) -> Mapping[str, Sequence[TopicPartition]]:
        owners = self._owners(group)
        shares = spread(group.partitions_per_topic, group.subscribers, owners)
        # whose is unclear has nobody in `owners`: they all give it up first
        return {
            member: [name for name in names if owners.get(name, member) == member] for member, names in shares.items()
        }

    def _claim(self, member: str, subscription: Subscription) -> Claim:
        generation = subscription.generation
        if generation == NO_GENERATION:
            generation = _read_generation(subscription.user_data or b"")
        return Claim(member, subscription.owned, generation)


def _read_generation(data: bytes) -> int:
    try:
        return max(read_int32(data, 0)[0], NO_GENERATION)
    except ProtocolError:
        return NO_GENERATION


ASSIGNORS: Mapping[str, Assignor] = MappingProxyType(
    {
        assignor.name: assignor
        for assignor in (RangeAssignor(), RoundRobinAssignor(), StickyAssignor(), CooperativeStickyAssignor())
    }
)


def assignors_named(strategy: str | Sequence[str | Assignor]) -> tuple[Assignor, ...]:
    """Return the assignors of `partition.assignment.strategy`: names, Kafka's class names or objects.

    Raises:
        ConfigError: an unknown name, none at all, or cooperative ones among eager ones: the group would be eager.
    """
    wanted = strategy.split(",") if isinstance(strategy, str) else strategy
    found = []
    for item in wanted:
        if isinstance(item, Assignor):
            found.append(item)
            continue
        name = item.strip().rsplit(".", 1)[-1]
        known = ASSIGNORS.get(name) or _BY_CLASS.get(name)
        if known is None:
            raise ConfigError(f"partition_assignment_strategy={item!r} is not {', '.join(ASSIGNORS)}")
        found.append(known)
    if not found:
        raise ConfigError("partition_assignment_strategy names no assignor")
    if len({assignor.cooperative for assignor in found}) > 1:
        raise ConfigError(f"partition_assignment_strategy={strategy!r} mixes cooperative and eager assignors")
    return tuple(found)


_BY_CLASS = {type(assignor).__name__: assignor for assignor in ASSIGNORS.values()}
