"""What coordinators store in their partitions and load from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from brokerd.serving import group_shards
from brokerd.storage.config import LogConfig
from ingest.errors import StorageError
from ingest.records.header import hop_headers
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import decode_body
from ingest.wire.group_messages import (
    CommittedOffset,
    DescribeGroupsRequest,
    JoinGroupRequest,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
)
from ingest.wire.messages import ApiKey
from tests.brokerd.serving.group_room import READ, LedRoom
from tests.brokerd.storage.stores import PARTITION_DIRECTORY, Store, make_batch


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path, reserve_bytes=65536)
    yield store
    store.close()


@pytest.fixture
def room(store: Store) -> LedRoom:
    room = LedRoom(store)
    room.load()
    return room


def batch_bytes(room: LedRoom) -> list[int]:
    log = room.partitions[0].log
    sizes: list[int] = []
    offset = log.start_offset
    while offset < log.end_offset:
        for _, header in hop_headers(log.read(offset, 1 << 20, end=log.end_offset)):
            sizes.append(header.size)
            offset = header.next_offset
    return sizes


def test_what_one_round_decides_is_stored_whatever_its_size(room: LedRoom) -> None:
    for number in range(18):
        offsets = [CommittedOffset(READ, partition, number, metadata="x" * 4000) for partition in range(15)]
        room.send(OffsetCommitRequest(f"g{number}", offsets))
    answers = room.store()
    assert [answer.error_code for answer in answers] == [0] * 18
    sizes = batch_bytes(room)
    assert len(sizes) > 1
    assert max(sizes) <= LogConfig().max_message_bytes
    room.lead()
    room.load()
    assert [item.offset for item in room.ask(OffsetFetchRequest("g17")).offsets] == [17] * 15


def test_offsets_of_a_deleted_topic_are_forgotten_at_load_however_long_the_names_of_groups_are(room: LedRoom) -> None:
    names = [f"{number:04d}" + "Ж" * 240 for number in range(1_200)]
    for name in names:
        offsets = [CommittedOffset(READ, partition, 7) for partition in range(2)]
        assert room.ask(OffsetCommitRequest(name, offsets)).error_code == 0
    room.update(deleted=[READ])
    room.lead()
    room.load()
    room.room.tick(room.now_ms)
    room.store()
    assert room.ask(OffsetFetchRequest(names[0])).offsets == []
    room.lead()
    room.load()
    assert room.ask(OffsetFetchRequest(names[-1])).offsets == []


def test_a_group_too_large_for_a_record_is_refused_and_the_others_of_its_partition_go_on(room: LedRoom) -> None:
    assert room.ask(OffsetCommitRequest("other", [CommittedOffset(READ, 0, 7)])).error_code == 0
    join = JoinGroupRequest("large", "", 10_000, 60_000, "consumer", ["range"], require_known_member_id=False)
    assert room.ask(join, b"x" * (1 << 20)).error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert [item.offset for item in room.ask(OffsetFetchRequest("other")).offsets] == [7]


# ---- damage ----------------------------------------------------------------------------------------------------------


def commit(room: LedRoom, group: str, offset: int) -> None:
    assert room.ask(OffsetCommitRequest(group, [CommittedOffset(READ, 0, offset)])).error_code == 0


def damage_last_batch(store: Store) -> None:
    (path,) = (store.path / PARTITION_DIRECTORY).glob("*.log")
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(data.rstrip(bytes(1))) - 8)
        file.write(b"XX")


def test_no_older_offset_is_given_out_where_another_replica_has_the_latest(store: Store) -> None:
    room = LedRoom(store, in_sync=(1, 2))
    room.load()
    commit(room, "g", 7)
    commit(room, "g", 8)
    damage_last_batch(store)
    room.lead()
    for _ in range(20):
        room.now_ms += 50
        room.room.load_some(room.now_ms)
        assert room.ask(OffsetFetchRequest("g")) == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert list(room.room.damaged) == room.partitions
    room.in_sync = [1]
    room.lead()
    room.load()
    assert [item.offset for item in room.ask(OffsetFetchRequest("g")).offsets] == [7]


def test_groups_that_can_not_be_loaded_yet_hold_up_no_others_and_are_tried_again_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = LedRoom(store, partitions=2)
    room.load()
    first, second = (next(room.named(partition)) for partition in range(2))
    commit(room, first, 7)
    commit(room, second, 7)
    opened = room.partitions[0].log
    refused: list[int] = []

    def refuse(*_: object, **__: object) -> memoryview:
        refused.append(room.now_ms)
        raise StorageError("no descriptor left")

    with monkeypatch.context() as patch:
        patch.setattr(opened, "read", refuse)
        room.lead()
        assert room.room.next_deadline_ms() == 0
        for _ in range(4):
            room.room.load_some(room.now_ms)
        assert [item.offset for item in room.ask(OffsetFetchRequest(second)).offsets] == [7]
        assert room.room.next_deadline_ms() == group_shards.LOAD_RETRY_MS
        assert len(refused) == 1
    room.now_ms += group_shards.LOAD_RETRY_MS
    room.load()
    assert [item.offset for item in room.ask(OffsetFetchRequest(first)).offsets] == [7]


def test_a_batch_that_nobody_understands_is_passed_and_told_once(
    room: LedRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offset in range(5):
        room.send(OffsetCommitRequest("g", [CommittedOffset(READ, 0, offset)]))
    room.store()
    commit(room, "other", 7)
    log = room.partitions[0].log
    log.append([make_batch(b"no columns at all", count=1_000)], wall_ms=0)
    told: list[str] = []
    monkeypatch.setattr(group_shards.log, "error", lambda event, **_: told.append(event))
    room.lead()
    room.load()
    assert told == ["a batch of groups is not understood"]
    assert room.room.damaged == {}
    assert [item.offset for item in room.ask(OffsetFetchRequest("other")).offsets] == [7]


# ---- describing ------------------------------------------------------------------------------------------------------


def test_a_group_is_described_once_and_no_answer_grows_with_how_many_are_asked_for(room: LedRoom) -> None:
    names = [f"g{number}" for number in range(8)]
    for name in names:
        join = JoinGroupRequest(name, "", 10_000, 60_000, "consumer", ["range"], require_known_member_id=False)
        room.send(join, b"x" * 400_000)
    room.now_ms += 1_000
    room.room.tick(room.now_ms)
    room.store()
    room.send(DescribeGroupsRequest(names * 500))
    (response,) = room.store()
    answer = decode_body(response, ApiKey.DESCRIBE_GROUPS)
    assert [group.group for group in answer.groups] == names
    codes = [group.error_code for group in answer.groups]
    assert codes == [ErrorCode.NONE] * 3 + [ErrorCode.MESSAGE_TOO_LARGE] * 5


# ---- deleting offsets ------------------------------------------------------------------------------------------------


def test_offsets_of_a_topic_that_there_is_not_are_not_deleted(room: LedRoom) -> None:
    commit(room, "g", 7)
    answer = room.ask(OffsetDeleteRequest("g", [(READ, 0), (b"?" * 16, 0)]))
    assert answer.partitions == [ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
