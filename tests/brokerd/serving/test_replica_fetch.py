"""Followers' fetches at their leader: what ends the wait of one that has all there is, or is throttled."""

from __future__ import annotations

from typing import Any

import pytest

from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.partition import Partition
from brokerd.serving.replica_fetch import ReplicaFetchRoom
from brokerd.serving.unsent import UnsentAnswers
from brokerd.storage.config import LogConfig
from ingest.records.batch import encode_batch
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request, decode_body, decode_response
from ingest.wire.messages import ApiKey, FetchPartition, FetchRequest, FetchSession
from replicas.domains import Domains
from replicas.leader import ReplicaEnd
from replicas.state import PartitionState
from replicas.throttle import PORTION_MS, Throttle
from tests.simulation.disk import Disk, Files
from tests.simulation.storage import SimLog

TOPIC = b"t" * 16
FOLLOWER = 2
WAIT_MS = 500


class Leader:
    """A room with one partition, and one follower that asks by hand."""

    def __init__(self, **state: Any) -> None:
        self.log = SimLog(Disk(1), Files(), TOPIC, 0, LogConfig())
        self.partition = Partition("t", self.log, 1)  # type: ignore[arg-type]
        made = PartitionState(leader=1, leader_epoch=3, **{"replicas": [1, 2], "isr": [1, 2], **state})
        self.partition.lead(made, {1: 1, 2: 1, 3: 1}, min_in_sync=1, domains=Domains(), now_ms=0)
        self.outbox = Outbox()
        self.throttle = Throttle()
        unsent = UnsentAnswers(4 << 20)
        epochs = {1: 1, 2: 1, 3: 1}
        self.room = ReplicaFetchRoom(
            self.find, lambda broker: epochs.get(broker, -1), self.outbox, 1 << 20, unsent, self.throttle
        )
        self._epoch = 0

    def find(self, topic_id: bytes, partition: int) -> Partition | ErrorCode:
        return self.partition

    def append(self, count: int, now_ms: int = 0) -> None:
        for _ in range(count):
            self.log.append([bytes(encode_batch([1], [None], [b"v"]))], wall_ms=1)
        self.log.flushed(self.log.flush().run())
        self.partition.advance(now_ms)
        self.room.appended([self.partition], now_ms)

    def fetch(self, offset: int, now_ms: int = 0, *, named: bool = True) -> None:
        item = FetchPartition(TOPIC, 0, offset, 1 << 20, 3, 3 if offset else -1, offset)
        session = FetchSession(FOLLOWER, 1, 1, self._epoch)
        self._epoch += 1
        body = FetchRequest(WAIT_MS, 1, 1 << 20, [item] if named else [], session)
        self.room.handle(Peer(0, b"f"), Request(1, 1, 1000, body, [], ""), now_ms)
        for partition in self.room.moved:
            self.room.advanced(partition, now_ms)
        self.room.moved.clear()

    def answers(self) -> list[Any]:
        return [
            decode_body(decode_response([a.header, *a.payload]), ApiKey.FETCH).partitions for a in self.outbox.take()
        ]


@pytest.fixture
def leader() -> Leader:
    return Leader()


def test_a_mark_goes_with_the_next_answer(leader: Leader) -> None:
    leader.append(2)
    leader.fetch(0)
    assert [item.high_watermark for (item,) in leader.answers()] == [0]
    leader.fetch(2)
    assert leader.log.high_watermark == 2
    assert leader.answers() == []
    leader.room.expire(WAIT_MS)
    assert [item.high_watermark for (item,) in leader.answers()] == [2]


def test_where_readers_wait_for_it_a_mark_goes_at_once_and_once(leader: Leader) -> None:
    leader.room.tells_marks = True
    leader.append(2)
    leader.fetch(0)
    assert [item.high_watermark for (item,) in leader.answers()] == [0]
    leader.fetch(2)
    assert [(item.high_watermark, item.frame) for (item,) in leader.answers()] == [(2, -1)]
    leader.fetch(2, named=False)
    assert leader.answers() == [], "it knows"


def test_a_follower_that_waits_hears_of_a_mark_that_another_moved() -> None:
    leader = Leader(replicas=[1, 2, 3], isr=[1, 2, 3])
    leader.room.tells_marks = True
    leader.append(2)
    leader.fetch(0)
    leader.fetch(2)
    assert [item.high_watermark for (item,) in leader.answers()] == [0]
    assert leader.partition.fetched(3, 1, ReplicaEnd(2, 2), 0)
    leader.room.advanced(leader.partition, 0)
    assert [item.high_watermark for (item,) in leader.answers()] == [2]


def test_what_a_new_replica_said_before_its_leader_knew_of_it_counts_once_that_does() -> None:
    leader = Leader(replicas=[1], isr=[1])
    leader.append(2)
    leader.fetch(0)
    leader.fetch(2)
    assert leader.partition.leadership is not None
    assert leader.partition.leadership.end_of(FOLLOWER) is None
    leader.room.checked.clear()
    state = PartitionState(leader=1, leader_epoch=3, partition_epoch=1, replicas=[1, 2], isr=[1], adding=[2])
    leader.partition.leadership.update(state, {1: 1, 2: 1}, min_in_sync=1, domains=Domains())
    leader.room.recount(leader.partition, 0)
    assert leader.partition.leadership.end_of(FOLLOWER) == ReplicaEnd(2, 2)
    assert leader.partition in leader.room.checked, "it may join the in-sync set"


# ---- the throttle


def throttled(**state: Any) -> Leader:
    """Return a leader of 20 batches whose replica 2 is added within 1,000 bytes a second; what was saved is spent."""
    leader = Leader(**{"isr": [1], "adding": [2], "throttle_bytes_per_s": 1000, **state})
    leader.append(20)
    leader.throttle.bytes_per_s = 1000
    leader.throttle.spend(leader.throttle.room(0), 0)
    return leader


def test_a_replica_that_catches_up_gets_what_the_throttle_allows_when_it_allows_it() -> None:
    leader = throttled()
    batch = len(leader.log.files.cache[0].data)
    leader.fetch(0)
    assert leader.answers() == []
    due = leader.room.next_deadline_ms()
    assert due == PORTION_MS
    leader.room.expire(due - 1)
    leader.append(1, due - 1)
    assert leader.answers() == [], "more records do not change that"
    leader.room.expire(due)
    ((got,),) = leader.answers()
    assert got.frame == 0
    leader.fetch(1, due)
    assert leader.answers() == []
    assert leader.room.next_deadline_ms() == due + batch, "it was overdrawn by a batch, which is a byte a millisecond"


def test_a_wait_ends_without_records_that_the_throttle_holds_back() -> None:
    leader = throttled()
    leader.throttle.spend(WAIT_MS + 100, 0)
    leader.fetch(0)
    leader.room.expire(WAIT_MS)
    assert [item.frame for (item,) in leader.answers()] == [-1]
    leader.fetch(0, WAIT_MS, named=False)
    assert leader.answers() == [], "it does not turn in circles"
    leader.room.expire(WAIT_MS + 100 + PORTION_MS)
    assert [item.frame for (item,) in leader.answers()] == [0]


@pytest.mark.parametrize("state", [{"isr": [1, 2]}, {"throttle_bytes_per_s": 0}])
def test_who_is_in_sync_and_who_is_not_named_is_not_throttled(state: dict[str, Any]) -> None:
    leader = throttled(**state)
    leader.fetch(0)
    assert [item.frame for (item,) in leader.answers()] == [0]
    assert leader.throttle.room(PORTION_MS) == PORTION_MS, "nor counted"


def test_a_topics_list_names_leaders_whose_followers_catch_up_throttled() -> None:
    leader = throttled(adding=[], throttle_bytes_per_s=0)
    leader.partition.throttled = True
    leader.fetch(0)
    assert leader.answers() == []


def test_followers_take_turns_at_what_the_throttle_allows() -> None:
    leader = throttled(replicas=[1, 2, 3], adding=[2, 3])
    leader.fetch(0)
    item, session = FetchPartition(TOPIC, 0, 0, 1 << 20, 3, -1, 0), FetchSession(3, 1, 1, 0)
    body = FetchRequest(WAIT_MS, 1, 1 << 20, [item], session)
    leader.room.handle(Peer(0, b"g"), Request(1, 1, 1000, body, [], ""), 0)
    served = []
    for turn in range(2):
        due = leader.room.next_deadline_ms()
        assert due is not None
        leader.room.expire(due)
        served += [answer.peer.identity for answer in leader.outbox.take()]
        leader.fetch(turn + 1, due)
    assert served == [b"f", b"g"]


def test_a_replica_that_is_proposed_for_the_in_sync_set_is_not_throttled() -> None:
    leader = throttled()
    leader.fetch(20)
    assert leader.partition.leadership is not None
    assert leader.partition.leadership.propose(durable=True, lag_max_ms=1000, now_ms=0) is not None
    leader.append(1)
    assert [item.frame for (item,) in leader.answers()] == [0]


def test_a_broker_that_nobody_knows_begins_no_session(leader: Leader) -> None:
    session = FetchSession(7, -1, 1, 0)
    item = FetchPartition(TOPIC, 0, 0, 1 << 20, 3)
    leader.room.handle(
        Peer(0, b"x"), Request(1, 1, 1000, FetchRequest(WAIT_MS, 1, 1 << 20, [item], session), [], ""), 0
    )
    (answer,) = leader.outbox.take()
    assert decode_response([answer.header]).error_code == ErrorCode.REPLICA_NOT_AVAILABLE
    leader.append(1)
    assert leader.answers() == []
