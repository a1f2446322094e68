"""Which broker is killed when, and when it counts as recovered."""

from __future__ import annotations

import itertools
import random

from ops.demo.chaos import EVERY_S, FIRST_S, Chaos


def test_kills_come_one_after_the_other_and_none_near_the_end() -> None:
    chaos = Chaos(random.Random(1), ends_s=30)
    brokers = {"broker-1": 10, "broker-2": 20}
    kills = []
    for tick in range(400):
        now_s = tick / 10
        broker = chaos.choose(brokers, now_s)
        if broker is not None:
            kills.append(now_s)
            chaos.killed(broker, brokers[broker], [0], now_s)
            chaos.read(0, len(kills), now_s + 0.05)
    assert kills[0] >= FIRST_S
    assert kills[-1] <= 30
    assert min(later - earlier for earlier, later in itertools.pairwise(kills)) >= EVERY_S[0]
    assert chaos.survived == len(kills) > 5


def test_a_broker_is_back_with_the_first_record_of_a_newer_epoch() -> None:
    chaos = Chaos(random.Random(1), ends_s=30)
    chaos.read(0, 3, 1.0)
    chaos.killed("broker-1", 10, [0, 2], 5.0)
    chaos.read(0, 3, 5.001)  # was in the log already
    chaos.read(1, 9, 5.002)  # another broker's partition
    assert chaos.choose({"broker-2": 20}, 8.0) is None  # one at a time
    chaos.read(0, 4, 5.1)
    assert [round(kill.recovered_s or 0, 3) for kill in chaos.kills] == [0.1]
    assert chaos.choose({"broker-2": 20}, 8.0) == "broker-2"
