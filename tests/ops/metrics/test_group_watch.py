"""How far groups are behind, of what brokers and leaders say: no question too many, no label too many."""

from __future__ import annotations

from typing import Any

from brokerd.serving.stats import BrokerStats, GroupStats, PartitionStats
from ingest.client.lag import Lag, LeaderLag, Place
from ingest.client.positions import TopicPartition
from ops.metrics.group_watch import Answer, GroupsSeen, GroupWatch, PartitionProgress
from tests.ops.metrics.fakes import broker, partition

HERE = {("sensors", 0): partition("sensors", 0, log_start_offset=10, high_watermark=90)}


def group(name: str = "dash", offsets: dict[int, int] | None = None, topic: str = "sensors") -> GroupStats:
    return GroupStats(name, "Stable", 2, {topic: offsets or {0: 50}})


def place(offset: int, number: int = 0, topic: str = "sensors") -> Place:
    return Place(TopicPartition(topic, number), offset)


def said(where: Place, records: int, size: int = 1000, seconds: float = 5.0, at_ms: int = 0) -> Answer:
    return Answer(where, LeaderLag(0, where.offset + records, Lag(records, size, seconds)), at_ms)


def step(
    watch: GroupWatch,
    *groups: GroupStats,
    news: tuple[Answer, ...] = (),
    now_ms: int = 0,
    marks: dict[tuple[str, int], PartitionStats] | None = None,
    **changes: Any,
) -> GroupsSeen:
    told: BrokerStats = broker(1, groups=list(groups), **changes)
    return watch.step([told], HERE if marks is None else marks, news, now_ms)


def only(seen: GroupsSeen) -> PartitionProgress:
    ((progress,),) = [one.partitions for one in seen.groups]
    return progress


def test_what_is_at_the_high_watermark_needs_no_question() -> None:
    watch = GroupWatch(groups_max=10)
    seen = step(watch, group(offsets={0: 90}))
    assert only(seen) == PartitionProgress("sensors", 0, 90, 0, 0, 0.0)
    assert seen.places == []
    assert only(step(watch, group(offsets={0: 95}))).lag_records == 0, "a log that was cut"


def test_records_are_known_at_once_where_the_leader_is_here_and_the_rest_when_it_has_answered() -> None:
    watch = GroupWatch(groups_max=10)
    seen = step(watch, group())
    assert only(seen) == PartitionProgress("sensors", 0, 50, 40, None, None)
    assert seen.places == [place(50)]
    seen = step(watch, group(), news=(said(place(50), 40, 777, 5.0, at_ms=100),), now_ms=1100)
    assert only(seen) == PartitionProgress("sensors", 0, 50, 40, 777, 6.0), "it has grown older since it was asked"
    assert step(watch, group(), now_ms=3100).groups[0].partitions[0].lag_seconds == 8.0


def test_records_below_the_log_start_do_not_count() -> None:
    assert only(step(GroupWatch(groups_max=10), group(offsets={0: 3}))).lag_records == 80


def test_a_leader_elsewhere_says_everything() -> None:
    watch = GroupWatch(groups_max=10)
    assert only(step(watch, group(), marks={})) == PartitionProgress("sensors", 0, 50, None, None, None)
    seen = step(watch, group(), marks={}, news=(said(place(50), 0, 0, 0.0),), now_ms=5000)
    assert only(seen) == PartitionProgress("sensors", 0, 50, 0, 0, 0.0), "nothing unread does not grow old"
    assert seen.places == [place(50)], "it may have got more since"


def test_until_there_is_an_answer_for_a_newer_commit_the_last_one_stands() -> None:
    watch = GroupWatch(groups_max=10)
    step(watch, group())
    step(watch, group(), news=(said(place(50), 40, 777, 5.0),))
    seen = step(watch, group(offsets={0: 60}), now_ms=9000)
    assert only(seen) == PartitionProgress("sensors", 0, 60, 30, 777, 5.0)
    assert seen.places == [place(60)]
    seen = step(watch, group(offsets={0: 60}), news=(said(place(60), 30, 500, 1.0, at_ms=9000),), now_ms=9000)
    assert only(seen).lag_bytes == 500


def test_groups_at_the_same_place_are_one_question() -> None:
    seen = step(GroupWatch(groups_max=10), group("a"), group("b"))
    assert [one.group for one in seen.groups] == ["a", "b"]
    assert seen.places == [place(50)]


def test_no_more_is_asked_at_once_than_allowed_and_each_has_its_turn() -> None:
    watch = GroupWatch(groups_max=10, places_max=3)
    behind = group(offsets=dict.fromkeys(range(7), 5))
    asked: list[Place] = []
    news: tuple[Answer, ...] = ()
    for round_ in range(3):
        seen = step(watch, behind, marks={}, news=news, now_ms=1000 * round_)
        assert len(seen.places) == 3
        asked += seen.places
        news = tuple(said(one, 1, at_ms=1000 * round_) for one in seen.places)
    assert [one.name.partition for one in asked] == [0, 1, 2, 3, 4, 5, 6, 0, 1]


def test_groups_beyond_the_cap_are_counted_and_those_shown_stay() -> None:
    watch = GroupWatch(groups_max=2)
    step(watch, group("m"), group("n"))
    seen = step(watch, group("a"), group("m"), group("n"), groups_untold=4)
    assert [one.group for one in seen.groups] == ["m", "n"]
    assert seen.left_out == 5
    seen = step(watch, group("a"), group("n"))
    assert [one.group for one in seen.groups] == ["a", "n"]
    assert seen.left_out == 0


def test_a_group_is_shown_whole_or_not_at_all() -> None:
    watch = GroupWatch(groups_max=10, partitions_max=5)
    large = group("large", dict.fromkeys(range(6), 5))
    seen = step(watch, large, group("small", {0: 5, 1: 5}))
    assert [one.group for one in seen.groups] == ["small"]
    assert seen.left_out == 1
    assert len(seen.places) == 2


def test_what_is_remembered_is_no_more_than_what_is_shown() -> None:
    watch = GroupWatch(groups_max=10)
    for number in range(100):
        offsets = {0: number}
        step(watch, group(f"g{number}", offsets), news=(said(place(number), 1),))
    assert len(watch._answers) <= 1
    assert len(watch._last) <= 1
