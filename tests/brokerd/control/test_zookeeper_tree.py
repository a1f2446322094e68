"""The operations of a commit: planned for what is there, whole in any order, and the same after the journal."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.control.records import Change, DeletedTopicRecord, Put, Record, Remove, TopicRecord
from brokerd.control.zookeeper.lease import Lease
from brokerd.control.zookeeper.tree import (
    JOURNAL,
    RECORDS,
    Create,
    Delete,
    Journal,
    Operation,
    RecordTree,
    SetData,
    decode_journal,
    decode_value,
    encode_journal,
    encode_value,
    request_bytes,
    split,
)
from ingest.errors import StorageError
from tests.brokerd.control.harness import partition_record


class FakeServer:
    """The rules of ZooKeeper's nodes that a plan may break."""

    def __init__(self) -> None:
        self.nodes: dict[str, bytes] = {RECORDS: b""}

    def carry_out(self, operations: list[Operation]) -> None:
        for operation in operations:
            path = operation.path
            match operation:
                case Create():
                    assert path not in self.nodes
                    assert path.rpartition("/")[0] in self.nodes, "a node without the one above it"
                    self.nodes[path] = operation.value
                case SetData():
                    assert path in self.nodes
                    self.nodes[path] = operation.value
                case Delete():
                    assert not [other for other in self.nodes if other.startswith(path + "/")], "it has nodes below it"
                    del self.nodes[path]

    def tree(self) -> RecordTree:
        tree = RecordTree()
        for path in sorted(self.nodes.keys() - {RECORDS}):
            tree.add(path, is_record=bool(self.nodes[path]))
        return tree

    def records(self) -> dict[str, Record]:
        return {path: decode_value("here", path, held) for path, held in self.nodes.items() if held}


def topic_id(number: int) -> bytes:
    return bytes([number]) * 16


records = st.one_of(
    st.builds(lambda n, name: TopicRecord(topic_id(n), name, {}), st.integers(0, 2), st.text(max_size=3)),
    st.builds(lambda n, p, e: partition_record(topic_id(n), p, 1, [1], [1], e, e), *[st.integers(0, 2)] * 3),
    st.builds(lambda n: DeletedTopicRecord(topic_id(n), "t\n\u2028", 0), st.integers(0, 2)),
)
changes = st.lists(st.one_of(st.builds(Put, records), st.builds(Remove, records)), max_size=8)


def model(before: dict[str, Record], commit: list[Change]) -> dict[str, Record]:
    removed = {RECORDS + c.record.path for c in commit if isinstance(c, Remove)}
    return {path: record for path, record in before.items() if path not in removed} | {
        RECORDS + c.record.path: c.record for c in commit if isinstance(c, Put)
    }


@given(st.lists(changes, max_size=4))
def test_any_commits_leave_just_what_they_say(commits: list[list[Change]]) -> None:
    server, tree, expected = FakeServer(), RecordTree(), dict[str, Record]()
    for commit in commits:
        server.carry_out(tree.plan(commit))
        expected = model(expected, commit)
        assert server.records() == expected
        parents = {path.rpartition("/")[0] for path in server.nodes}
        assert all(held or path in parents or path == RECORDS for path, held in server.nodes.items()), "litter"


@given(changes, changes, st.integers(0, 20), st.integers(1, 400))
def test_a_commit_broken_off_anywhere_is_finished_by_planning_it_again(
    first: list[Change], commit: list[Change], done: int, bytes_max: int
) -> None:
    server = FakeServer()
    server.carry_out(RecordTree().plan(first))
    expected = model(server.records(), commit)
    pieces = list(split(server.tree().plan(commit), bytes_max))
    for piece in pieces[:done]:
        server.carry_out(piece)
    server.carry_out(server.tree().plan(commit))
    assert server.records() == expected


@given(changes.filter(bool), st.integers(1, 300))
def test_a_journal_holds_the_commit(commit: list[Change], bytes_max: int) -> None:
    journal, parts = encode_journal(commit, bytes_max)
    assert journal.parts == len(parts) > 0
    assert all(len(part) <= bytes_max for part in parts)
    assert decode_journal("here", journal, parts) == commit
    for damaged in ([*parts[:-1], parts[-1][:-1]], [*parts, b"x"], [b"", *parts[1:]]):
        with pytest.raises(StorageError, match=f"{JOURNAL} is damaged"):
            decode_journal("here", journal, damaged)


@given(st.lists(st.integers(1, 500), max_size=20), st.integers(1, 1500))
def test_pieces_keep_order_and_size(sizes: list[int], bytes_max: int) -> None:
    operations: list[Operation] = [SetData(f"/{n}", b"x" * size) for n, size in enumerate(sizes)]
    pieces = list(split(operations, bytes_max))
    assert [operation for piece in pieces for operation in piece] == operations
    assert all(request_bytes(piece) <= bytes_max or len(piece) == 1 for piece in pieces)


def test_the_bytes_of_a_node_are_pinned() -> None:
    record = TopicRecord(topic_id(0), "t", {})
    held = encode_value(record)
    assert held == b'991c63e3 {"type":"topic","topic_id":"AAAAAAAAAAAAAAAAAAAAAA==","name":"t","configs":{}}'
    path = RECORDS + record.path
    assert decode_value("here", path, held) == record
    assert msgspec.json.encode(Journal(2, 7)) == b'{"parts":2,"crc":7}'
    for damaged in (held[:-1], b"", b"zzzzzzzz {}", held.replace(b"t", b"s"), held[:8] + b"_" + held[9:]):
        with pytest.raises(StorageError, match=f"here: .*{record.path} is damaged"):
            decode_value("here", path, damaged)
    with pytest.raises(StorageError, match="is damaged"):
        decode_value("here", path + "0", held)


def test_a_lease_lasts_two_thirds_of_the_session_from_the_request() -> None:
    lease = Lease()
    assert lease.left_ms(0) < 0
    lease.renew(1000, 900)
    assert lease.left_ms(1000) == 600
    lease.renew(500, 900)  # an answer that was under way for longer
    assert lease.left_ms(1600) == 0
