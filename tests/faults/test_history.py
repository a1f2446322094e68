"""The checker finds what it is there to find."""

from __future__ import annotations

import pytest

from tests.faults.device import BrokenProtocol, Device
from tests.faults.history import History


@pytest.fixture
def history() -> History:
    history = History(run=7)
    for source in (1, 2):
        for seq in range(3):
            history.transmitted(source, seq)
            history.acknowledged(source, seq, at_s=seq)
    return history


def values(history: History, *origins: tuple[int, int]) -> list[bytes]:
    return [history.value(source, seq) for source, seq in origins]


def test_a_whole_history_has_no_problem(history: History) -> None:
    history.transmitted(1, 1)
    one = values(history, (1, 0), (1, 1), (1, 2), (1, 1))
    two = values(history, (2, 0), (2, 1), (2, 2))
    assert history.check({0: one, 1: two}) == []


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        ([(1, 0), (1, 2)], "source 1: 1 acknowledged and not read back: [1]"),
        ([(1, 0), (1, 1), (1, 1), (1, 2)], "source 1: 1 was sent 1 times and read 2 times"),
        ([(1, 1), (1, 0), (1, 2)], "source 1: 0 comes first behind 1, at offset 1 of partition 0"),
        ([(1, 0), (1, 1), (1, 2), (1, 3)], "source 1: 3 was sent 0 times and read 1 times"),
    ],
)
def test_each_broken_promise_is_named(history: History, one: list[tuple[int, int]], problem: str) -> None:
    two = values(history, (2, 0), (2, 1), (2, 2))
    assert history.check({0: values(history, *one), 1: two}) == [problem]


def test_values_of_another_run_or_with_changed_bytes_are_strangers(history: History) -> None:
    changed = bytearray(history.value(1, 0))
    changed[-1] ^= 1
    for value in (bytes(changed), History(run=8).value(1, 0), b"short"):
        (problem,) = history.check({0: [value]}, acknowledged={})
        assert "was never published" in problem


def test_a_source_in_two_partitions_is_named(history: History) -> None:
    (problem,) = history.check({0: values(history, (1, 0)), 1: values(history, (1, 1))}, acknowledged={})
    assert problem == "source 1 is in partitions 0 and 1"


def test_what_failed_for_good_must_not_be_read(history: History) -> None:
    history.transmitted(3, 0)
    history.failed(3, 0)
    (problem,) = history.check({0: values(history, (3, 0))}, acknowledged={})
    assert problem == "source 3: 0 failed for good and was read"


def test_a_gap_is_the_longest_silence_that_begins_soon_after() -> None:
    history = History(run=1)
    for at_s in (1.0, 1.9, 2.1, 2.5, 3.4, 9.0):
        history.acknowledged(1, 0, at_s)
    history.acknowledged(2, 0, 2.2)
    assert history.gap_s(2.0, 100.0) == pytest.approx(0.9)
    assert history.gap_s(2.0, 2.3, sources=[1]) == pytest.approx(0.4)


CONNACK = b"\x20\x02\x00\x00"


def test_a_device_resends_in_order_and_flags_what_was_sent_before() -> None:
    history = History(run=1)
    device = Device(5, count=10, window=3, history=history)
    device.connected()
    device.sent(len(device.unsent()))
    device.receive(CONNACK, 0.0)
    assert device.publish_some(10) == 3
    packets = device.unsent()
    size = len(packets) // 3
    device.sent(2 * size + 5)  # the third is cut: it was not sent
    assert device.receive(b"\x40\x02\x00\x01", 1.0) == 1
    device.connected()
    device.sent(len(device.unsent()))
    device.receive(CONNACK, 2.0)
    again = device.unsent()
    assert [again[0], again[size]] == [0x3A, 0x32]
    assert again[:size][1:] == packets[size : 2 * size][1:]
    assert again[size:] == packets[2 * size :]
    device.sent(len(again))
    assert history.resends == 1
    with pytest.raises(BrokenProtocol, match="not in flight"):
        device.receive(b"\x40\x02\x00\x01", 3.0)
