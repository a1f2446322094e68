"""OffsetLag at a leader: what is unread below the high watermark, and who may say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from brokerd.serving.offsets import OffsetsRoom
from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.partition import Partition
from ingest.errors import RemoteError, StorageError
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request, decode_body, decode_response
from ingest.wire.messages import OFFSET_LAG_PARTITIONS_MAX, ApiKey, OffsetLag, OffsetLagPartition, OffsetLagRequest
from replicas.domains import Domains
from replicas.state import PartitionState
from tests.brokerd.storage.stores import TOPIC, Store, make_batch

SIZE = 96 + 104  # header and body


class Leader:
    """One partition led under epoch 7: ten batches of ten records, one a second, of which eight are committed."""

    def __init__(self, store: Store) -> None:
        directory = store.open_directory()
        self.log = directory.partition(TOPIC, 0, store.config)
        self.partition = Partition("t", self.log, 1)
        self.lead(7)
        for index in range(10):
            self.log.append([make_batch(b"x" * 104, 10)], wall_ms=1000 * index)
        self.log.advance_high_watermark(80)
        self.outbox = Outbox()
        self.room = OffsetsRoom(self.find, self.outbox)

    def lead(self, epoch: int) -> None:
        state = PartitionState(leader=1, leader_epoch=epoch, replicas=[1], isr=[1])
        self.partition.lead(state, {1: 1}, min_in_sync=0, domains=Domains(), now_ms=0)

    def find(self, topic_id: bytes, partition: int) -> Partition | ErrorCode:
        if (topic_id, partition) != (TOPIC, 0):
            return ErrorCode.UNKNOWN_TOPIC_ID
        return self.partition if self.partition.leadership is not None else ErrorCode.NOT_LEADER_OR_FOLLOWER

    def ask(self, *items: OffsetLagPartition, wall_ms: int = 60_000) -> list[OffsetLag]:
        request = Request(ApiKey.OFFSET_LAG, 1, 1000, OffsetLagRequest(list(items)), [], "")
        self.room.offset_lag(Peer(0, b"p"), request, wall_ms)
        (answer,) = self.outbox.take()
        found: list[OffsetLag] = decode_body(decode_response([answer.header]), ApiKey.OFFSET_LAG).partitions
        return found

    def at(self, offset: int, *, epoch: int = -1, wall_ms: int = 60_000) -> OffsetLag:
        (found,) = self.ask(OffsetLagPartition(TOPIC, 0, offset, epoch), wall_ms=wall_ms)
        return found


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Leader]:
    store = Store(tmp_path, reserve_bytes=65536)
    yield Leader(store)
    store.close()


@pytest.mark.parametrize(
    ("offset", "records", "batches", "age_ms"),
    [(0, 80, 8, 60_000), (10, 70, 7, 59_000), (15, 65, 7, 59_000), (79, 1, 1, 53_000), (80, 0, 0, 0), (95, 0, 0, 0)],
)
def test_lag_is_what_lies_below_the_high_watermark(
    leader: Leader, offset: int, records: int, batches: int, age_ms: int
) -> None:
    assert leader.at(offset) == OffsetLag(0, 0, 80, records, batches * SIZE, age_ms)


def test_records_that_are_gone_do_not_count(leader: Leader) -> None:
    leader.log.delete_records(35)
    assert leader.at(2) == leader.at(35) == OffsetLag(0, 35, 80, 45, 5 * SIZE, 57_000)


def test_age_is_that_of_the_append_and_never_negative(leader: Leader) -> None:
    assert leader.at(10, wall_ms=500).lag_ms == 0


def test_each_is_answered_in_its_place_whatever_becomes_of_the_others(leader: Leader) -> None:
    found = leader.ask(
        OffsetLagPartition(b"u" * 16, 0, 5),
        OffsetLagPartition(TOPIC, 0, -1),
        OffsetLagPartition(TOPIC, 0, 70),
        OffsetLagPartition(TOPIC, 1, 5),
    )
    assert [item.error_code for item in found] == [
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_TOPIC_ID,
    ]
    assert found[2].lag_records == 10


def test_a_request_that_would_hold_up_all_others_is_refused(leader: Leader) -> None:
    places = [OffsetLagPartition(TOPIC, 0, 70)] * OFFSET_LAG_PARTITIONS_MAX
    assert len(leader.ask(*places)) == OFFSET_LAG_PARTITIONS_MAX
    with pytest.raises(RemoteError, match="101 partitions; one request may ask for 100") as refused:
        leader.ask(*places, places[0])
    assert refused.value.code == ErrorCode.INVALID_REQUEST


def test_only_a_leader_that_knows_its_end_answers(leader: Leader) -> None:
    leader.lead(8)  # its epoch begins at 100, which is not committed yet
    assert leader.at(0).error_code == ErrorCode.OFFSET_NOT_AVAILABLE
    leader.log.advance_high_watermark(100)
    assert leader.at(0).lag_records == 100
    assert leader.at(0, epoch=7).error_code == ErrorCode.FENCED_LEADER_EPOCH
    assert leader.at(0, epoch=9).error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
    leader.partition.follow(9)
    assert leader.at(0).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_a_disk_that_refuses_is_a_code(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StorageError("no descriptor left")

    monkeypatch.setattr(leader.log, "unread", refuse)
    assert leader.at(0).error_code == ErrorCode.KAFKA_STORAGE_ERROR
