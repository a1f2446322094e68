"""OffsetForLeaderEpoch at a leader: where epochs end, and who may say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.serving.outbox import Peer
from ingest.errors import RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request, decode_body, decode_response
from ingest.wire.messages import (
    EPOCH_END_PARTITIONS_MAX,
    ApiKey,
    EpochEnd,
    EpochEndPartition,
    OffsetForLeaderEpochRequest,
)
from tests.brokerd.serving.test_offset_lag import Leader
from tests.brokerd.storage.stores import TOPIC, Store, make_batch


@pytest.fixture
def leader(tmp_path: Path) -> Leader:
    """Offsets 0 to 99 in epoch 7, 100 to 109 in epoch 9, nothing yet in epoch 12."""
    store = Store(tmp_path)
    opened = Leader(store)
    opened.lead(9)
    opened.log.append([make_batch(b"x" * 104, 10)], wall_ms=20_000)
    opened.lead(12)
    return opened


def ask(leader: Leader, *items: EpochEndPartition) -> list[EpochEnd]:
    request = Request(ApiKey.OFFSET_FOR_LEADER_EPOCH, 1, 1000, OffsetForLeaderEpochRequest(list(items)), [], "")
    leader.room.epoch_ends(Peer(0, b"p"), request)
    (answer,) = leader.outbox.take()
    body = decode_body(decode_response([answer.header]), ApiKey.OFFSET_FOR_LEADER_EPOCH)
    found: list[EpochEnd] = body.partitions
    return found


@pytest.mark.parametrize(
    ("epoch", "end"),
    [(3, (-1, -1)), (7, (7, 100)), (8, (7, 100)), (9, (9, 110)), (11, (9, 110)), (12, (12, 110)), (13, (-1, -1))],
)
def test_an_epoch_ends_where_a_greater_one_begins(leader: Leader, epoch: int, end: tuple[int, int]) -> None:
    leader.log.advance_high_watermark(110)
    assert ask(leader, EpochEndPartition(TOPIC, 0, epoch, 12)) == [EpochEnd(0, *end)]


def test_who_does_not_know_does_not_say(leader: Leader) -> None:
    (unsure,) = ask(leader, EpochEndPartition(TOPIC, 0, 7))
    assert unsure.error_code == ErrorCode.OFFSET_NOT_AVAILABLE
    codes = [item.error_code for item in ask(
        leader,
        EpochEndPartition(b"?" * 16, 0, 7),
        EpochEndPartition(TOPIC, 0, 7, 9),
        EpochEndPartition(TOPIC, 0, 7, 13),
        EpochEndPartition(TOPIC, 0, -1),
    )]  # fmt: skip
    assert codes == [
        ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.INVALID_REQUEST,
    ]  # fmt: skip
    with pytest.raises(RemoteError, match="100"):
        ask(leader, *[EpochEndPartition(TOPIC, 0, 7)] * (EPOCH_END_PARTITIONS_MAX + 1))
