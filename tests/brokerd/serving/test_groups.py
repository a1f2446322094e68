"""Groups at a broker that leads several partitions of `__consumer_offsets`: what is answered, and when."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brokerd.groups.records import partition_of
from brokerd.serving.groups import GroupRoom
from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.partition import Partition
from ingest.errors import DiskFull
from ingest.topic_name import CONSUMER_OFFSETS
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request, api_key_of, decode_body, decode_response
from ingest.wire.group_messages import (
    CommittedOffset,
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    ListGroupsRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
)
from ingest.wire.message import Message
from ingest.wire.messages import MetadataResponse, PartitionMetadata, TopicMetadata
from replicas.domains import Domains
from replicas.state import PartitionState
from tests.brokerd.storage.stores import TOPIC, Store

READ = b"r" * 16  # the topic that groups read
PEER = Peer(0, b"p")
PARTITIONS = 3


def named(partition: int) -> Iterator[str]:
    """Return names of groups of one partition."""
    return (name for number in itertools.count() if partition_of(name := f"g{number}", PARTITIONS) == partition)


class Room:
    """A room whose partitions are led here; what it appends is committed when `commit` says so."""

    def __init__(self, store: Store, *, read_partitions: int = 4) -> None:
        directory = store.open_directory()
        self.outbox = Outbox()
        self.room = GroupRoom(self.outbox, "1-1")
        self.partitions = [
            Partition(CONSUMER_OFFSETS, directory.partition(TOPIC, number, store.config), 1)
            for number in range(PARTITIONS)
        ]
        self.update(read_partitions)
        for partition in self.partitions:
            self.lead(partition, 1)

    def update(self, read_partitions: int) -> None:
        topics = [
            TopicMetadata(name, topic_id, [PartitionMetadata(number, 1, 1, [1], [1]) for number in range(count)], {})
            for name, topic_id, count in ((CONSUMER_OFFSETS, TOPIC, PARTITIONS), ("read", READ, read_partitions))
        ]
        self.room.update(MetadataResponse("c", 1, 1, [], topics))

    def lead(self, partition: Partition, epoch: int, *, min_in_sync: int = 0) -> None:
        state = PartitionState(leader=1, leader_epoch=epoch, replicas=[1], isr=[1])
        partition.lead(state, {1: 1}, min_in_sync=min_in_sync, domains=Domains(), now_ms=0)
        self.room.lead(partition)
        self.load()

    def load(self) -> None:
        while self.room.loading:
            self.room.load_some(0)

    def pass_time(self, now_ms: int) -> None:
        self.room.tick(now_ms)
        self.room.store(0)

    def ask(self, body: Message) -> list[Any]:
        """Ask, have what was decided stored, and return the answers that came."""
        self.room.handle(PEER, Request(api_key_of(body), 1, 1000, body, [], ""), 0, 0)
        self.room.store(0)
        return self.answers(api_key_of(body))

    def answers(self, api_key: int) -> list[Any]:
        responses = [decode_response([answer.header]) for answer in self.outbox.take()]
        return [
            decode_body(response, api_key) if not response.error_code else ErrorCode(response.error_code)
            for response in responses
        ]

    def commit(self, number: int) -> None:
        """Have all that a partition holds be committed."""
        partition = self.partitions[number]
        partition.log.advance_high_watermark(partition.log.end_offset)
        self.room.committed(partition)

    def commit_all(self) -> None:
        for number in range(PARTITIONS):
            self.commit(number)

    def with_groups(self, *names: str) -> None:
        for name in names:
            self.ask(OffsetCommitRequest(name, [CommittedOffset(READ, 0, 7)]))
        self.commit_all()
        self.outbox.take()

    def committed(self, group: str) -> list[CommittedOffset]:
        answers = self.ask(OffsetFetchRequest(group))
        offsets: list[CommittedOffset] = answers[0].offsets
        return offsets


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path, reserve_bytes=65536)
    yield store
    store.close()


@pytest.fixture
def room(store: Store) -> Room:
    return Room(store)


DELETE = api_key_of(DeleteGroupsRequest([]))


# ---- deleting groups -------------------------------------------------------------------------------------------------


def test_groups_of_several_partitions_are_deleted_once_all_of_it_is_committed(room: Room) -> None:
    first, second = next(named(0)), next(named(1))
    room.with_groups(first, second)
    assert room.ask(DeleteGroupsRequest([first, "none", second])) == []
    room.commit(1)
    assert room.answers(DELETE) == []
    room.commit_all()
    (answer,) = room.answers(DELETE)
    assert answer.groups == [ErrorCode.NONE, ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.NONE]
    assert room.committed(first) == room.committed(second) == []


def test_a_partition_that_moves_away_leaves_the_outcome_of_its_groups_open_and_no_others(room: Room) -> None:
    first, second = next(named(0)), next(named(1))
    room.with_groups(first, second)
    room.ask(DeleteGroupsRequest([first, second]))
    room.partitions[1].leadership = None
    room.room.end(room.partitions[1])
    assert room.answers(DELETE) == []
    room.commit(0)
    (answer,) = room.answers(DELETE)
    assert answer.groups == [ErrorCode.NONE, ErrorCode.NOT_COORDINATOR]


def test_who_deletes_one_group_is_told_that_the_outcome_is_unknown(room: Room) -> None:
    """Not by a code of the group: its client takes a group that is gone at the next try for a success."""
    group = next(named(2))
    room.with_groups(group)
    room.ask(DeleteGroupsRequest([group]))
    room.partitions[2].leadership = None
    room.room.end(room.partitions[2])
    assert room.answers(DELETE) == [ErrorCode.NOT_COORDINATOR]


def test_a_group_is_not_deleted_while_too_few_copies_are_in_sync(room: Room) -> None:
    first, second = next(named(0)), next(named(1))
    room.with_groups(first, second)
    room.lead(room.partitions[1], 2, min_in_sync=2)
    room.ask(DeleteGroupsRequest([first, second]))
    room.commit(0)
    (answer,) = room.answers(DELETE)
    assert answer.groups == [ErrorCode.NONE, ErrorCode.COORDINATOR_NOT_AVAILABLE]


def test_groups_of_no_partition_here_are_answered_at_once(room: Room) -> None:
    (answer,) = room.ask(DeleteGroupsRequest(["", "x" * 300]))
    assert answer.groups == [ErrorCode.INVALID_GROUP_ID, ErrorCode.INVALID_GROUP_ID]


def test_a_group_id_that_can_not_be_is_refused_with_the_rule_and_its_numbers(room: Room) -> None:
    long, rule = "x" * 40_000, "a group id of 40000 characters: at most 249 are allowed"
    (found,) = room.ask(FindCoordinatorRequest(["", long]))
    assert [one.message for one in found.coordinators] == ["a group id can't be empty", rule]
    (described,) = room.ask(DescribeGroupsRequest([long]))
    assert [one.message for one in described.groups] == [rule]


# ---- committing ------------------------------------------------------------------------------------------------------


def test_a_commit_to_a_partition_that_does_not_exist_is_refused_for_that_one_alone(room: Room) -> None:
    places = [(READ, 3), (READ, 4), (READ, -1), (b"?" * 16, 0)]
    request = OffsetCommitRequest("g", [CommittedOffset(*place, 7) for place in places])
    assert room.ask(request) == []
    room.commit_all()
    (answer,) = room.answers(api_key_of(request))
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert answer.offsets == [ErrorCode.NONE, unknown, unknown, ErrorCode.UNKNOWN_TOPIC_ID]
    assert room.committed("g") == [CommittedOffset(READ, 3, 7)]
    room.update(5)
    room.ask(request)
    room.commit_all()
    (answer,) = room.answers(api_key_of(request))
    assert answer.offsets[1] == ErrorCode.NONE


# ---- a full disk -----------------------------------------------------------------------------------------------------


def test_while_nothing_can_be_stored_reads_are_served_and_groups_are_read_anew_only_once(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = next(named(0))
    room.with_groups(group)
    log, tries = room.partitions[0].log, []

    def refuse(*batches: object, wall_ms: int) -> None:
        tries.append(wall_ms)
        raise DiskFull("the disk is full", path=log.path)

    with monkeypatch.context() as patch:
        patch.setattr(log, "append", refuse)
        commit = OffsetCommitRequest(group, [CommittedOffset(READ, 0, 8)])
        assert room.ask(commit) == [ErrorCode.COORDINATOR_NOT_AVAILABLE]
        assert room.room.loading
        room.load()
        for now_ms in range(0, 3000, 100):
            room.pass_time(now_ms)
            assert room.ask(commit) == [ErrorCode.COORDINATOR_NOT_AVAILABLE]
            assert room.committed(group) == [CommittedOffset(READ, 0, 7)]
        assert not room.room.loading
        assert len(tries) == 1 + 3, "it is tried once a second"
    room.pass_time(3000)
    assert room.ask(commit) == []
    room.commit_all()
    (answer,) = room.answers(api_key_of(commit))
    assert answer.offsets == [ErrorCode.NONE]


# ---- fetching --------------------------------------------------------------------------------------------------------


def test_an_answer_that_no_client_could_take_is_refused_and_says_how_large_it_is(room: Room) -> None:
    offsets = [CommittedOffset(READ, 0, 7, metadata="x" * 4096)]
    room.ask(OffsetCommitRequest("g", offsets))
    room.commit_all()
    room.outbox.take()
    assert room.ask(OffsetFetchRequest("g", [(READ, 0)] * 2100)) == [ErrorCode.MESSAGE_TOO_LARGE]


def test_answers_that_wait_for_a_commit_take_bounded_memory(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokerd.serving.groups.WAITING_ITEMS_MAX", 10)
    room.update(4)
    group = next(named(0))
    fetch = OffsetFetchRequest(group)
    commit = OffsetCommitRequest(group, [CommittedOffset(READ, number, 7) for number in range(4)])
    assert room.ask(commit) == []
    refused = [room.ask(fetch) for _ in range(6)]
    assert refused == [[], [], [], *[[ErrorCode.THROTTLING_QUOTA_EXCEEDED]] * 3]
    room.commit_all()
    assert len(room.outbox.take()) == 4
    assert len(room.ask(fetch)) == 1


# ---- listing ---------------------------------------------------------------------------------------------------------


def test_groups_are_listed_in_pages_that_fit_an_answer_however_many_there_are(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokerd.serving.groups.DESCRIBED_BYTES", 150)
    names = sorted(f"g{number}" for number in range(8))
    room.with_groups(*names)
    listed: list[str] = []
    pages = 0
    more = True
    while more:
        (answer,) = room.ask(ListGroupsRequest(["Empty"], listed[-1] if listed else ""))
        listed += [group.group for group in answer.groups]
        more, pages = answer.more, pages + 1
    assert (listed, pages) == (names, 3)
    (answer,) = room.ask(ListGroupsRequest(["Stable"]))
    assert (answer.groups, answer.more) == ([], False)
