"""The bucket that bounds what replicas catch up with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicas.throttle import BURST_MS, PORTION_MS, UNBOUNDED, Throttle, names_replica

RATE = 1_000_000
BATCH_MAX = 300_000


def test_no_more_goes_than_the_rate_allows_and_a_batch_that_overdraws_is_paid_back() -> None:
    throttle = Throttle()
    throttle.bytes_per_s = RATE
    throttle.spend(throttle.room(0), 0)
    assert throttle.room(0) == 0
    throttle.spend(500_000, 0)
    assert throttle.ready_ms() == 500 + PORTION_MS
    assert throttle.room(499 + PORTION_MS) == 0
    assert throttle.room(500 + PORTION_MS) == RATE * PORTION_MS // 1000


def test_what_is_saved_is_little() -> None:
    throttle = Throttle()
    throttle.bytes_per_s = RATE
    assert throttle.room(0) == throttle.room(1_000_000) == RATE * BURST_MS // 1000


def test_another_rate_counts_from_now_on() -> None:
    throttle = Throttle()
    throttle.bytes_per_s = RATE
    throttle.spend(throttle.room(0) + RATE, 0)
    throttle.bytes_per_s = 10 * RATE
    assert throttle.room(100 + PORTION_MS) > 0
    throttle.bytes_per_s = UNBOUNDED
    throttle.spend(1 << 40, 200)
    assert throttle.room(300) > 1 << 40


def test_a_rate_below_a_byte_a_portion_still_moves() -> None:
    throttle = Throttle()
    throttle.bytes_per_s = 1
    throttle.spend(1, 0)
    assert throttle.room(throttle.ready_ms() - 1) == 0
    assert throttle.room(throttle.ready_ms()) >= 1


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, BATCH_MAX)), max_size=200))
def test_over_any_time_it_is_the_rate_a_burst_and_a_batch_at_most(asked: list[tuple[int, int]]) -> None:
    throttle = Throttle()
    throttle.bytes_per_s = RATE
    now_ms = spent = 0
    for waited_ms, size in asked:
        now_ms += waited_ms
        if throttle.room(now_ms):
            throttle.spend(size, now_ms)
            spent += size
        else:
            assert throttle.ready_ms() > now_ms
            assert throttle.room(throttle.ready_ms()) > 0
            now_ms = throttle.ready_ms()
        assert spent <= RATE * (now_ms + BURST_MS) // 1000 + BATCH_MAX


@pytest.mark.parametrize(
    ("text", "named"), [("", False), ("*", True), ("0:2,1:3", True), ("0:3,1:2", False), ("10:2", False)]
)
def test_a_list_names_replicas_by_partition_and_broker(text: str, named: bool) -> None:
    assert names_replica(text, 0, 2) is named
