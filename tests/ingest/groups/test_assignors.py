"""Who gets which partition: exactly one subscriber each, evenly, with Kafka's answers, and as few changes as can be."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyAssignorUserDataV1
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from ingest.client.groups.assignors import ASSIGNORS
from ingest.client.groups.consumer_protocol import NO_GENERATION, Subscription
from ingest.client.positions import TopicPartition

TOPICS = ["a", "b", "c", "d"]
MEMBERS = ["A", "B", "C", "D", "E", "F"]
STICKY = ["sticky", "cooperative-sticky"]

Assigned = dict[str, list[TopicPartition]]

counts = st.dictionaries(st.sampled_from(TOPICS), st.integers(0, 9))
wishes = st.lists(st.sampled_from([*TOPICS, "nowhere"]), unique=True).map(tuple)
members = st.sets(st.sampled_from(MEMBERS), min_size=1)
instances = st.dictionaries(st.sampled_from(MEMBERS), st.sampled_from(["i1", "i2", "i3"]), max_size=3)


def names(text: str) -> list[TopicPartition]:
    """Read "a0 a1 b0"."""
    return [TopicPartition(name[:-1], int(name[-1])) for name in text.split()]


def has(assignor: str, topics: Iterable[str], owned: Iterable[TopicPartition], generation: int) -> Subscription:
    """Return what a member writes that has got `owned` in a generation."""
    kept = tuple(owned)
    data = ASSIGNORS[assignor].user_data(kept, generation)
    return Subscription(tuple(topics), kept if ASSIGNORS[assignor].cooperative else (), generation, user_data=data)


def wants(topics: Iterable[str]) -> Subscription:
    return Subscription(tuple(topics))


def check_owners(assigned: Assigned, counts: Mapping[str, int], wanted: Mapping[str, Iterable[str]]) -> None:
    """Assert that every partition that somebody subscribed to has one owner among those."""
    given_out = Counter(name for owned in assigned.values() for name in owned)
    subscribed = {topic for topics in wanted.values() for topic in topics} & counts.keys()
    assert given_out == Counter(TopicPartition(topic, n) for topic in subscribed for n in range(counts[topic]))
    assert all(name.topic in wanted[member] for member, owned in assigned.items() for name in owned)


def check_balance(assigned: Assigned, wanted: Mapping[str, Iterable[str]]) -> None:
    """Assert that nobody has two more than one who could take one of them."""
    for giver, owned in assigned.items():
        for taker, topics in wanted.items():
            if any(name.topic in topics for name in owned):
                assert len(owned) <= len(assigned[taker]) + 1, (giver, taker)


@dataclass
class Group:
    """A group through its rebalances, as its members and its leader go through them.

    Attributes:
        wanted: Topics by member.
        owned: What each member has got, and in which generation.
    """

    assignor: str
    counts: dict[str, int]
    wanted: dict[str, tuple[str, ...]]
    owned: dict[str, tuple[list[TopicPartition], int]]
    generation: int = 0

    def claims(self, member: str) -> list[TopicPartition]:
        return self.owned.get(member, ([], NO_GENERATION))[0]

    def rebalance(self) -> Assigned:
        """Run one round."""
        joined = {
            member: has(self.assignor, topics, *self.owned.get(member, ([], NO_GENERATION)))
            for member, topics in self.wanted.items()
        }
        self.generation += 1
        assigned = ASSIGNORS[self.assignor].assign(self.counts, joined)
        self.owned = {member: (owned, self.generation) for member, owned in assigned.items()}
        return assigned

    def settle(self, rounds_max: int) -> int:
        """Rebalance until nobody has to give anything up; return in how many rounds."""
        for rounds in range(1, rounds_max + 1):
            before = {member: set(self.claims(member)) for member in self.wanted}
            after = self.rebalance()
            if all(before[member] <= set(after[member]) for member in self.wanted):
                return rounds
        raise AssertionError(f"no rest after {rounds_max} rounds")


@st.composite
def groups(draw: st.DrawFn, assignor: str, *, equal: bool) -> Group:
    """Make a group that was at rest; then members came and went, topics grew and subscriptions changed."""

    def wanted_by(who: Iterable[str]) -> dict[str, tuple[str, ...]]:
        alike = draw(wishes)
        return {member: alike if equal else draw(wishes) for member in sorted(who)}

    group = Group(assignor, draw(counts), wanted_by(draw(members)), {})
    group.settle(8)
    group.counts = {topic: max(n, draw(st.integers(0, 9))) for topic, n in group.counts.items()}
    wanted = wanted_by(draw(members))
    if equal and draw(st.booleans()):
        wanted = dict.fromkeys(wanted, next(iter(group.wanted.values())))
    group.wanted = wanted
    return group


# ---- every assignor


def test_they_have_kafkas_names_and_one_is_cooperative() -> None:
    assert {name: assignor.cooperative for name, assignor in ASSIGNORS.items()} == {
        "range": False,
        "roundrobin": False,
        "sticky": False,
        "cooperative-sticky": True,
    }


@pytest.mark.parametrize("assignor", ASSIGNORS)
@given(counts, st.dictionaries(st.sampled_from(MEMBERS), wishes), instances)
def test_every_partition_goes_to_one_of_its_subscribers(
    assignor: str, counts: dict[str, int], wanted: dict[str, tuple[str, ...]], instances: dict[str, str]
) -> None:
    joined = {member: wants(topics) for member, topics in wanted.items()}
    assigned = ASSIGNORS[assignor].assign(counts, joined, instances)
    assert assigned.keys() == wanted.keys()
    check_owners(assigned, counts, wanted)


@pytest.mark.parametrize("assignor", ASSIGNORS)
@given(st.data())
def test_the_answer_does_not_depend_on_any_order(assignor: str, data: st.DataObject) -> None:
    wanted = data.draw(st.dictionaries(st.sampled_from(MEMBERS), wishes))
    claims = st.lists(st.builds(TopicPartition, st.sampled_from(TOPICS), st.integers(0, 9)), unique=True)
    joined = {member: has(assignor, topics, data.draw(claims), 1) for member, topics in wanted.items()}
    numbers = data.draw(counts)
    static = data.draw(instances)
    dice = data.draw(st.randoms(use_true_random=False))

    def shuffled(mapping: Mapping[str, Any]) -> dict[str, Any]:
        return dict(dice.sample(list(mapping.items()), len(mapping)))

    expected = ASSIGNORS[assignor].assign(numbers, joined, static)
    mixed = {m: replace(s, topics=tuple(dice.sample(s.topics, len(s.topics)))) for m, s in shuffled(joined).items()}
    assert ASSIGNORS[assignor].assign(shuffled(numbers), mixed, shuffled(static)) == expected


@pytest.mark.parametrize("assignor", ASSIGNORS)
@pytest.mark.parametrize(
    ("members", "topics", "partitions", "seconds_max"), [(100, 50, 20, 0.05), (10, 1, 10_000, 0.3)]
)
def test_large_groups_are_assigned_at_once(
    assignor: str, members: int, topics: int, partitions: int, seconds_max: float
) -> None:
    counts = {f"t{n:02}": partitions for n in range(topics)}
    dice = random.Random(1)
    wanted = {f"m{n:03}": dice.sample(sorted(counts), max(1, topics - n // 5)) for n in range(members)}
    before = {member: wants(wanted[member]) for member in sorted(wanted)[:2]}
    owned = ASSIGNORS[assignor].assign(counts, before)
    joined = {
        member: has(assignor, topics, owned.get(member, ()), 1 if member in owned else NO_GENERATION)
        for member, topics in wanted.items()
    }
    start = time.process_time()
    assigned = ASSIGNORS[assignor].assign(counts, joined)
    seconds = time.process_time() - start
    assert sum(map(len, assigned.values())) > 0
    assert seconds < 4 * seconds_max, "four times what it may take on a machine that has time"


# ---- range and roundrobin: what Kafka answers


@pytest.mark.parametrize(
    ("assignor", "theirs"), [("range", RangePartitionAssignor), ("roundrobin", RoundRobinPartitionAssignor)]
)
@given(counts, st.dictionaries(st.sampled_from(MEMBERS), wishes))
def test_range_and_roundrobin_answer_as_another_client_does(
    assignor: str,
    theirs: type[RangePartitionAssignor],
    counts: dict[str, int],
    wanted: dict[str, tuple[str, ...]],
) -> None:
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: set(range(counts[topic])) if topic in counts else None)
    joined = {member: ConsumerProtocolMemberMetadata(0, list(topics), b"") for member, topics in wanted.items()}
    expected = {member: sorted(made.partitions()) for member, made in theirs.assign(cluster, joined).items()}
    joined_here = {member: wants(topics) for member, topics in wanted.items()}
    assert ASSIGNORS[assignor].assign(counts, joined_here) == expected


@pytest.mark.parametrize(
    ("assignor", "expected"),
    [
        ("range", {"y": "a0 b0", "x": "a1 b1", "a": "a2 b2", "b": ""}),
        ("roundrobin", {"y": "a0 b1", "x": "a1 b2", "a": "a2", "b": "b0"}),
    ],
)
def test_static_members_come_first_by_their_instance_ids(assignor: str, expected: dict[str, str]) -> None:
    joined = {member: wants("ab") for member in "abxy"}
    assigned = ASSIGNORS[assignor].assign({"a": 3, "b": 3}, joined, {"x": "i2", "y": "i1"})
    assert assigned == {member: names(owned) for member, owned in expected.items()}, "as kafka-clients 3.9.1 answers"


# ---- sticky and cooperative-sticky


@pytest.mark.parametrize(
    ("counts", "joined", "expected"),
    [
        pytest.param(
            {"a": 2, "b": 2, "c": 2, "d": 2},
            {"A": ("abcd", "", -1), "B": ("abcd", "", -1), "C": ("abcd", "", -1)},
            {"A": "a0 b1 d0", "B": "a1 c0 d1", "C": "b0 c1"},
            id="a new group",
        ),
        pytest.param(
            {"a": 1, "b": 2, "c": 3},
            {"A": ("a", "", -1), "B": ("ab", "", -1), "C": ("abc", "", -1)},
            {"A": "a0", "B": "b0 b1", "C": "c0 c1 c2"},
            id="unlike subscriptions",
        ),
        pytest.param(
            {"a": 1, "b": 2, "c": 3},
            {"B": ("ab", "b0 b1", 1), "C": ("abc", "c0 c1 c2", 1)},
            {"B": "a0 b0 b1", "C": "c0 c1 c2"},
            id="unlike subscriptions, one left",
        ),
        pytest.param(
            {"a": 4},
            {"A": ("a", "a0 a1", 5), "B": ("a", "a1 a2", 3)},
            {"A": "a0 a1", "B": "a2 a3"},
            id="an older generation",
        ),
    ],
)
@pytest.mark.parametrize("assignor", STICKY)
def test_sticky_answers_as_kafka_does(
    assignor: str,
    counts: dict[str, int],
    joined: dict[str, tuple[str, str, int]],
    expected: dict[str, str],
) -> None:
    subscriptions = {
        member: has(assignor, topics, names(owned), generation)
        for member, (topics, owned, generation) in joined.items()
    }
    assigned = ASSIGNORS[assignor].assign(counts, subscriptions)
    assert assigned == {member: names(owned) for member, owned in expected.items()}, "as kafka-clients 3.9.1 answers"


@given(groups("sticky", equal=False))
def test_nobody_has_two_more_than_one_who_could_take_one(group: Group) -> None:
    assigned = group.rebalance()
    check_owners(assigned, group.counts, group.wanted)
    check_balance(assigned, group.wanted)


@given(groups("sticky", equal=True))
def test_as_few_partitions_move_as_can_be(group: Group) -> None:
    topics = set(next(iter(group.wanted.values())))
    before = {member: {name for name in group.claims(member) if name.topic in topics} for member in group.wanted}
    assigned = group.rebalance()
    check_owners(assigned, group.counts, group.wanted)
    loads = list(map(len, assigned.values()))
    assert max(loads) - min(loads) <= 1

    share, larger = divmod(sum(loads), len(loads))
    may_have_more = min(larger, sum(len(owned) > share for owned in before.values()))
    can_stay = sum(min(len(owned), share) for owned in before.values()) + may_have_more
    stay = sum(len(before[member] & set(owned)) for member, owned in assigned.items())
    assert stay == can_stay


@pytest.mark.parametrize("assignor", STICKY)
@given(st.data())
def test_without_a_change_nothing_moves(assignor: str, data: st.DataObject) -> None:
    group = data.draw(groups(assignor, equal=False))
    group.settle(8)
    before = {member: group.claims(member) for member in group.wanted}
    assert group.rebalance() == before


def test_who_leaves_costs_the_others_nothing_and_who_joins_gets_all_that_moves() -> None:
    group = Group("sticky", {"a": 7, "b": 4}, dict.fromkeys("ABC", ("a", "b")), {})
    before = group.rebalance()
    del group.wanted["B"]
    after = group.rebalance()
    assert all(set(before[member]) <= set(after[member]) for member in "AC")
    group.wanted["D"] = ("a", "b")
    last = group.rebalance()
    assert all(set(last[member]) <= set(after[member]) for member in "AC")
    assert sorted(map(len, last.values())) == [3, 4, 4]


@pytest.mark.parametrize("assignor", STICKY)
def test_an_older_generation_keeps_what_nobody_newer_claims(assignor: str) -> None:
    joined = {"A": has(assignor, "a", names("a0 a1"), 3), "B": has(assignor, "a", names("a1 a3"), 9)}
    assert ASSIGNORS[assignor].assign({"a": 4}, joined) == {"A": names("a0 a2"), "B": names("a1 a3")}


@pytest.mark.parametrize("assignor", STICKY)
def test_claims_to_what_is_not_there_or_not_wanted_count_for_nothing(assignor: str) -> None:
    joined = {"A": has(assignor, "a", names("a0 a7 b0 c0"), 3), "B": has(assignor, "ab", names("a1"), 3)}
    group = Group(assignor, {"a": 2, "b": 1}, {"A": ("a",), "B": ("a", "b")}, {})
    assigned = ASSIGNORS[assignor].assign(group.counts, joined)
    assert assigned["A"] == names("a0")
    assert assigned["B"] == names("a1") if assignor == "cooperative-sticky" else names("a1 b0"), "A still has b0"


# ---- what sticky members write


def test_sticky_user_data_are_kafkas_bytes() -> None:
    sticky = ASSIGNORS["sticky"]
    written = sticky.user_data(names("b1 a0 a2"), 7)
    assert written is not None
    golden = bytes.fromhex("00000002 000161 00000002 00000000 00000002 000162 00000001 00000001 00000007")
    assert written == golden, "as kafka-clients 3.9.1 writes it"
    read = StickyAssignorUserDataV1.decode(written)
    assert (read.previous_assignment, read.generation) == ([("a", [0, 2]), ("b", [1])], 7)
    assert sticky.user_data((), NO_GENERATION) is None, "it has had no assignment"


def test_another_clients_sticky_user_data_are_read() -> None:
    def theirs(partitions: list[int], generation: int) -> Subscription:
        data = StickyAssignorUserDataV1([("a", partitions)], generation).encode()
        return Subscription(("a",), user_data=data)

    joined = {"A": theirs([3, 1], 7), "B": theirs([3, 2, 0], 6)}
    assert ASSIGNORS["sticky"].assign({"a": 4}, joined) == {"A": names("a1 a3"), "B": names("a0 a2")}


def test_sticky_user_data_of_version_0_is_of_no_generation() -> None:
    version_0 = (ASSIGNORS["sticky"].user_data(names("a0 a1"), 7) or b"")[:-4]
    joined = {"A": has("sticky", "a", names("a1"), 0), "B": Subscription(("a",), user_data=version_0)}
    assert ASSIGNORS["sticky"].assign({"a": 2}, joined) == {"A": names("a1"), "B": names("a0")}


@given(st.binary(max_size=40))
def test_user_data_that_nobody_can_read_costs_their_member_its_claims_alone(data: bytes) -> None:
    joined = {"A": Subscription(("a",), user_data=b"\xff" + data), "B": has("sticky", "a", names("a0 a3"), 7)}
    assert ASSIGNORS["sticky"].assign({"a": 4}, joined) == {"A": names("a1 a2"), "B": names("a0 a3")}


def test_a_cooperative_member_of_version_1_has_its_generation_in_its_user_data() -> None:
    cooperative = ASSIGNORS["cooperative-sticky"]
    data = cooperative.user_data((), 7)
    assert data == b"\0\0\0\7", "as kafka-clients 3.9.1 writes it"
    old = Subscription(("a",), tuple(names("a0 a1")), user_data=data)
    joined = {"A": old, "B": has("cooperative-sticky", "a", names("a1 a2"), 6)}
    assert cooperative.assign({"a": 3}, joined)["A"] == names("a0 a1")


# ---- cooperative rounds


@pytest.mark.parametrize("equal", [True, False])
@given(st.data())
def test_nobody_gets_what_another_still_has_and_all_have_theirs_in_the_end(equal: bool, data: st.DataObject) -> None:
    group = data.draw(groups("cooperative-sticky", equal=equal))
    before = {member: set(group.claims(member)) for member in group.wanted}
    first = group.rebalance()
    for member, owned in first.items():
        for other in before.keys() - {member}:
            assert not before[other] & set(owned), (member, other)
    group.settle(2 if equal else 6)
    assigned = {member: group.claims(member) for member in group.wanted}
    check_owners(assigned, group.counts, group.wanted)
    check_balance(assigned, group.wanted)


@given(groups("cooperative-sticky", equal=True))
def test_two_rounds_are_enough_for_equal_subscriptions(group: Group) -> None:
    group.rebalance()
    assert group.settle(1) == 1
    before = {member: group.claims(member) for member in group.wanted}
    assert group.rebalance() == before


def test_what_is_to_move_belongs_to_nobody_for_one_round() -> None:
    group = Group("cooperative-sticky", {"a": 5}, {"A": ("a",)}, {})
    group.rebalance()
    group.wanted["B"] = ("a",)
    assert group.rebalance() == {"A": names("a0 a1 a2"), "B": []}
    assert group.rebalance() == {"A": names("a0 a1 a2"), "B": names("a3 a4")}


def test_what_two_claim_in_one_generation_neither_keeps() -> None:
    claims = {"A": (names("a0 a1"), 5), "B": (names("a1 a2"), 5)}
    group = Group("cooperative-sticky", {"a": 3}, dict.fromkeys("AB", ("a",)), claims)
    assert group.rebalance() == {"A": names("a0"), "B": names("a2")}
    assert group.rebalance() == {"A": names("a0 a1"), "B": names("a2")}
