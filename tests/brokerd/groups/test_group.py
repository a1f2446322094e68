"""Membership as Kafka's classic protocol has it, one promise a test."""

from __future__ import annotations

import pytest

from brokerd.groups.config import GroupConfig
from brokerd.groups.member import WATCHED_PATIENCE_MS
from brokerd.groups.records import GroupKey, GroupValue, encode
from ingest.client.groups.consumer_protocol import Subscription, encode_subscription
from ingest.client.positions import TopicPartition
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import MemberProcess
from tests.brokerd.groups.driver import GROUP, REBALANCE_MS, SESSION_MS, Driver

PROCESS = MemberProcess("boot", 1, 4711, 99)


def state(driver: Driver) -> str:
    return driver.shard.describe(GROUP, driver.now_ms).state


def test_a_first_join_is_given_an_id_and_comes_again_with_it() -> None:
    driver = Driver()
    token = driver.join(known=True)
    assert driver.code(token) == ErrorCode.MEMBER_ID_REQUIRED
    again = driver.join(driver.answers[token].member_id, known=True)
    assert driver.code(again) == 0
    assert driver.answers[again].generation == 1
    assert driver.answers[again].leader == driver.answers[token].member_id


def test_an_id_that_is_not_used_in_its_session_is_forgotten_with_its_group() -> None:
    driver = Driver()
    token = driver.join(known=True)
    driver.pass_time(SESSION_MS + 1)
    assert driver.code(driver.join(driver.answers[token].member_id, known=True)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert driver.shard.groups == {}


def test_the_leader_alone_hears_of_all_members_and_everybody_gets_its_share() -> None:
    driver = Driver()
    (leader, *others), generation = driver.stable(3)
    described = driver.shard.describe(GROUP, driver.now_ms)
    assert (described.state, described.leader, described.generation) == ("Stable", leader, generation)
    assert {member.member_id for member in described.members} == {leader, *others}


def test_no_answer_of_a_generation_comes_before_it_is_stored() -> None:
    driver = Driver()
    before = len(driver.stored)
    token = driver.join()
    (fact,) = driver.stored[before:]
    assert fact.key == GroupKey(GROUP)
    assert fact.value is not None
    assert driver.answers[token].generation == fact.value.generation  # type: ignore[union-attr]


def test_a_first_generation_waits_a_little_for_more_members() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=100))
    first = driver.join()
    driver.pass_time(60)
    second = driver.join()
    driver.pass_time(60)
    assert driver.code(first) is None
    driver.pass_time(60)
    assert [driver.answers[token].generation for token in (first, second)] == [1, 1]


def test_a_new_member_makes_everybody_join_again_and_who_does_not_is_out() -> None:
    driver = Driver()
    (leader, lazy), generation = driver.stable(2)
    waiting = driver.heartbeat(lazy, generation, wait_ms=3000)
    assert driver.code(waiting) is None
    new = driver.join()
    assert driver.code(waiting) == ErrorCode.REBALANCE_IN_PROGRESS
    driver.join(leader)
    for _ in range(REBALANCE_MS // 3000):
        driver.heartbeat(lazy, generation)  # it lives, but its user does not let go
        driver.pass_time(3000)
    assert driver.answers[new].generation == generation + 1
    assert driver.code(driver.heartbeat(lazy, generation)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert driver.lost == ["rebalance_timeout"]


def test_a_heartbeat_that_waits_is_answered_when_its_time_is_over() -> None:
    driver = Driver()
    (leader,), generation = driver.stable(1)
    token = driver.heartbeat(leader, generation, wait_ms=3000)
    driver.pass_time(2999)
    assert driver.code(token) is None
    driver.pass_time(2)
    assert driver.code(token) == 0


def test_a_silent_member_is_out_after_its_session() -> None:
    driver = Driver()
    (leader, silent), generation = driver.stable(2)
    for _ in range(4):
        driver.pass_time(3000)
        code = driver.code(driver.heartbeat(leader, generation))
    assert code == ErrorCode.REBALANCE_IN_PROGRESS
    assert driver.code(driver.heartbeat(silent, generation)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert driver.lost == ["session_timeout"]


def test_a_member_whose_process_is_seen_to_live_may_be_silent_for_minutes_while_nobody_else_waits() -> None:
    driver = Driver()
    token = driver.join(process=PROCESS)
    member = driver.answers[token].member_id
    assert driver.watches[-1].process == PROCESS
    driver.shard.watched(GROUP, member)
    driver.sync(member, 1, {member: b"x"})
    driver.pass_time(SESSION_MS * 3)
    assert driver.code(driver.heartbeat(member, 1)) == 0
    driver.pass_time(WATCHED_PATIENCE_MS + 1)
    assert driver.code(driver.heartbeat(member, 1)) == ErrorCode.UNKNOWN_MEMBER_ID


def test_the_end_of_a_process_begins_the_rebalance_at_once() -> None:
    driver = Driver()
    (leader, other), generation = driver.stable(2)
    waiting = driver.heartbeat(leader, generation, wait_ms=3000)
    driver.take(driver.shard.process_ended(GROUP, other, driver.now_ms))
    assert driver.code(waiting) == ErrorCode.REBALANCE_IN_PROGRESS
    token = driver.join(leader)
    assert driver.answers[token].generation == generation + 1
    assert len(driver.answers[token].members) == 1
    assert driver.lost == ["process_ended"]


def test_a_group_without_members_is_empty_and_keeps_its_generation() -> None:
    driver = Driver()
    (leader,), generation = driver.stable(1)
    driver.leave(leader)
    assert state(driver) == "Empty"
    assert driver.answers[driver.join()].generation == generation + 2


def test_an_older_generation_is_refused_everywhere() -> None:
    driver = Driver()
    (leader,), generation = driver.stable(1)
    old = generation - 1
    assert driver.code(driver.heartbeat(leader, old)) == ErrorCode.ILLEGAL_GENERATION
    assert driver.code(driver.sync(leader, old)) == ErrorCode.ILLEGAL_GENERATION
    assert driver.code(driver.commit(5, leader, old)) == ErrorCode.ILLEGAL_GENERATION
    assert driver.committed() == -1


def test_a_member_that_asks_again_gets_the_same_answer() -> None:
    driver = Driver()
    (leader, other), generation = driver.stable(2)
    again = driver.join(other)
    assert driver.answers[again].generation == generation
    assert driver.answers[driver.sync(other, generation)].assignment == other.encode()
    assert state(driver) == "Stable"
    driver.join(leader)
    assert state(driver) == "PreparingRebalance", "a leader that joins again wants to assign anew"


def test_a_request_that_is_asked_again_is_answered_too() -> None:
    """A connection serves its requests in order: one without an answer would hold up all that follow."""
    driver = Driver()
    (leader, other), generation = driver.stable(2)
    beats = [driver.heartbeat(other, generation, wait_ms=3000) for _ in range(2)]
    assert [driver.code(token) for token in beats] == [0, None]
    new = driver.join()
    joins = [driver.join(other) for _ in range(2)]
    assert [driver.code(token) for token in joins] == [ErrorCode.REBALANCE_IN_PROGRESS, None]
    driver.join(leader)
    member = driver.answers[new].member_id
    syncs = [driver.sync(member, generation + 1) for _ in range(2)]
    assert [driver.code(token) for token in syncs] == [ErrorCode.REBALANCE_IN_PROGRESS, None]


def test_a_heartbeat_that_is_refused_leaves_nothing_behind() -> None:
    driver = Driver()
    (leader,), generation = driver.stable(1)
    driver.heartbeat("stranger", generation, wait_ms=2**31)
    assert driver.shard.next_ms() <= driver.now_ms + SESSION_MS
    driver.leave(leader)
    driver.heartbeat(leader, generation, wait_ms=2**31)
    driver.pass_time(REBALANCE_MS)
    assert driver.shard._due == []


def test_times_that_are_not_due_any_more_are_cleared_away() -> None:
    driver = Driver()
    (leader,), generation = driver.stable(1)
    for wait_ms in range(SESSION_MS - 1, 1000, -1):
        driver.heartbeat(leader, generation, wait_ms)
    assert len(driver.shard._due) < 2_000


def test_a_join_that_comes_after_a_later_one_says_nothing_new() -> None:
    """What it says that its member has is out of date: the leader would give it to others who has it still."""
    driver = Driver()
    leader = driver.answers[driver.join(attempt=1)].member_id
    new = driver.join(attempt=1)
    driver.join(leader, attempt=2)
    other = driver.answers[new].member_id
    generation = driver.answers[new].generation
    for member in (leader, other):
        driver.sync(member, generation, {leader: b"a", other: b"b"})
    driver.fail_over()
    late = driver.join(other, [("range", b"had nothing then")], attempt=1)
    assert driver.code(late) == ErrorCode.REBALANCE_IN_PROGRESS
    assert driver.code(driver.join(leader, attempt=2)) == ErrorCode.REBALANCE_IN_PROGRESS
    assert state(driver) == "Stable"
    driver.join(other, [("range", b"has something")], attempt=2)
    assert state(driver) == "PreparingRebalance"


def test_other_metadata_of_a_member_begins_a_rebalance() -> None:
    driver = Driver()
    (_, other), _ = driver.stable(2)
    driver.join(other, [("range", b"b")])
    assert state(driver) == "PreparingRebalance"


def test_the_protocol_is_the_one_that_most_like_among_those_all_know() -> None:
    driver = Driver()
    first = driver.join(protocols=[("a", b"1"), ("b", b"1")])
    one = driver.answers[first].member_id
    second = driver.join(protocols=[("b", b"2"), ("a", b"2"), ("c", b"2")])
    third = driver.join(protocols=[("c", b"3"), ("b", b"3")])
    assert driver.code(third) is None
    driver.join(one, [("a", b"1"), ("b", b"1")])
    assert driver.answers[second].protocol == "b"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"protocols": [("other", b"x")]}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocols": []}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": "connect"}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": ""}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"session_timeout_ms": 1}, ErrorCode.INVALID_SESSION_TIMEOUT),
        ({"session_timeout_ms": 2**40}, ErrorCode.INVALID_SESSION_TIMEOUT),
        ({"member_id": "unheard of"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"member_id": "unheard of", "instance_id": "i"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"rebalance_timeout_ms": -1}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    ],
)
def test_a_join_that_can_not_be_is_refused_and_changes_nothing(change: dict[str, object], code: ErrorCode) -> None:
    driver = Driver()
    driver.stable(1)
    before = driver.shard.describe(GROUP, driver.now_ms)
    assert driver.code(driver.join(**change)) == code  # type: ignore[arg-type]
    assert driver.shard.describe(GROUP, driver.now_ms) == before


def test_a_session_that_can_not_be_is_refused_with_the_rule_and_its_numbers() -> None:
    driver = Driver(GroupConfig(session_timeout_ms_min=10, session_timeout_ms_max=2_000))
    assert driver.answers[driver.join(session_timeout_ms=9)].message == (
        "session.timeout.ms=9: this cluster takes 10 to 2000 "
        "(group.min.session.timeout.ms, group.max.session.timeout.ms)"
    )


def test_a_full_group_takes_nobody_more() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=0, members_max=2))
    driver.stable(2)
    assert driver.code(driver.join()) == ErrorCode.GROUP_MAX_SIZE_REACHED


def test_a_leader_that_does_not_assign_in_time_is_out() -> None:
    driver = Driver()
    token = driver.join()
    leader = driver.answers[token].member_id
    for _ in range(REBALANCE_MS // 3000 + 1):
        driver.heartbeat(leader, 1)
        driver.pass_time(3000)
    assert driver.code(driver.heartbeat(leader, 1)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert driver.lost == ["rebalance_timeout"]


def test_rebalances_are_counted_and_who_takes_its_leave_is_not_lost() -> None:
    driver = Driver()
    (leader, other), _ = driver.stable(2)
    assert driver.rebalances == 2
    driver.leave(other)
    assert driver.rebalances == 3
    driver.join(leader)
    assert (driver.rebalances, driver.lost) == (3, [])


# ---- static members (KIP-345)


def static(driver: Driver) -> tuple[str, int]:
    token = driver.join(instance_id="i")
    member = driver.answers[token].member_id
    driver.sync(member, 1, {member: b"mine"}, instance_id="i")
    return member, 1


def test_a_static_member_that_starts_anew_has_its_place_again_and_the_old_one_is_fenced() -> None:
    driver = Driver()
    old, generation = static(driver)
    token = driver.join(instance_id="i")
    answer = driver.answers[token]
    assert (answer.generation, answer.skip_assignment) == (generation, True)
    assert answer.member_id != old
    assert driver.answers[driver.sync(answer.member_id, generation, instance_id="i")].assignment == b"mine"
    assert driver.code(driver.heartbeat(old, generation, instance_id="i")) == ErrorCode.FENCED_INSTANCE_ID
    assert driver.code(driver.sync(old, generation, instance_id="i")) == ErrorCode.FENCED_INSTANCE_ID
    driver.fail_over()
    assert driver.code(driver.heartbeat(answer.member_id, generation, instance_id="i")) == 0


def test_a_static_member_moves_nothing_when_it_comes_back_and_has_nothing_yet() -> None:
    """What it had, and since when, stands in the metadata it joined with before: it differs nearly always."""
    driver = Driver()
    had = Subscription(("a", "b"), (TopicPartition("a", 0),), generation=7, user_data=b"sticky")
    token = driver.join(protocols=[("range", encode_subscription(had))], instance_id="i")
    old = driver.answers[token].member_id
    driver.sync(old, 1, {old: b"mine"}, instance_id="i")
    again = driver.join(protocols=[("range", encode_subscription(Subscription(("b", "a"))))], instance_id="i")
    answer = driver.answers[again]
    assert (answer.generation, answer.skip_assignment, state(driver)) == (1, True, "Stable")
    assert driver.answers[driver.sync(answer.member_id, 1, instance_id="i")].assignment == b"mine"
    assert driver.rebalances == 1


@pytest.mark.parametrize(
    "protocols",
    [
        [("range", encode_subscription(Subscription(("a", "c"))))],
        [("range", b"no subscription")],
        [("sticky", encode_subscription(Subscription(("a",)))), ("range", encode_subscription(Subscription(("a",))))],
    ],
)
def test_a_static_member_that_comes_back_for_something_else_begins_a_rebalance(
    protocols: list[tuple[str, bytes]],
) -> None:
    driver = Driver()
    wants = encode_subscription(Subscription(("a",)))
    old = driver.answers[driver.join(protocols=[("range", wants)], instance_id="i")].member_id
    driver.sync(old, 1, {old: b"mine"}, instance_id="i")
    assert driver.answers[driver.join(protocols=protocols, instance_id="i")].generation == 2


def test_an_instance_that_nobody_is_does_not_speak_for_a_member() -> None:
    driver = Driver()
    (member,), generation = driver.stable(1)
    assert driver.code(driver.heartbeat(member, generation, instance_id="i")) == ErrorCode.UNKNOWN_MEMBER_ID
    assert driver.code(driver.sync(member, generation, instance_id="i")) == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_static_member_whose_process_ends_keeps_its_place_for_its_session() -> None:
    driver = Driver()
    member, _ = static(driver)
    driver.shard.watched(GROUP, member)
    driver.take(driver.shard.process_ended(GROUP, member, driver.now_ms))
    driver.pass_time(SESSION_MS - 1)
    assert state(driver) == "Stable"
    driver.pass_time(2)
    assert state(driver) == "Empty"


def test_a_static_member_whose_process_ends_after_a_long_computation_has_a_whole_session_too() -> None:
    driver = Driver()
    member, _ = static(driver)
    driver.shard.watched(GROUP, member)
    driver.pass_time(SESSION_MS * 3)
    driver.take(driver.shard.process_ended(GROUP, member, driver.now_ms))
    driver.pass_time(SESSION_MS - 1)
    assert state(driver) == "Stable"
    driver.pass_time(2)
    assert state(driver) == "Empty"


def test_a_member_is_described_with_how_long_it_is_silent_and_when_it_is_given_up() -> None:
    driver = Driver()
    member, _ = static(driver)
    driver.pass_time(3_000)
    (told,) = driver.shard.describe(GROUP, driver.now_ms).members
    assert (told.ended, told.silent_ms, told.gone_in_ms) == (False, 3_000, SESSION_MS - 3_000)
    driver.take(driver.shard.process_ended(GROUP, member, driver.now_ms))
    driver.pass_time(1_000)
    (told,) = driver.shard.describe(GROUP, driver.now_ms).members
    assert (told.ended, told.silent_ms, told.gone_in_ms) == (True, 1_000, SESSION_MS - 1_000)
    driver.join(instance_id="i")
    (told,) = driver.shard.describe(GROUP, driver.now_ms).members
    assert (told.ended, told.silent_ms) == (False, 0)


def test_those_are_described_for_whom_a_rebalance_waits() -> None:
    driver = Driver()

    def awaited() -> set[str]:
        return {member.member_id for member in driver.shard.describe(GROUP, driver.now_ms).members if member.awaited}

    (leader, other), _ = driver.stable(2)
    assert awaited() == set()
    driver.join()
    assert awaited() == {leader, other}
    driver.join(other)
    assert awaited() == {leader}
    driver.join(leader)
    assert state(driver) == "CompletingRebalance"
    assert awaited() == {leader}


def test_an_administrator_takes_a_static_member_out_by_its_instance() -> None:
    driver = Driver()
    static(driver)
    assert driver.answers[driver.leave(instance_id="other")].members == [ErrorCode.UNKNOWN_MEMBER_ID]
    assert driver.answers[driver.leave(instance_id="i")].members == [0]
    assert state(driver) == "Empty"


# ---- a coordinator's death


def test_a_new_coordinator_knows_the_generation_and_gives_everyone_a_whole_session() -> None:
    driver = Driver()
    (leader, other), generation = driver.stable(2)
    driver.pass_time(SESSION_MS - 1)
    driver.fail_over()
    driver.pass_time(SESSION_MS - 1)
    assert driver.code(driver.heartbeat(other, generation)) == 0
    assert driver.answers[driver.sync(leader, generation)].assignment == leader.encode()


def test_a_generation_that_had_begun_is_assigned_under_the_next_coordinator() -> None:
    driver = Driver()
    leader = driver.answers[driver.join()].member_id
    driver.fail_over()
    assert driver.answers[driver.sync(leader, 1, {leader: b"all"})].assignment == b"all"


def test_a_generation_is_never_given_out_twice() -> None:
    driver = Driver()
    (leader,), generation = driver.stable(1)
    driver.fail_over()
    assert driver.answers[driver.join(leader)].generation == generation + 1
    driver.fail_over()
    assert driver.answers[driver.join(leader, [("range", b"other")])].generation == generation + 2


def test_one_that_left_before_its_coordinator_died_does_not_stay_because_its_process_lives() -> None:
    """The rebalance that it left behind was not stored."""
    driver = Driver()
    (leader, other), generation = driver.stable(2)
    driver.leave(other)
    driver.fail_over()
    driver.shard.watched(GROUP, leader)
    driver.shard.watched(GROUP, other)
    waiting = driver.heartbeat(leader, generation, wait_ms=REBALANCE_MS)
    driver.pass_time(SESSION_MS)
    assert driver.code(waiting) == ErrorCode.REBALANCE_IN_PROGRESS
    assert len(driver.answers[driver.join(leader)].members) == 1


# ---- the size of a group's record ------------------------------------------------------------------------------------


def test_who_would_make_the_record_of_a_group_too_large_is_refused_alone() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=0, group_bytes_max=2_000))
    (leader,), generation = driver.stable(1)
    token = driver.join(protocols=[("range", b"x" * 1_800)])
    assert driver.code(token) == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert "2000 bytes" in driver.answers[token].message
    assert (state(driver), driver.code(driver.heartbeat(leader, generation))) == ("Stable", 0)
    assert driver.code(driver.join(leader, [("range", b"x" * 2_000)])) == ErrorCode.GROUP_MAX_SIZE_REACHED


def test_an_assignment_that_does_not_fit_the_record_of_a_group_is_refused_and_a_smaller_one_is_taken() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=0, group_bytes_max=2_000))
    leader = driver.answers[driver.join()].member_id
    before = len(driver.stored)
    token = driver.sync(leader, 1, {leader: b"x" * 1_900})
    assert driver.code(token) == ErrorCode.UNKNOWN_SERVER_ERROR
    assert "2000 bytes" in driver.answers[token].message
    assert len(driver.stored) == before
    assert driver.code(driver.sync(leader, 1, {leader: b"x"})) == 0


def test_the_record_of_a_group_is_never_larger_than_what_is_allowed() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=100, group_bytes_max=20_000))
    for number in range(100):
        texts = {"instance_id": f"Ж{number}" * 5, "client_host": "Ж" * number, "process": PROCESS}
        driver.join(protocols=[("range", b"x" * number), ("sticky", b"x")], **texts)
    driver.pass_time(100)
    (value,) = [fact.value for fact in driver.stored]
    assert isinstance(value, GroupValue)
    assert 13_000 < len(encode(value)) <= 20_000


# ---- what is held in memory ------------------------------------------------------------------------------------------


def test_what_members_say_of_themselves_takes_bounded_memory_whatever_groups_they_name() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=0, held_bytes_max=100_000))
    (member,), generation = driver.stable(1)
    metadata = [("a", b"x" * 8_000), ("b", b"x" * 8_000)]
    tokens = [driver.join(group=f"g{number}", protocols=metadata) for number in range(20)]
    refused = [token for token in tokens if driver.code(token) == ErrorCode.POLICY_VIOLATION]
    assert len(refused) >= 14
    assert "memory" in driver.answers[refused[0]].message
    assert driver.code(driver.heartbeat(member, generation)) == 0
    driver.pass_time(REBALANCE_MS + 1)
    assert driver.code(driver.join(group="later", protocols=metadata)) == 0


def test_ids_given_out_take_bounded_memory() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=0, held_bytes_max=20_000))
    codes = [driver.code(driver.join(group=f"g{number}", known=True)) for number in range(20)]
    assert set(codes) == {ErrorCode.MEMBER_ID_REQUIRED, ErrorCode.POLICY_VIOLATION}
    assert codes.count(ErrorCode.POLICY_VIOLATION) >= 10


def test_an_assignment_takes_no_more_memory_than_there_is() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=0, held_bytes_max=10_000))
    leader = driver.answers[driver.join()].member_id
    assert driver.code(driver.sync(leader, 1, {leader: b"x" * 20_000})) == ErrorCode.UNKNOWN_SERVER_ERROR
    assert driver.code(driver.sync(leader, 1, {leader: b"x"})) == 0


def test_what_a_new_coordinator_finds_counts_too_and_is_counted_off_when_it_goes() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=0, held_bytes_max=20_000))
    token = driver.join(protocols=[("range", b"x" * 15_000)])
    driver.fail_over()
    assert driver.code(driver.join(group="other", protocols=[("range", b"x" * 8_000)])) == ErrorCode.POLICY_VIOLATION
    driver.leave(driver.answers[token].member_id)
    assert driver.code(driver.join(group="other", protocols=[("range", b"x" * 8_000)])) == 0
