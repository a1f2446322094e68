"""The high watermark over an in-sync set: the minimum of what counts, never back, never below min ISR."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicas.high_watermark import HighWatermark, ReplicaEnd


def test_alone_the_leaders_own_flush_counts() -> None:
    mark = HighWatermark(1, 5)
    assert mark.update(1, ReplicaEnd(20, 8), durable=True) == 8
    assert mark.update(1, ReplicaEnd(20, 8), durable=False) == 20
    assert mark.update(1, ReplicaEnd(20, 9), durable=True) == 20, "it never goes back, whatever durability becomes"


def test_the_slowest_in_sync_replica_decides_once_all_are_known() -> None:
    mark = HighWatermark(1, 0)
    mark.set_in_sync(frozenset({1, 2}))
    assert mark.update(1, ReplicaEnd(10, 10), durable=True) == 0
    assert mark.update(2, ReplicaEnd(9, 7), durable=True) == 7
    mark.set_in_sync(frozenset({1}))
    assert mark.update(1, ReplicaEnd(10, 10), durable=True) == 10


def test_below_min_in_sync_it_stands_still() -> None:
    mark = HighWatermark(1, 3, min_in_sync=2)
    assert mark.update(1, ReplicaEnd(10, 10), durable=True) == 3


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50), st.integers(0, 50)), max_size=30))
def test_it_never_goes_back(updates: list[tuple[int, int, int]]) -> None:
    mark = HighWatermark(1, 0)
    mark.set_in_sync(frozenset({1, 2, 3}))
    last = 0
    for replica, appended, flushed in updates:
        now = mark.update(replica, ReplicaEnd(max(appended, flushed), flushed), durable=True)
        assert now >= last
        last = now
