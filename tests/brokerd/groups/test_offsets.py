"""Committed offsets: who may commit, how long they are kept, and what an administrator may do."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from brokerd.groups.config import GroupConfig
from brokerd.groups.records import Fact, GroupKey, OffsetKey, OffsetValue, decode, encode, partition_of
from brokerd.groups.shard import AGE_EVERY_MS, FACTS_AT_ONCE, FETCH_BYTES
from ingest.errors import UnsupportedFormat
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import encode_response
from ingest.wire.group_messages import (
    CommittedOffset,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetFetchRequest,
)
from tests.brokerd.groups.driver import GROUP, TOPIC, Driver

DAY_MS = 86_400_000


def test_nobody_commits_while_a_group_has_members_but_its_members() -> None:
    driver = Driver()
    assert driver.answers[driver.commit(3)].offsets == [0]
    (member,), generation = driver.stable(1)
    assert driver.code(driver.commit(4)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert driver.code(driver.commit(5, "stranger", generation)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert driver.committed() == 3
    assert driver.code(driver.commit(6, member, generation)) == 0
    driver.leave(member)
    assert driver.code(driver.commit(7, member, generation)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert driver.committed() == 6


def test_without_a_generation_anybody_commits_to_a_group_without_members() -> None:
    """Kafka's rule: such a client assigns to itself, whatever id it gives."""
    driver = Driver()
    assert driver.code(driver.commit(3, "myself")) == 0
    (member,), _ = driver.stable(1)
    assert driver.code(driver.commit(4, "myself")) == ErrorCode.UNKNOWN_MEMBER_ID
    driver.leave(member)
    assert driver.code(driver.commit(5, "myself")) == 0
    assert driver.committed() == 5


def test_a_member_commits_while_others_join_but_not_before_it_has_its_assignment() -> None:
    driver = Driver()
    (leader, other), generation = driver.stable(2)
    driver.join()
    assert driver.code(driver.commit(1, other, generation)) == 0
    for member in (leader, other):
        driver.join(member)
    assert driver.code(driver.commit(2, other, generation + 1)) == ErrorCode.REBALANCE_IN_PROGRESS


def test_offsets_and_their_metadata_outlive_a_coordinator() -> None:
    driver = Driver()
    driver.commit(8, metadata="half way", leader_epoch=5)
    driver.fail_over()
    found = driver.shard.fetch(OffsetFetchRequest(GROUP)).offsets
    assert found == [CommittedOffset(TOPIC, 0, 8, 5, "half way")]


def test_all_that_a_group_has_comes_in_pages_that_fit_an_answer() -> None:
    driver = Driver()
    places = [(topic * 16, partition) for topic in (b"s", b"t") for partition in range(10_000)]
    for topic_id, partition in reversed(places):
        text = "€" * 4096 if partition % 50 == 0 else ""
        driver.shard.replay(Fact(OffsetKey(GROUP, topic_id, partition), OffsetValue(7, 1, text, 0, 0)), 0)
    found: list[CommittedOffset] = []
    request = OffsetFetchRequest(GROUP)
    while True:
        page = driver.shard.fetch(request)
        assert len(encode_response(1, page)) <= FETCH_BYTES
        found += page.offsets
        if not page.more:
            break
        request = OffsetFetchRequest(GROUP, after=(found[-1].topic_id, found[-1].partition))
    assert [(item.topic_id, item.partition) for item in found] == places
    assert found == driver.shard.fetch(OffsetFetchRequest(GROUP, places)).offsets


def test_an_offset_with_the_longest_text_is_a_page_by_itself() -> None:
    driver = Driver(GroupConfig(metadata_chars_max=2 * FETCH_BYTES))
    for partition in (0, 1):
        driver.commit(3, partition=partition, metadata="x" * 2 * FETCH_BYTES)
    first = driver.shard.fetch(OffsetFetchRequest(GROUP))
    second = driver.shard.fetch(OffsetFetchRequest(GROUP, after=(TOPIC, 0)))
    assert [(item.partition, page.more) for page in (first, second) for item in page.offsets] == [(0, True), (1, False)]


@pytest.mark.parametrize(
    ("offset", "metadata", "code"),
    [
        (-1, "", ErrorCode.INVALID_COMMIT_OFFSET_SIZE),
        (2**63, "", ErrorCode.INVALID_COMMIT_OFFSET_SIZE),
        (1, "x" * 5000, ErrorCode.OFFSET_METADATA_TOO_LARGE),
    ],
)
def test_a_commit_that_can_not_be_is_refused(offset: int, metadata: str, code: ErrorCode) -> None:
    driver = Driver()
    assert driver.answers[driver.commit(offset, metadata=metadata)].offsets == [code]
    assert driver.committed() == -1


def test_metadata_that_is_too_large_is_refused_with_the_rule_and_its_numbers() -> None:
    driver = Driver(GroupConfig(texts_bytes_max=10_000))
    assert driver.answers[driver.commit(1, metadata="x" * 5_000)].message == (
        "metadata of 5000 characters: at most 4096 are taken (offset.metadata.max.bytes)"
    )
    for partition in range(2):
        assert driver.answers[driver.commit(1, partition=partition, metadata="x" * 4_000)].message == ""
    assert driver.answers[driver.commit(1, partition=2, metadata="x" * 4_000)].message == (
        "the coordinator holds 8000 bytes of metadata already, of at most 10000"
    )


def test_commits_make_no_more_groups_than_there_may_be() -> None:
    driver = Driver(GroupConfig(groups_max=2))
    codes = {}
    for group in ("a", "b", "c", "a"):
        token = driver.token()
        request = OffsetCommitRequest(group, [CommittedOffset(TOPIC, 0, 2**63 - 1)])
        driver.take(driver.shard.commit(request, (), token, wall_ms=0, now_ms=driver.now_ms))
        codes[group] = driver.code(token)
    assert codes == {"a": 0, "b": 0, "c": ErrorCode.POLICY_VIOLATION}
    assert len(driver.stored) == 3


def test_metadata_of_commits_takes_bounded_memory_and_commits_without_it_go_on() -> None:
    driver = Driver(GroupConfig(texts_bytes_max=10_000))
    for partition in range(2):
        assert driver.answers[driver.commit(1, partition=partition, metadata="x" * 4_000)].offsets == [0]
    refused = driver.commit(1, partition=2, metadata="Ж" * 2_000)
    assert driver.answers[refused].offsets == [ErrorCode.OFFSET_METADATA_TOO_LARGE]
    assert driver.answers[driver.commit(2, partition=0, metadata="y" * 4_000)].offsets == [0]
    assert driver.answers[driver.commit(1, partition=2)].offsets == [0]
    driver.fail_over()
    assert driver.answers[driver.commit(2, partition=2, metadata="Ж" * 2_000)].offsets == [12]
    assert driver.answers[driver.commit(3, partition=0)].offsets == [0]
    assert driver.answers[driver.commit(3, partition=2, metadata="Ж" * 2_000)].offsets == [0]


def test_there_are_no_more_offsets_than_there_may_be_and_those_there_are_move_on() -> None:
    driver = Driver(GroupConfig(offsets_max=3))
    codes = [driver.answers[driver.commit(1, partition=partition)].offsets[0] for partition in range(5)]
    assert codes == [0, 0, 0, ErrorCode.POLICY_VIOLATION, ErrorCode.POLICY_VIOLATION]
    assert driver.answers[driver.commit(2, partition=2)].offsets == [0]


def test_offsets_of_a_group_that_nobody_is_in_are_forgotten_after_their_retention() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=0, offsets_retention_ms=7 * DAY_MS))
    (member,), generation = driver.stable(1)
    driver.commit(5, member, generation)
    for _ in range(9):
        driver.shard.watched(GROUP, member)
        driver.pass_time(50_000)
        driver.heartbeat(member, generation)
    driver.leave(member)
    driver.pass_time(6 * DAY_MS)
    assert driver.committed() == 5
    driver.pass_time(DAY_MS + 120_000)
    assert driver.committed() == -1
    assert not driver.shard.knows(GROUP)
    driver.fail_over()
    assert not driver.shard.knows(GROUP)


def test_age_goes_on_over_coordinators_and_hardly_anything_of_it_is_lost() -> None:
    driver = Driver(GroupConfig(initial_rebalance_delay_ms=0, offsets_retention_ms=7 * DAY_MS))
    driver.commit(5)
    for _ in range(8):
        driver.pass_time(DAY_MS)
        driver.fail_over()
    driver.pass_time(8 * AGE_EVERY_MS)
    assert driver.committed() == -1


def test_offsets_are_kept_for_ever_if_that_is_wanted() -> None:
    driver = Driver(GroupConfig(offsets_retention_ms=-1))
    driver.commit(5)
    driver.pass_time(400 * DAY_MS)
    assert driver.committed() == 5


def test_what_was_committed_to_a_topic_goes_with_it() -> None:
    driver = Driver()
    driver.commit(5)
    driver.take(driver.shard.topics_deleted({TOPIC}))
    driver.fail_over()
    assert driver.committed() == -1


def test_a_group_is_deleted_only_without_members() -> None:
    driver = Driver()
    (member,), generation = driver.stable(1)
    driver.commit(5, member, generation)
    assert driver.shard.delete([GROUP, "none"])[0] == [ErrorCode.NON_EMPTY_GROUP, ErrorCode.GROUP_ID_NOT_FOUND]
    driver.leave(member)
    codes, effects = driver.shard.delete([GROUP])
    driver.take(effects)
    assert codes == [0]
    driver.fail_over()
    assert not driver.shard.knows(GROUP)


def test_offsets_are_deleted_by_partition_but_not_those_in_use() -> None:
    driver = Driver()
    driver.commit(5)
    driver.commit(6, partition=1)
    request = OffsetDeleteRequest(GROUP, [(TOPIC, 0)])
    token = driver.token()
    driver.take(driver.shard.delete_offsets(request, {TOPIC}, token))
    assert driver.answers[token].partitions == [ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC]
    token = driver.token()
    driver.take(driver.shard.delete_offsets(request, (), token))
    driver.fail_over()
    assert [driver.committed(0), driver.committed(1)] == [-1, 6]


def delete(driver: Driver, *places: tuple[bytes, int], unknown: Collection[bytes] = ()) -> OffsetDeleteResponse:
    token = driver.token()
    request = OffsetDeleteRequest(GROUP, list(places))
    driver.take(driver.shard.delete_offsets(request, (), token, unknown_topics=unknown))
    answer: OffsetDeleteResponse = driver.answers[token]
    return answer


def test_no_offset_is_deleted_of_a_group_whose_members_do_not_say_what_they_read() -> None:
    driver = Driver()
    driver.commit(5)
    (member,) = (driver.answers[driver.join(protocol_type="connect")].member_id,)
    driver.sync(member, 1, {member: b"x"})
    assert delete(driver, (TOPIC, 0)).error_code == ErrorCode.NON_EMPTY_GROUP
    assert driver.committed() == 5
    driver.leave(member)
    assert delete(driver, (TOPIC, 0)).partitions == [0]
    assert driver.committed() == -1


def test_of_a_topic_that_is_no_more_only_what_was_committed_can_be_deleted() -> None:
    driver = Driver()
    driver.commit(5)
    driver.commit(5, partition=1)
    answer = delete(driver, (TOPIC, 0), (TOPIC, 7), unknown=[TOPIC])
    assert answer.partitions == [ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert [driver.committed(0), driver.committed(1)] == [-1, 5]


def test_facts_are_what_their_bytes_say() -> None:
    driver = Driver()
    driver.stable(2)
    driver.commit(1)
    for fact in driver.stored:
        value = None if fact.value is None else encode(fact.value)
        assert decode(encode(fact.key), value) == fact
    assert decode(encode(GroupKey("g")), None) == Fact(GroupKey("g"), None)
    assert encode(OffsetKey("g", b"\1" * 16, 3)).hex() == "94a66f6666736574a167c410" + "01" * 16 + "03"
    assert encode(OffsetValue(1, 2, "m", 3, 4)).hex() == "950102a16d0304"


@pytest.mark.parametrize("key", [b"", b"\x91\xa5other", b"\x92\xa5group", b"\xc1", b"\x93\xa6offset\xa1g\xc4\x01a"])
def test_a_record_of_another_kind_is_told_apart(key: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        decode(key, None)


def test_groups_are_where_kafka_has_them() -> None:
    """Values of Java's String.hashCode; the third is the least int, whose absolute value is none."""
    assert partition_of("hello", 2**31) == 99162322
    assert partition_of("Aa", 2**31) == partition_of("BB", 2**31) == 2112
    assert partition_of("polygenelubricants", 2**31) == 0
    assert partition_of("\U0001f600", 2**31) == 0xD83D * 31 + 0xDE00


# ---- much at once ----------------------------------------------------------------------------------------------------


def decided_at_once(driver: Driver, until_ms: int) -> list[int]:
    """Let time pass; return how much was decided, turn by turn."""
    turns = []
    while (due_ms := driver.shard.next_ms()) <= until_ms:
        driver.now_ms = max(driver.now_ms, due_ms)
        before = len(driver.stored)
        driver.take(driver.shard.tick(driver.now_ms))
        turns.append(len(driver.stored) - before)
    driver.now_ms = until_ms
    return turns


def test_offsets_of_a_deleted_topic_are_forgotten_turn_by_turn() -> None:
    driver = Driver()
    for partition in range(5_000):
        driver.commit(1, partition=partition)
    before = len(driver.stored)
    driver.take(driver.shard.topics_deleted({TOPIC}))
    turns = [len(driver.stored) - before, *decided_at_once(driver, driver.now_ms)]
    assert (sum(turns), max(turns)) == (5_000, FACTS_AT_ONCE)
    assert not driver.shard.knows(GROUP)
    driver.take(driver.shard.topics_deleted({TOPIC}))
    assert driver.shard.next_ms() > driver.now_ms


def test_what_is_too_old_is_forgotten_turn_by_turn() -> None:
    driver = Driver(GroupConfig(offsets_retention_ms=DAY_MS))
    for number in range(6_000):
        request = OffsetCommitRequest(f"g{number // 3}", [CommittedOffset(TOPIC, number, 1)])
        driver.take(driver.shard.commit(request, (), driver.token(), wall_ms=0, now_ms=driver.now_ms))
    driver.now_ms += DAY_MS + 1
    turns = decided_at_once(driver, driver.now_ms)
    assert max(turns) <= FACTS_AT_ONCE + 10
    assert driver.shard.offsets.count == 0


def test_offsets_that_came_and_went_are_not_looked_for_again() -> None:
    driver = Driver()
    driver.commit(1)
    driver.commit(2)
    driver.commit(1, partition=1)
    assert len(list(driver.shard.offsets.of_topics({TOPIC}))) == 2
    driver.take(driver.shard.topics_deleted({TOPIC}))
    assert driver.shard.offsets._topics == {}
