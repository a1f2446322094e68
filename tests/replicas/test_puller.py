"""A follower's fetches: one at a time, late words ignored, truncation by epoch, never below what was committed."""

from __future__ import annotations

from typing import Any

import pytest

from brokerd.storage.compaction.cleaned import Cleaned, CleanedRange
from brokerd.storage.config import LogConfig
from ingest.records.batch import encode_batch
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import FetchedPartition, FetchRequest, FetchResponse
from replicas.follower import GoOffline, Refill, Restart, Truncate, on_diverged, on_out_of_range
from replicas.puller import Followed, Puller, PullSettings
from replicas.throttle import PORTION_MS, Throttle
from tests.simulation.disk import Disk, Files
from tests.simulation.storage import SimLog

KEY = (b"t" * 16, 0)
OTHER = (b"t" * 16, 1)


def batch(value: bytes = b"v") -> bytes:
    return bytes(encode_batch([1], [None], [value]))


class Leader:
    """A log that leads, and what a broker around it answers."""

    def __init__(self, key: tuple[bytes, int] = KEY, epoch: int = 1) -> None:
        self.key = key
        self.log = SimLog(Disk(1), Files(), *key, LogConfig())
        self.log.become_leader(epoch)

    def append(self, count: int = 1) -> None:
        for _ in range(count):
            self.log.append([batch()], wall_ms=1)

    def answer(self, offset: int, *, mark: int = 0, code: int = 0, **more: Any) -> tuple[FetchResponse, list[Any]]:
        data = self.log.read(offset, 1 << 20, end=self.log.end_offset) if offset < self.log.end_offset else b""
        result = FetchedPartition(
            *self.key, code, mark, self.log.start_offset, self.log.leader_epoch, 0 if data else -1, **more
        )
        return FetchResponse([result]), [data] if data else []


class Following:
    """A puller with one log, durable unless said."""

    def __init__(self, *, durable: bool = True) -> None:
        self.throttle = Throttle()
        self.puller = Puller(2, 1, PullSettings(), self.throttle)
        self.log = SimLog(Disk(2), Files(), *KEY, LogConfig())
        self.followed = Followed(self.log, 1, durable=durable, unclean_epoch=-1)
        self.puller.follow(KEY, self.followed)

    def request(self, now_ms: int = 0) -> tuple[int, FetchRequest]:
        due = self.puller.request(7, now_ms)
        assert due is not None
        return due[0], due[1]

    def take(self, number: int, answer: tuple[FetchResponse, list[Any]], now_ms: int = 0) -> Any:
        return self.puller.on_answer(number, answer[0], answer[1], now_ms=now_ms, wall_ms=1)

    def flush(self) -> None:
        self.log.flushed(self.log.flush().run())


@pytest.fixture
def leader() -> Leader:
    made = Leader()
    made.append(3)
    return made


def test_records_are_appended_as_they_came_and_acknowledged_by_the_next_fetch(leader: Leader) -> None:
    following = Following()
    number, request = following.request()
    assert (request.partitions[0].offset, request.partitions[0].flushed_end) == (0, 0)
    pulled = following.take(number, leader.answer(0, mark=2))
    assert (pulled.appended, pulled.records) == ({KEY: len(leader.log.read(0, 1 << 20, end=3))}, 3)
    assert following.log.read(0, 1 << 20, end=3) == leader.log.read(0, 1 << 20, end=3)
    assert following.log.high_watermark == 2
    assert following.puller.request(7, 0) is None, "what came is not on the disk yet"
    following.flush()
    _, request = following.request()
    assert (request.partitions[0].offset, request.partitions[0].flushed_end, request.partitions[0].last_epoch) == (
        3,
        3,
        1,
    )


def test_under_durability_os_the_next_fetch_does_not_wait(leader: Leader) -> None:
    following = Following(durable=False)
    following.take(following.request()[0], leader.answer(0))
    assert following.request()[1].partitions[0].offset == 3


def test_one_fetch_is_under_way_at_a_time(leader: Leader) -> None:
    following = Following()
    following.request()
    assert following.puller.request(7, 0) is None


def test_an_answer_to_an_earlier_fetch_counts_for_nothing(leader: Leader) -> None:
    following = Following()
    first, _ = following.request()
    following.puller.on_lost(0)
    second, _ = following.request(100)
    assert following.take(first, leader.answer(0)).records == 0
    assert following.take(second, leader.answer(0)).records == 3


def test_an_answer_of_another_leader_epoch_counts_for_nothing() -> None:
    following = Following()
    newer = Leader(epoch=2)
    newer.append()
    assert following.take(following.request()[0], newer.answer(0)).records == 0


def test_a_session_names_only_what_is_new(leader: Leader) -> None:
    following = Following(durable=False)
    _, request = following.request()
    assert (request.session.epoch, len(request.partitions)) == (0, 1)  # type: ignore[union-attr]
    following.take(1, leader.answer(3))
    _, request = following.request()
    assert (request.session.epoch, request.partitions) == (1, [])  # type: ignore[union-attr]


def test_a_position_the_leader_has_dropped_is_told_again(leader: Leader) -> None:
    following = Following(durable=False)
    number, _ = following.request()
    following.take(number, leader.answer(3, code=int(ErrorCode.NOT_LEADER_OR_FOLLOWER)))
    assert following.puller.request(7, 0) is None
    _, request = following.request(1000)
    assert len(request.partitions) == 1


def test_a_partition_followed_meanwhile_does_not_wait_for_the_fetch_under_way(leader: Leader) -> None:
    following = Following(durable=False)
    old, _ = following.request()
    second = SimLog(Disk(3), Files(), *OTHER, LogConfig())
    following.puller.follow(OTHER, Followed(second, 1, durable=False, unclean_epoch=-1))
    _, request = following.request()
    assert (request.session.epoch, len(request.partitions)) == (0, 2)  # type: ignore[union-attr]
    assert following.take(old, leader.answer(0)).records == 0


def test_an_overdue_answer_is_given_up(leader: Leader) -> None:
    following = Following(durable=False)
    following.request(0)
    assert not following.puller.expire(1999)
    assert following.puller.expire(2000)
    assert following.request(3000)[1].session.epoch == 0  # type: ignore[union-attr]


def diverged(leader: Leader, following: Following) -> None:
    """Have the follower hold two records the leader of epoch 2 does not know."""
    following.take(following.request()[0], leader.answer(0, mark=1))
    following.flush()
    following.puller.forget(KEY)
    following.followed = Followed(following.log, 2, durable=True, unclean_epoch=-1)
    following.puller.follow(KEY, following.followed)


def test_a_diverged_tail_is_cut_and_never_below_the_own_mark(leader: Leader) -> None:
    following = Following()
    diverged(leader, following)
    newer = Leader(epoch=2)
    number, _ = following.request()
    following.take(number, newer.answer(0, diverging_epoch=1, diverging_end_offset=2))
    assert following.log.end_offset == 2
    following.flush()
    number, _ = following.request()
    pulled = following.take(number, newer.answer(0, diverging_epoch=1, diverging_end_offset=0))
    assert [key for key, _ in pulled.offline] == [KEY]
    assert following.log.end_offset == 2
    assert following.puller.request(7, 10_000) is None


def test_nothing_is_cut_while_a_flush_is_under_way(leader: Leader) -> None:
    following = Following()
    diverged(leader, following)
    flush = following.log.flush()
    number, _ = following.request()
    following.take(number, Leader(epoch=2).answer(0, diverging_epoch=1, diverging_end_offset=2))
    assert following.log.end_offset == 3
    following.log.flushed(flush.run())
    assert len(following.request(1000)[1].partitions) == 1


def test_damaged_batches_are_not_appended(leader: Leader) -> None:
    following = Following()
    response, payload = leader.answer(0)
    bad = bytearray(payload[0])
    bad[200] ^= 1
    assert following.take(following.request()[0], (response, [bytes(bad)])).records == 0
    assert (following.log.end_offset, following.puller.corrupt) == (0, 1)


def test_decisions_of_a_follower() -> None:
    leader = Leader()
    leader.append(3)
    log = leader.log
    log.flushed(log.flush().run())
    assert on_diverged(log, 1, 3) is None
    assert on_diverged(log, 1, 2) == Truncate(2)
    assert on_diverged(log, 0, 0) == Truncate(0)
    log.advance_high_watermark(2)
    assert isinstance(on_diverged(log, 1, 1), GoOffline)
    assert on_diverged(log, 1, 1, unclean_epoch=2) == Truncate(1), (
        "an election without proof may take committed records"
    )
    assert on_out_of_range(log, 10) == Restart(10)
    assert on_out_of_range(log, 2) is None


def test_what_is_throttled_rests_until_there_is_room_and_the_others_go_on(leader: Leader) -> None:
    following = Following(durable=False)
    second = SimLog(Disk(3), Files(), *OTHER, LogConfig())
    following.puller.follow(OTHER, Followed(second, 1, durable=False, unclean_epoch=-1))
    following.puller.set_throttled(KEY, True)
    following.throttle.bytes_per_s = 1000
    number, request = following.request()
    assert len(request.partitions) == 2
    response, payload = leader.answer(0)
    size = len(payload[0])
    assert size > 200, "more than was saved"
    following.take(number, (response, payload))
    ready_ms = following.throttle.ready_ms()
    assert ready_ms == size - 200 + PORTION_MS, "a byte a millisecond"
    number, request = following.request(1)
    assert (request.session.forgotten, request.partitions) == ([KEY], [])  # type: ignore[union-attr]
    assert request.max_wait_ms == ready_ms - 1, "the other does not keep it waiting"
    following.take(number, (FetchResponse([]), []), ready_ms - 1)
    number, request = following.request(ready_ms)
    assert [(item.topic_id, item.partition) for item in request.partitions] == [KEY]


def test_what_is_in_sync_is_not_throttled(leader: Leader) -> None:
    following = Following(durable=False)
    following.throttle.bytes_per_s = 1
    following.throttle.spend(1 << 20, 0)
    following.puller.set_throttled(KEY, True)
    assert following.puller.request(7, 0) is None
    following.puller.set_throttled(KEY, False)
    assert following.puller.deadline_ms() == 0
    assert following.request(0)[1].partitions


def test_a_log_that_starts_behind_the_leaders_end_is_refilled_only_after_an_unclean_election() -> None:
    leader = Leader()
    leader.append(5)
    log = leader.log
    log.flushed(log.flush().run())
    log.advance_high_watermark(5)
    log.delete_records(4)
    assert isinstance(on_diverged(log, 1, 2), GoOffline)
    assert isinstance(on_diverged(log, 1, 2, unclean_epoch=2), Refill)
    assert isinstance(on_diverged(log, 0, 2, unclean_epoch=2), Refill)
    assert on_diverged(log, 1, 4, unclean_epoch=2) == Truncate(4)
    empty = SimLog(Disk(1), Files(start_offset=4), *KEY, LogConfig())
    assert isinstance(on_out_of_range(empty, 0), Refill), "it has nothing to lose"
    assert isinstance(on_diverged(empty, -1, 2), GoOffline)
    assert isinstance(on_diverged(empty, -1, 2, unclean_epoch=2), Refill)


def test_a_follower_whose_log_is_of_no_use_tells_so_and_asks_again_later(leader: Leader) -> None:
    following = Following()
    following.take(following.request()[0], leader.answer(0, mark=3))
    following.flush()
    following.log.delete_records(3)
    following.followed.unclean_epoch = 2
    number, _ = following.request()
    behind = leader.answer(3, diverging_epoch=1, diverging_end_offset=1)
    assert [key for key, _ in following.take(number, behind).refill] == [KEY]
    assert following.log.end_offset == 3, "nothing is dropped before the replica has left"
    assert following.puller.request(7, 0) is None
    assert following.request(1000)


def test_the_leader_hears_how_far_the_log_is_compacted(leader: Leader) -> None:
    following = Following(durable=False)
    number, request = following.request()
    following.take(number, leader.answer(0, mark=2))
    number, request = following.request()
    assert request.partitions[0].cleaned_end == 0
    following.take(number, (FetchResponse([]), []))
    following.log.compaction.cleaned = Cleaned([CleanedRange(2, 0, 0, 0)])
    number, request = following.request()
    assert request.partitions == [], "nobody has said that it has changed"
    following.take(number, (FetchResponse([]), []))
    following.puller.cleaned(KEY)
    _, request = following.request()
    assert [item.cleaned_end for item in request.partitions] == [2]
