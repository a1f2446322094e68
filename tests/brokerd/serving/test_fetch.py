"""Parked fetches and produces, with logs that a test moves by hand."""

from __future__ import annotations

from typing import Any

import pytest

from brokerd.serving.deadlines import Deadlines
from brokerd.serving.fetch import FetchRoom
from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.parked import ParkedFetch
from brokerd.serving.partition import Partition
from brokerd.serving.produce import ProduceRoom
from brokerd.serving.unsent import UnsentAnswers
from brokerd.storage.config import LogConfig
from brokerd.storage.errors import QuarantinedBatch
from brokerd.storage.log import Appended
from ingest.errors import StorageError
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request, decode_body, decode_response
from ingest.wire.message import Message
from ingest.wire.messages import (
    ApiKey,
    FetchPartition,
    FetchRequest,
    ProducePartition,
    ProduceRequest,
)
from replicas.domains import Domains
from replicas.leader import ReplicaEnd
from replicas.state import PartitionState

TOPIC = b"t" * 16
ALONE = PartitionState(leader=1, leader_epoch=3, replicas=[1], isr=[1])


class HandLog:
    """A log whose marks a test sets; it holds a byte for each offset."""

    def __init__(self) -> None:
        self.leader_epoch = self.last_epoch = 3
        self.ends: dict[int, tuple[int, int] | None] = {}
        self.start_offset = 0
        self.high_watermark = 0
        self.end_offset = 0
        self.row = 5
        self.appended: list[Appended] = []
        self.config = LogConfig()
        self.flushed_end = 0

    def become_leader(self, leader_epoch: int) -> None:
        self.leader_epoch = leader_epoch

    def append(self, batches: list[memoryview], *, wall_ms: int) -> list[Appended]:
        if self.appended:
            return [self.appended.pop(0)]
        base = self.end_offset
        self.end_offset += 1
        return [Appended(base, base, wall_ms, False)]

    def epoch_end(self, epoch: int) -> tuple[int, int] | None:
        return self.ends[epoch]

    def read(self, offset: int, max_bytes: int, *, end: int) -> bytes:
        return b"x" * min(max_bytes, end - offset)


class Served:
    """Both rooms over one hand-moved partition."""

    def __init__(self) -> None:
        self.log = HandLog()
        self.partition = Partition("t", self.log, 1)  # type: ignore[arg-type]
        self.lead()
        self.outbox = Outbox()
        self.unsent = UnsentAnswers(4 << 20)
        self.fetch = FetchRoom(self.find, self.find_replica, self.outbox, 1 << 20, self.unsent)
        self.produce = ProduceRoom(self.find, self.outbox)

    def lead(self) -> None:
        self.partition.lead(ALONE, {1: 1}, min_in_sync=0, domains=Domains(), now_ms=0)

    def follow(self, epoch: int = 3) -> None:
        self.partition.leadership = None
        self.log.leader_epoch = epoch

    def find_replica(self, topic_id: bytes, partition: int) -> Partition | ErrorCode:
        return self.partition if (topic_id, partition) == (TOPIC, 0) else ErrorCode.UNKNOWN_TOPIC_ID

    def find(self, topic_id: bytes, partition: int) -> Partition | ErrorCode:
        found = self.find_replica(topic_id, partition)
        led = isinstance(found, ErrorCode) or found.leadership is not None
        return found if led else ErrorCode.NOT_LEADER_OR_FOLLOWER

    def ask_fetch(self, offset: int, *, peer: bytes = b"p", now_ms: int = 0, rack: str = "", **options: int) -> None:
        wait, least, most = options.get("wait", 100), options.get("least", 1), options.get("most", 1000)
        item = FetchPartition(TOPIC, 0, offset, most, options.get("epoch", -1), options.get("last", -1))
        self.fetch.handle(Peer(0, peer), request(FetchRequest(wait, least, most, [item], rack=rack)), now_ms)

    def ask_produce(self, *, acks: int = -1, peer: bytes = b"p", now_ms: int = 0) -> None:
        body = ProduceRequest(acks, [ProducePartition(TOPIC, 0)])
        self.produce.handle(Peer(0, peer), request(body, [b"batch"]), now_ms, 1)

    def move(self, high_watermark: int) -> None:
        self.log.high_watermark = high_watermark
        self.produce.committed(self.partition)
        self.fetch.moved(self.partition, 0)

    def answers(self, api: ApiKey) -> list[Any]:
        return [decode_body(decode_response([a.header, *a.payload]), api).partitions[0] for a in self.outbox.take()]


def request(body: Message, payload: list[bytes] | None = None, timeout_ms: int = 1000) -> Request:
    return Request(0, 1, timeout_ms, body, payload or [], "")


@pytest.fixture
def served() -> Served:
    return Served()


def test_a_fetch_at_the_end_waits_until_the_mark_moves(served: Served) -> None:
    served.ask_fetch(0)
    assert served.outbox.take() == []
    served.move(4)
    (got,) = served.answers(ApiKey.FETCH)
    assert (got.error_code, got.high_watermark, got.frame, got.row) == (0, 4, 0, 5)


@pytest.mark.parametrize("most", [0, 1000])
def test_a_reader_of_another_history_is_told_at_once_where_it_diverged(served: Served, most: int) -> None:
    served.log.high_watermark = served.log.end_offset = 9
    served.log.ends = {2: (2, 5), 1: (0, 3), 0: None}
    for offset, last, expected in ((9, 2, (2, 5)), (9, 1, (0, 3)), (3, 1, (0, 3))):
        served.ask_fetch(offset, last=last, most=most)
        (got,) = served.answers(ApiKey.FETCH)
        assert (got.error_code, got.frame, got.diverging_epoch, got.diverging_end_offset) == (0, -1, *expected)
    for offset, last in ((5, 2), (5, 3), (5, -1), (5, 0)):
        served.ask_fetch(offset, last=last, most=most)
        (got,) = served.answers(ApiKey.FETCH)
        assert got.diverging_end_offset == -1


def test_a_partition_may_be_named_once(served: Served) -> None:
    item = FetchPartition(TOPIC, 0, 0, 1000, -1, -1)
    served.fetch.handle(Peer(0, b"p"), request(FetchRequest(100, 1, 1000, [item, item])), 0)
    (answer,) = served.outbox.take()
    assert decode_response([answer.header]).error_code == ErrorCode.INVALID_REQUEST


def test_a_read_that_fails_is_told_and_ends_nothing_else(served: Served) -> None:
    def read(*_: object, **__: object) -> bytes:
        raise StorageError("no descriptor left")

    served.log.read = read  # type: ignore[method-assign]
    served.log.high_watermark = 1
    served.ask_fetch(0)
    assert served.answers(ApiKey.FETCH)[0].error_code == ErrorCode.KAFKA_STORAGE_ERROR


def test_a_doorbell_gets_marks_and_no_bytes(served: Served) -> None:
    served.ask_fetch(0, most=0)
    served.move(4)
    (got,) = served.answers(ApiKey.FETCH)
    assert (got.high_watermark, got.frame) == (4, -1)


def test_a_peer_that_does_not_read_gets_no_more_bytes(served: Served) -> None:
    served.log.high_watermark = 4
    served.unsent.decided((0, b"p"), 4 << 20)
    served.ask_fetch(0)
    (got,) = served.answers(ApiKey.FETCH)
    assert (got.error_code, got.frame, got.high_watermark) == (0, -1, 4)


def test_min_bytes_are_waited_for_and_the_time_ends_the_wait(served: Served) -> None:
    served.ask_fetch(0, least=10)
    served.move(4)
    assert served.outbox.take() == []
    served.fetch.expire(100)
    (got,) = served.answers(ApiKey.FETCH)
    assert got.frame == 0


def test_one_fetch_waits_for_each_connection(served: Served) -> None:
    served.ask_fetch(0, peer=b"a")
    served.ask_fetch(0, peer=b"b")
    served.ask_fetch(0, peer=b"a")
    assert len(served.answers(ApiKey.FETCH)) == 1
    served.move(1)
    assert len(served.answers(ApiKey.FETCH)) == 2


def test_answered_fetches_are_let_go_of(served: Served) -> None:
    for turn in range(100):
        served.ask_fetch(0, now_ms=turn * 1000)
        served.fetch.expire(turn * 1000 + 100)
    assert len(served.partition.fetches) <= 2


def test_nobody_is_out_of_range_while_the_leader_does_not_know_its_end(served: Served) -> None:
    served.log.end_offset = 10
    served.partition.leadership.epoch_start = 10
    served.log.high_watermark = 6
    served.ask_fetch(8)
    assert served.answers(ApiKey.FETCH)[0].error_code == ErrorCode.OFFSET_NOT_AVAILABLE
    served.move(10)
    served.ask_fetch(12)
    assert served.answers(ApiKey.FETCH)[0].error_code == ErrorCode.OFFSET_OUT_OF_RANGE


@pytest.mark.parametrize(
    ("epoch", "code"), [(2, ErrorCode.FENCED_LEADER_EPOCH), (4, ErrorCode.UNKNOWN_LEADER_EPOCH), (3, ErrorCode.NONE)]
)
def test_epochs_are_compared(served: Served, epoch: int, code: ErrorCode) -> None:
    served.ask_fetch(0, epoch=epoch, wait=0)
    assert served.answers(ApiKey.FETCH)[0].error_code == code


def test_a_produce_is_answered_when_the_mark_has_passed_it(served: Served) -> None:
    served.ask_produce()
    served.ask_produce()
    served.move(1)
    assert [got.base_offset for got in served.answers(ApiKey.PRODUCE)] == [0]
    served.move(2)
    assert [got.base_offset for got in served.answers(ApiKey.PRODUCE)] == [1]


def test_a_duplicate_waits_for_the_mark_as_the_first_did(served: Served) -> None:
    served.ask_produce()
    served.log.appended = [Appended(0, 0, 1, True)]
    served.ask_produce(peer=b"again")
    assert served.outbox.take() == []
    served.move(1)
    assert [got.base_offset for got in served.answers(ApiKey.PRODUCE)] == [0, 0]


def test_a_produce_that_is_not_committed_in_time_has_an_unknown_outcome(served: Served) -> None:
    served.ask_produce()
    served.produce.expire(1000)
    (got,) = served.answers(ApiKey.PRODUCE)
    assert got.error_code == ErrorCode.REQUEST_TIMED_OUT
    assert not ErrorCode(got.error_code).definite
    served.move(1)
    assert served.outbox.take() == []


def test_acks_zero_is_appended_and_not_answered(served: Served) -> None:
    served.ask_produce(acks=0)
    served.move(1)
    assert served.outbox.take() == []
    assert served.log.end_offset == 1


def test_a_partition_that_goes_away_acknowledges_no_other(served: Served) -> None:
    other_log = HandLog()
    other = Partition("u", other_log, 1)  # type: ignore[arg-type]
    other.lead(ALONE, {1: 1}, min_in_sync=0, domains=Domains(), now_ms=0)
    find = served.find
    served.produce._find = lambda topic, p: other if topic == b"u" * 16 else find(topic, p)
    body = ProduceRequest(-1, [ProducePartition(TOPIC, 0), ProducePartition(b"u" * 16, 0)])
    served.produce.handle(Peer(0, b"p"), request(body, [b"a", b"b"]), 0, 1)
    served.produce.abandon(other, ErrorCode.REQUEST_TIMED_OUT, "deleted")
    assert served.outbox.take() == []
    served.move(1)
    (answer,) = served.outbox.take()
    answered = decode_body(decode_response([answer.header]), ApiKey.PRODUCE).partitions
    assert [item.error_code for item in answered] == [0, ErrorCode.REQUEST_TIMED_OUT]


def test_answered_requests_do_not_stay_until_their_time(served: Served) -> None:
    deadlines: Deadlines[ParkedFetch] = Deadlines()
    for number in range(10_000):
        parked = ParkedFetch(Peer(0, b"p"), number, FetchRequest(1, 1, 1, []))
        deadlines.add(1 << 40, parked)
        parked.done = True
    assert len(deadlines) <= 256


def test_a_deleted_partition_answers_whoever_waits(served: Served) -> None:
    served.ask_produce()
    served.produce.abandon(served.partition, ErrorCode.REQUEST_TIMED_OUT, "deleted")
    served.ask_fetch(0, peer=b"other")
    served.fetch.abandon(served.partition, 0)
    assert len(served.outbox.take()) == 2


# ---- readers at followers


def test_a_follower_serves_readers_with_a_rack_below_its_own_mark(served: Served) -> None:
    served.follow()
    served.log.high_watermark, served.log.end_offset = 4, 9
    served.ask_fetch(1)
    assert served.answers(ApiKey.FETCH)[0].error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    served.ask_fetch(1, rack="r", epoch=3)
    (answer,) = served.outbox.take()
    (got,) = decode_body(decode_response([answer.header]), ApiKey.FETCH).partitions
    assert (got.error_code, got.high_watermark, bytes(answer.payload[got.frame])) == (0, 4, b"xxx")
    assert served.fetch.bytes_out == {"t": 3}


@pytest.mark.parametrize(("epoch", "code"), [(2, ErrorCode.FENCED_LEADER_EPOCH), (4, ErrorCode.UNKNOWN_LEADER_EPOCH)])
def test_a_follower_compares_epochs(served: Served, epoch: int, code: ErrorCode) -> None:
    served.follow()
    served.log.high_watermark = 4
    served.ask_fetch(1, rack="r", epoch=epoch)
    assert served.answers(ApiKey.FETCH)[0].error_code == code


def test_what_a_follower_does_not_have_yet_is_waited_for(served: Served) -> None:
    served.follow()
    served.log.high_watermark = 4
    served.ask_fetch(6, rack="r", epoch=3)
    served.move(6)
    assert served.outbox.take() == []
    served.move(7)
    (got,) = served.answers(ApiKey.FETCH)
    assert (got.error_code, got.frame) == (0, 0)


def test_a_follower_never_says_that_there_is_no_such_offset(served: Served) -> None:
    served.follow()
    served.log.start_offset, served.log.high_watermark, served.log.end_offset = 2, 4, 9
    served.log.ends = {1: (1, 3)}
    served.ask_fetch(6, rack="r", epoch=3)
    served.fetch.expire(100)
    served.ask_fetch(1, rack="r", epoch=3)
    served.ask_fetch(4, rack="r", epoch=3, last=1)  # its own log may be the one to be cut
    answers = served.answers(ApiKey.FETCH)
    assert [got.error_code for got in answers] == [ErrorCode.OFFSET_NOT_AVAILABLE] * 3
    assert [got.diverging_end_offset for got in answers] == [-1] * 3


def test_only_a_leader_that_is_alone_sends_a_reader_behind_damage(served: Served) -> None:
    def read(*_: object, **__: object) -> bytes:
        raise QuarantinedBatch("byte 7", next_offset=6)

    served.log.read = read  # type: ignore[method-assign]
    served.log.end_offset = 8
    served.move(8)
    served.ask_fetch(5, rack="here")
    (got,) = served.answers(ApiKey.FETCH)
    assert (got.error_code, got.next_offset) == (ErrorCode.CORRUPT_MESSAGE, 6)
    served.follow()
    served.ask_fetch(5, rack="here")
    (got,) = served.answers(ApiKey.FETCH)
    assert (got.error_code, got.next_offset) == (ErrorCode.KAFKA_STORAGE_ERROR, -1), "its leader has the records"
    assert served.partition in served.fetch.damaged


def test_a_parked_reader_is_told_when_its_epoch_is_over(served: Served) -> None:
    served.follow()
    served.ask_fetch(0, rack="r", epoch=3)
    served.follow(4)
    served.fetch.moved(served.partition, 0)
    assert served.answers(ApiKey.FETCH)[0].error_code == ErrorCode.FENCED_LEADER_EPOCH


def test_a_leader_sends_a_reader_to_the_in_sync_replica_in_its_rack(served: Served) -> None:
    state = PartitionState(leader=1, leader_epoch=4, replicas=[1, 2, 3], isr=[1, 2])
    served.partition.lead(state, {1: 1, 2: 2, 3: 3}, min_in_sync=1, domains=Domains(), now_ms=0)
    served.log.high_watermark = served.log.end_offset = 4
    leadership, end = served.partition.leadership, ReplicaEnd(4, 4)
    assert leadership is not None
    leadership.own(end, durable=True, now_ms=0)
    for broker in (2, 3):
        leadership.fetched(broker, broker, end, durable=True, now_ms=0)

    def named(offset: int, rack: str) -> tuple[int, int]:
        served.ask_fetch(offset, rack=rack, epoch=4, wait=0)
        (got,) = served.answers(ApiKey.FETCH)
        return got.preferred_read_replica, got.frame

    assert named(1, "b") == (-1, 0), "no selector is set"
    served.fetch.racks = {1: "a", 2: "b", 3: "c"}
    assert named(1, "b") == (2, -1)
    assert named(1, "a") == (-1, 0)
    assert named(1, "c") == (-1, 0), "it is not in sync"
    assert named(1, "") == (-1, 0)
    assert named(5, "b") == (-1, -1), "out of range is the leader's to say"
    served.ask_fetch(4, rack="b", epoch=4)
    assert served.answers(ApiKey.FETCH)[0].preferred_read_replica == 2, "there is nothing to wait for here"
    served.fetch.racks = {1: "a", 3: "c"}
    assert named(1, "b") == (-1, 0), "it is not alive"
