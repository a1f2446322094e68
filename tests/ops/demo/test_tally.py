"""The bookkeeping of the demo: it finds what is lost, doubled, made up or reordered."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.demo.tally import Published, Tally, Verdict


def tally(devices: int, *batches: list[tuple[int, int]]) -> Tally:
    counted = Tally(devices)
    for batch in batches:
        counted.add(np.array([d for d, _ in batch], np.int64), np.array([s for _, s in batch], np.int64))
    return counted


def test_everything_read_once_and_in_order_holds() -> None:
    verdict = tally(2, [(0, 0), (1, 0), (0, 1)], [(1, 1), (0, 2)]).verdict([Published(3), Published(2)])
    assert verdict == Verdict(5, 5, 5, 0, 0, 0, 0)
    assert verdict.holds


def test_an_acknowledged_message_that_is_not_read_is_lost() -> None:
    counted = tally(2, [(0, 0), (0, 2)])
    verdict = counted.verdict([Published(4), Published(1)])
    assert (verdict.lost, verdict.read_back) == (3, 2)  # 1 and 3 of device 0, 0 of device 1
    assert "dev-00000 seq 1" in verdict.examples[0]
    assert not verdict.holds


def test_one_without_an_acknowledgement_may_be_read_or_not() -> None:
    said = [Published(3, unacknowledged=[1, 2], transmissions={1: 2})]
    assert tally(1, [(0, 0)]).verdict(said).holds
    assert tally(1, [(0, 0), (0, 1), (0, 1)]).verdict(said).holds


def test_a_duplicate_needs_a_transmission_that_explains_it() -> None:
    counted = tally(1, [(0, 0), (0, 0), (0, 1), (0, 0)])
    explained = counted.verdict([Published(2, transmissions={0: 3})])
    assert (explained.duplicates, explained.unexplained, explained.holds) == (2, 0, True)
    short = counted.verdict([Published(2, transmissions={0: 2})])
    assert (short.duplicates, short.unexplained, short.holds) == (1, 1, False)
    assert "read 3 times" in short.examples[0]


def test_a_first_occurrence_behind_a_later_message_is_out_of_order() -> None:
    verdict = tally(1, [(0, 1)], [(0, 0)]).verdict([Published(2)])
    assert (verdict.lost, verdict.out_of_order, verdict.holds) == (0, 1, False)


def test_what_nobody_published_is_not_explained() -> None:
    assert tally(1, [(0, 0), (0, 1), (7, 0)]).verdict([Published(1)]).unexplained == 2


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=12), max_size=5))
def test_columns_are_counted_as_one_by_one(batches: list[list[tuple[int, int]]]) -> None:
    fast = tally(4, *batches)
    slow = tally(4, *([record] for batch in batches for record in batch))
    said = [Published(7) for _ in range(4)]
    assert fast.verdict(said) == slow.verdict(said)
    assert fast.read_total == sum(map(len, batches))
    assert fast.read_back == len({record for batch in batches for record in batch})


@pytest.mark.parametrize("seed", range(5))
def test_the_truth_is_found_whatever_happens_to_the_messages(seed: int) -> None:
    dice = random.Random(seed)
    devices, count = 5, 300
    streams = [[(device, seq) for seq in range(count)] for device in range(devices)]
    lost = [set(dice.sample(range(count), dice.randrange(4))) for _ in range(devices)]
    order = [device for device in range(devices) for _ in range(count)]
    dice.shuffle(order)
    log = [record for device in order if (record := streams[device].pop(0))[1] not in lost[device]]
    batches = [log[at : at + 37] for at in range(0, len(log), 37)]
    verdict = tally(devices, *batches).verdict([Published(count) for _ in range(devices)])
    assert verdict.lost == sum(map(len, lost))
    assert verdict.read_back == len(log)
    assert verdict.out_of_order == verdict.unexplained == 0
