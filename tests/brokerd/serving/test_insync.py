"""Which partitions are asked for their in-sync set, and when: those alone that time may change."""

from __future__ import annotations

from typing import Any

import pytest

from brokerd.serving.insync import CHECK_MS, REFUSED_RETRY_MS, InSyncSets
from ingest.wire.messages import AlteredPartition, AlterPartitionResponse
from replicas.domains import Domains
from replicas.leader import Leadership, ReplicaEnd
from replicas.state import PartitionState
from tests.replicas.states import state

EPOCHS = {1: 10, 2: 20, 3: 30}
LAG_MS = 1000


class LedPartition:
    durable = True

    def __init__(self, number: int, over: PartitionState) -> None:
        self.key = (b"t" * 16, number)
        self.leadership: Leadership | None = Leadership(
            1, over, EPOCHS, end_offset=0, high_watermark=0, min_in_sync=1, domains=Domains(), now_ms=0
        )

    def append(self, now_ms: int) -> None:
        assert self.leadership is not None
        self.leadership.own(ReplicaEnd(10, 10), durable=True, now_ms=now_ms)

    def fetched(self, broker: int, end: int, now_ms: int) -> None:
        assert self.leadership is not None
        self.leadership.fetched(broker, EPOCHS[broker], ReplicaEnd(end, end), durable=True, now_ms=now_ms)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Leadership]:
    """Return the leaderships that were asked, in order."""
    asked: list[Leadership] = []
    propose = Leadership.propose

    def count(self: Leadership, **options: Any) -> Any:
        asked.append(self)
        return propose(self, **options)

    monkeypatch.setattr(Leadership, "propose", count)
    return asked


def settled_partition(sets: InSyncSets, number: int = 0) -> Any:
    partition: Any = LedPartition(number, state())
    for broker in (2, 3):
        partition.fetched(broker, 0, 1)
    sets.watch([partition])
    sets.check(1)
    return partition


def sent(sets: InSyncSets, now_ms: int) -> list[list[int]]:
    return [sorted(member.broker_id for member in wanted.isr) for wanted in sets.take(now_ms)]


def test_partitions_whose_followers_have_everything_cost_nothing(asked: list[Leadership]) -> None:
    sets = InSyncSets(LAG_MS)
    for number in range(100):
        settled_partition(sets, number)
    sets.check(CHECK_MS)
    asked.clear()
    for now_ms in range(2 * CHECK_MS, 60_000, CHECK_MS):
        sets.check(now_ms)
    assert asked == []


def test_a_follower_that_stops_fetching_leaves_once_it_lacks_something_for_the_lag_time() -> None:
    sets = InSyncSets(LAG_MS)
    partition = settled_partition(sets)
    sets.check(50_000)
    partition.append(50_000)
    sets.watch([partition])
    partition.fetched(2, 10, 50_010)
    sets.look([partition], 50_010)
    sets.check(50_000 + LAG_MS)
    assert sent(sets, 50_000 + LAG_MS) == []
    sets.check(50_000 + LAG_MS + CHECK_MS)
    assert sent(sets, 50_000 + LAG_MS + CHECK_MS) == [[1, 2]]
    assert (sets.shrinks, sets.expands) == (1, 0)


def test_what_was_refused_is_looked_at_again_though_nothing_more_comes() -> None:
    sets = InSyncSets(LAG_MS)
    partition: Any = LedPartition(0, state(isr=(1,)))
    partition.fetched(2, 0, 1)
    sets.look([partition], 1)
    assert sent(sets, 1) == [[1, 2]]
    sets.answered(AlterPartitionResponse([AlteredPartition(b"t" * 16, 0, 1)]), 2)
    assert sent(sets, 2 + REFUSED_RETRY_MS) == []
    sets.check(CHECK_MS)
    assert sent(sets, CHECK_MS) == [[1, 2]]


def test_what_came_while_a_refusal_is_waited_out_is_not_forgotten() -> None:
    sets = InSyncSets(LAG_MS)
    sets.answered(None, 0)
    partition: Any = LedPartition(0, state(isr=(1,)))
    partition.fetched(2, 0, 1)
    sets.look([partition], 1)
    assert sent(sets, REFUSED_RETRY_MS) == []
    sets.check(REFUSED_RETRY_MS)
    assert sent(sets, REFUSED_RETRY_MS) == [[1, 2]]


def test_one_that_is_led_no_more_is_let_go(asked: list[Leadership]) -> None:
    sets = InSyncSets(LAG_MS)
    partition: Any = LedPartition(0, state())
    sets.watch([partition])
    partition.leadership = None
    sets.check(CHECK_MS)
    assert not sets._watched
    assert asked == []
