"""Counters stay monotonic over restarts of the processes that count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ops.metrics.totals import Totals

IN = ("messagesin", "sensors")
OUT = ("bytesout", "sensors")


def test_processes_are_added_up() -> None:
    totals = Totals()
    totals.take("broker-1", 11, {IN: 5, OUT: 1})
    totals.take("broker-2", 22, {IN: 7})
    assert totals.sums() == {IN: 12, OUT: 1}
    assert totals.of("broker-1") == {IN: 5, OUT: 1}
    assert totals.of("broker-9") == {}


def test_a_restart_carries_on_what_was_counted() -> None:
    totals = Totals()
    for incarnation, value in ((1, 5), (1, 8), (2, 1), (2, 3), (7, 0)):
        totals.take("broker-1", incarnation, {IN: value})
    assert totals.sums() == {IN: 11}


def test_a_dead_process_keeps_what_it_counted() -> None:
    totals = Totals()
    totals.take("broker-1", 1, {IN: 5})
    totals.take("broker-2", 1, {IN: 1})
    totals.take("broker-2", 1, {IN: 2})
    assert totals.sums() == {IN: 7}


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 3), st.integers(0, 100)), max_size=50))
def test_no_sum_ever_goes_down(steps: list[tuple[str, int, int]]) -> None:
    totals, before = Totals(), 0.0
    for process, incarnation, value in steps:
        totals.take(process, incarnation, {IN: value})
        assert totals.sums()[IN] >= before
        before = totals.sums()[IN]


def test_keys_are_forgotten_only_when_there_are_too_many(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    totals = Totals()
    totals.take("broker-1", 1, {("in", f"topic-{index}"): 1 for index in range(10)})
    totals.forget(lambda key: key[1] != "topic-3")
    assert len(totals.sums()) == 10
    monkeypatch.setattr("ops.metrics.totals.KEYS_MAX", 9)
    totals.forget(lambda key: key[1] != "topic-3")
    assert totals.sums() == {("in", "topic-3"): 1}
