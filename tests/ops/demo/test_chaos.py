"""Which process is killed when, and when it counts as recovered."""

from __future__ import annotations

import itertools
import random

from ops.demo.chaos import CONTROLLER, EVERY_S, FIRST_S, FOLLOWER, GATEWAY, KINDS, LEADER, Chaos

SERVING = {LEADER: ["broker-1", "broker-2"], FOLLOWER: ["broker-3"], CONTROLLER: ["controller"], GATEWAY: ["mqtt"]}


def test_kills_come_one_after_the_other_of_each_kind_and_none_near_the_end() -> None:
    chaos = Chaos(random.Random(1), ends_s=60)
    for tick in range(800):
        now_s = tick / 10
        if chaos.is_due(now_s):
            chosen = chaos.choose(SERVING, now_s)
            assert chosen is not None
            assert chosen[1] in SERVING[chosen[0]]
            chaos.killed(*chosen, 10, {}, now_s)
        elif chaos.kills and now_s - chaos.kills[-1].at_s > 0.05:
            chaos.serve({chaos.kills[-1].process: 11}, now_s)
    at_s = [kill.at_s for kill in chaos.kills]
    assert at_s[0] >= FIRST_S
    assert at_s[-1] <= 60
    assert min(later - earlier for earlier, later in itertools.pairwise(at_s)) >= EVERY_S[0]
    kinds = [kill.kind for kill in chaos.kills]
    assert kinds[0] == LEADER
    assert set(kinds[1:5]) == set(kinds[5:9]) == set(KINDS)
    assert all(kill.recovered_s is not None for kill in chaos.kills)


def test_a_kind_of_which_none_serves_loses_its_turn() -> None:
    chaos = Chaos(random.Random(1), ends_s=30)
    alone = {LEADER: ["broker-1"], FOLLOWER: []}
    assert [chaos.choose(alone, 5.0 + 5 * turn) for turn in range(3)] == [(LEADER, "broker-1")] * 3
    assert chaos.choose({LEADER: [], FOLLOWER: []}, 25.0) is None


def test_a_leader_is_made_good_with_the_first_record_of_a_newer_epoch() -> None:
    chaos = Chaos(random.Random(1), ends_s=30)
    chaos.read(0, 3, 1.0)
    chaos.killed(LEADER, "broker-1", 10, {0: 3, 2: 7}, 5.0)
    chaos.read(0, 3, 5.001)  # was in the log already
    chaos.read(1, 9, 5.002)  # another broker's partition
    chaos.read(2, 7, 5.003)  # the first that is read of it, and written before
    chaos.serve({"broker-1": 11}, 5.05)  # it is back, and does not lead
    assert not chaos.is_due(8.0)  # one at a time
    chaos.read(0, 4, 5.1)
    assert [round(kill.recovered_s or 0, 3) for kill in chaos.kills] == [0.1]
    assert chaos.is_due(8.0)


def test_what_leads_nothing_is_made_good_by_another_process_in_its_place() -> None:
    chaos = Chaos(random.Random(1), ends_s=30)
    chaos.killed(CONTROLLER, CONTROLLER, 10, {}, 5.0)
    chaos.serve({"broker-1": 20, CONTROLLER: 10}, 5.1)  # said before it was killed
    chaos.serve({"broker-1": 21}, 5.2)
    assert chaos.kills[0].recovered_s is None
    chaos.serve({CONTROLLER: 11}, 5.3)
    assert round(chaos.kills[0].recovered_s or 0, 3) == 0.3
