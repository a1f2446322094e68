"""One request waits for all: who is covered by it, who is told, and when another is needed."""

from __future__ import annotations

from edge.kafka.doorbell import Doorbell, Rung, Watched

TOPIC = bytes(16)


def at(partition: int, offset: int, epoch: int = 3) -> Watched:
    return Watched(TOPIC, partition, offset, epoch)


def test_a_second_waiter_for_the_same_records_needs_no_other_request() -> None:
    bell: Doorbell[str] = Doorbell(10)
    bell.watch("a", at(0, 5))
    assert bell.is_wanting
    assert bell.ask() == (1, [at(0, 5)])
    bell.watch("b", at(0, 5))
    bell.leave("a", at(0, 5))
    bell.watch("a", at(0, 5))
    assert not bell.is_wanting


def test_another_partition_an_earlier_offset_or_another_epoch_needs_one() -> None:
    for other in (at(1, 5), at(0, 4), at(0, 5, epoch=4)):
        bell: Doorbell[str] = Doorbell(10)
        bell.watch("a", at(0, 5))
        bell.ask()
        bell.watch("b", other)
        assert bell.is_wanting
        number, asked = bell.ask()
        assert number == 2
        assert asked == ([at(0, 5), other] if other.partition else [min(at(0, 5), other, key=lambda w: w.offset)])


def test_those_are_told_whose_records_have_come() -> None:
    bell: Doorbell[str] = Doorbell(10)
    bell.watch("a", at(0, 5))
    bell.watch("far", at(0, 9))
    bell.watch("other", at(1, 5))
    number, _ = bell.ask()
    assert bell.answered(number, {(TOPIC, 0): Rung(0, 6), (TOPIC, 1): Rung(0, 5)}) == ["a"]
    assert bell.is_wanting


def test_all_at_a_partition_are_told_of_an_error() -> None:
    bell: Doorbell[str] = Doorbell(10)
    bell.watch("a", at(0, 5))
    bell.watch("far", at(0, 9))
    number, _ = bell.ask()
    assert bell.answered(number, {(TOPIC, 0): Rung(6, -1)}) == ["a", "far"]


def test_an_answer_to_an_older_request_tells_and_leaves_the_newer_under_way() -> None:
    bell: Doorbell[str] = Doorbell(10)
    bell.watch("a", at(0, 5))
    first, _ = bell.ask()
    bell.watch("b", at(1, 5))
    bell.ask()
    assert bell.answered(first, {(TOPIC, 0): Rung(0, 6)}) == ["a"]
    assert not bell.is_wanting
    assert bell.failed(first) == []
    assert not bell.is_wanting


def test_nobody_waits_nothing_is_asked() -> None:
    bell: Doorbell[str] = Doorbell(10)
    bell.watch("a", at(0, 5))
    number, _ = bell.ask()
    bell.leave("a", at(0, 5))
    bell.leave("a", at(0, 5))
    assert bell.answered(number, {(TOPIC, 0): Rung(0, 5)}) == []
    assert not bell.is_wanting


def test_a_request_without_an_answer_tells_all_in_it() -> None:
    bell: Doorbell[str] = Doorbell(10)
    bell.watch("a", at(0, 5))
    bell.watch("b", at(1, 5))
    number, _ = bell.ask()
    assert bell.failed(number) == ["a", "b"]


def test_more_than_a_request_can_name_have_their_turns() -> None:
    bell: Doorbell[object] = Doorbell(2)
    for partition in range(5):
        bell.watch(partition, at(partition, 5))
    assert bell.in_turns
    seen = set()
    for _ in range(4):
        number, asked = bell.ask()
        seen |= {watched.partition for watched in asked}
        bell.watch("late", at(7, 5))
        assert not bell.is_wanting, "it has its turn"
        assert bell.answered(number, {}) == []
        assert bell.is_wanting
    assert seen == {0, 1, 2, 3, 4, 7}


def test_who_was_told_and_left_wants_nothing_more() -> None:
    bell: Doorbell[str] = Doorbell(10)
    bell.watch("a", at(0, 5))
    number, _ = bell.ask()
    assert bell.answered(number, {(TOPIC, 0): Rung(0, 6)}) == ["a"]
    bell.leave("a", at(0, 5))
    assert not bell.is_wanting
