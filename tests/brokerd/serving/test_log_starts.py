"""A follower whose tail was never committed meets a leader whose log starts amid that tail: real logs on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.partition import Partition
from brokerd.serving.replica_fetch import ReplicaFetchRoom
from brokerd.serving.unsent import UnsentAnswers
from brokerd.storage.config import LogConfig
from ingest.wire.frames import Request, decode_body, decode_response
from ingest.wire.messages import ApiKey
from replicas.domains import Domains
from replicas.puller import Followed, Puller, PullSettings
from replicas.state import PartitionState
from replicas.throttle import Throttle
from tests.brokerd.storage.stores import TOPIC, Store, make_batch, stored
from tests.brokerd.storage.test_holes import batch_at

KEY = (TOPIC, 0)
EPOCH = 5


class Pair:
    """Two logs that begin alike; the one leads from epoch 5 on, the other comes to follow it."""

    def __init__(self, root: Path) -> None:
        config = LogConfig(cleanup_policy="compact,delete")
        self.stores = [Store(root / name, config, reserve_bytes=65536) for name in ("leader", "follower")]
        self.leader, self.follower = (store.open_directory().partition(TOPIC, 0, config) for store in self.stores)
        for log in (self.leader, self.follower):
            log.append_replicated(batch_at(0, 10, epoch=1), wall_ms=0)

    def flush(self, log: Any, mark: int) -> None:
        store = self.stores[log is self.follower]
        assert store.directory is not None
        store.directory.flush_all()
        log.advance_high_watermark(mark)

    def follow(self) -> list[Any]:
        """Let the follower fetch twenty times; return what came of it."""
        outbox, now_ms = Outbox(), 0
        partition = Partition("t", self.leader, 1)
        state = PartitionState(leader=1, leader_epoch=EPOCH, replicas=[1, 2], isr=[1])
        partition.lead(state, {1: 1, 2: 1}, min_in_sync=1, domains=Domains(), now_ms=0)
        unsent = UnsentAnswers(4 << 20)
        room = ReplicaFetchRoom(lambda *_: partition, lambda _: 1, outbox, 1 << 20, unsent, Throttle())
        self.follower.become_follower(EPOCH)
        puller = Puller(2, 1, PullSettings(wait_max_ms=0), Throttle())
        puller.follow(KEY, Followed(self.follower, EPOCH, durable=True, unclean_epoch=-1))
        outcomes = []
        for _ in range(20):
            now_ms += 2000
            assert self.stores[1].directory is not None
            self.stores[1].directory.flush_all()
            due = puller.request(1, now_ms)
            if due is None:
                continue
            room.handle(Peer(0, b"f"), Request(1, 1, 1000, due[1], [], ""), now_ms)
            (answer,) = outbox.take()
            response = decode_response([answer.header, *(bytes(memoryview(frame)) for frame in answer.payload)])
            body = decode_body(response, ApiKey.FETCH)
            outcomes.append(puller.on_answer(due[0], body, response.payload, now_ms=now_ms, wall_ms=0))
        return outcomes


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    for store in made.stores:
        store.close()


@pytest.mark.parametrize("start", [11, 12, 13, 14, 16])
def test_a_tail_within_the_batch_at_the_log_start_is_replaced_by_it(pair: Pair, start: int) -> None:
    """It was cut at the log start alone, and what was left of it does not go on with a whole batch."""
    pair.follower.become_leader(3)
    pair.follower.append([make_batch() for _ in range(4)], wall_ms=0)
    pair.flush(pair.follower, 10)
    pair.leader.append_replicated(batch_at(10, 6, epoch=4), wall_ms=0)
    pair.flush(pair.leader, 16)
    pair.leader.delete_records(start)
    outcomes = pair.follow()
    assert [outcome.refill for outcome in outcomes if outcome.refill] == []
    assert pair.follower.end_offset == 16
    assert pair.follower.start_offset == start
    assert stored(pair.follower) == stored(pair.leader)


def compacted(pair: Pair) -> None:
    """Have the leader's log start in a hole: compaction has left nothing at 12 and 13, and what lies below is deleted.

    The first batch of epoch 4 was at 10, or epoch 4 begins at 14: nobody can tell any more.
    """
    pair.leader.append_replicated(batch_at(10, 2, epoch=4), wall_ms=0)
    pair.leader.roll()
    pair.leader.append_replicated(batch_at(14, 2, epoch=4), wall_ms=0)
    pair.flush(pair.leader, 16)
    pair.leader.delete_records(12)


def test_a_tail_within_a_hole_at_the_log_start_is_dropped(pair: Pair) -> None:
    """It was taken for what compaction had dropped, and stayed."""
    pair.follower.become_leader(3)
    pair.follower.append([make_batch() for _ in range(4)], wall_ms=0)
    pair.flush(pair.follower, 10)
    compacted(pair)
    pair.follow()
    assert pair.follower.end_offset == 16
    assert stored(pair.follower) == stored(pair.leader)


def test_a_replica_with_committed_records_within_a_hole_at_the_log_start_begins_anew(pair: Pair) -> None:
    """It is no contradiction: compaction may have dropped them at the leader."""
    pair.follower.append_replicated(batch_at(10, 4, epoch=3), wall_ms=0)
    pair.flush(pair.follower, 14)
    compacted(pair)
    outcomes = pair.follow()
    assert [outcome.offline for outcome in outcomes if outcome.offline] == []
    assert [key for outcome in outcomes for key, _ in outcome.refill][:1] == [KEY]
