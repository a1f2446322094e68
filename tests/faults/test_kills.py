"""Processes of every kind are killed at random moments under load: nothing acknowledged is lost or reordered."""

from __future__ import annotations

import json
import random
import time
from contextlib import ExitStack
from statistics import median

import pytest

from tests.faults.appliance import TOPIC, ProcessTree
from tests.faults.copies import await_in_sync, compare_copies
from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.readers import MappedReader, Tail, read_back
from tests.faults.trial import HEALED_S, Trial

PARTITIONS = 6
EVERYTHING = "everything"
ZYGOTE_S = 3.0  # it is ready again by then, on a busy machine too


class Nemesis:
    """Kills, at moments and in an order that a seed decides; it notes what and when."""

    def __init__(self, tree: ProcessTree, fleet: Fleet, dice: random.Random) -> None:
        self._tree = tree
        self._fleet = fleet
        self._dice = dice
        self.kills: list[tuple[str, float]] = []

    def kill(self, victim: str) -> None:
        """Kill one process, or all, and see to it that somebody takes its place."""
        tree = self._tree
        if victim == EVERYTHING:
            self._note(victim)
            tree.kill_everything()
            tree.up()
            return
        pid = tree.pid(victim)
        self._note(victim)
        tree.kill(victim)
        if victim == "supervisor":
            tree.up()
        else:
            tree.await_replaced(victim, pid)

    def _note(self, victim: str) -> None:
        time.sleep(self._dice.uniform(0, 0.05))  # not always right behind an acknowledgement
        self.kills.append((victim, time.monotonic()))

    def kill_until(self, acknowledged: int) -> None:
        """Kill each kind once a round, in another order each time, at least one round."""
        while not self.kills or self._fleet.acknowledged < acknowledged:
            victims = [*self._tree.names(), EVERYTHING]
            self._dice.shuffle(victims)
            for victim in victims:
                self._fleet.await_more(self._dice.randint(1, 300))
                self.kill(victim)


def gaps_s(nemesis: Nemesis, history: History, devices: dict[int, int]) -> dict[str, list[float]]:
    """Return for each kind of victim how long the devices it served went without an acknowledgement.

    A broker or gateway that dies while a new zygote imports what it forks waits for it: that is a kind of its own.

    Args:
        devices: The broker that leads each device's partition.
    """
    gaps: dict[str, list[float]] = {}
    zygote_at_s = float("-inf")
    next_at_s = [at_s for _, at_s in nemesis.kills[1:]] + [float("inf")]
    for (victim, at_s), until_s in zip(nemesis.kills, next_at_s, strict=True):
        kind = victim.split("-")[0]
        own = None
        if kind == "broker":
            own = [device for device, broker in devices.items() if victim == f"broker-{broker}"]
        gap_s = history.gap_s(at_s, until_s, own)
        if kind in ("zygote", "supervisor", EVERYTHING):
            zygote_at_s = at_s
        elif at_s - zygote_at_s < ZYGOTE_S and kind in ("broker", "mqtt"):
            kind += " without zygote"
        if kind in ("zygote", "supervisor", "monitor", "controller"):
            gap_s = min(gap_s, until_s - at_s)  # it serves no device: what goes on longer is the next victim's
        gaps.setdefault(kind, []).append(gap_s)
    return gaps


@pytest.mark.parametrize("copies", [1, 3])
def test_kills_at_random_moments_lose_and_reorder_nothing(
    tree: ProcessTree, copies: int, pytestconfig: pytest.Config
) -> None:
    long = pytestconfig.getoption("--long")
    messages, per_s = (100_000, 1000) if long else (9_000, 500)
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    dice = random.Random(seed)
    history = History(seed)
    tree.create_topic(TOPIC, PARTITIONS, copies, segment_bytes="262144")
    with ExitStack() as stack:
        mapped = [stack.enter_context(MappedReader(tree.data_dir, seed=number)) for number in range(2)]
        tails = [stack.enter_context(Tail(tree.bootstrap, TOPIC, local=local)) for local in (True, False)]
        fleet = stack.enter_context(
            Fleet(history, lambda: tree.mqtt_port, messages=messages, per_s=per_s, seed=dice.randrange(10**9))
        )
        nemesis = Nemesis(tree, fleet, dice)
        nemesis.kill_until(int(0.95 * messages) if long else 1)
        fleet.await_total(messages, timeout_s=300)
        tree.await_ready()
        await_in_sync(tree, TOPIC)
        leaders = tree.leaders(TOPIC)
        by_map = read_back(tree.bootstrap, TOPIC, local=True)
        by_fetch = read_back(tree.bootstrap, TOPIC, local=False)
        for tail in tails:
            tail.await_ends({partition: len(values) for partition, values in by_map.items()})
    assert by_map == by_fetch
    print("\n".join(f"{at_s:.3f} {victim}" for victim, at_s in nemesis.kills))
    assert history.check(by_map) == [], tree.log_tail()
    assert compare_copies(tree, TOPIC) == []
    for tail in tails:
        assert tail.problems == []
        assert tail.values == {partition: values for partition, values in by_map.items() if values}
    for reader in mapped:
        assert reader.problems == []
        assert copies > 1 or reader.incarnations > PARTITIONS, "it met no restarted broker"
    devices = {device: leaders[partition] for device, partition in history.homes(by_map).items()}
    gaps = gaps_s(nemesis, history, devices)
    print(
        json.dumps(
            {
                "seed": seed,
                "messages": messages,
                "kills": len(nemesis.kills),
                "resends": history.resends,
                "reconnects": fleet.reconnects,
                "duplicates": sum(map(len, by_map.values())) - messages,
                "gap_ms": {
                    kind: {"n": len(own), "median": round(1000 * median(own)), "max": round(1000 * max(own))}
                    for kind, own in sorted(gaps.items())
                },
            }
        )
    )
    assert max(map(max, gaps.values())) < 30, gaps


@pytest.mark.timeout(600)
def test_each_new_leader_is_killed_as_soon_as_it_leads(tree: ProcessTree, pytestconfig: pytest.Config) -> None:
    rounds, chased = (20 if pytestconfig.getoption("--long") else 1), 5
    with Trial(tree, random.randrange(10**9), partitions=3) as trial:
        for _ in range(rounds):
            trial.fleet.await_more(200)
            quarry = trial.dice.randrange(3)
            epochs: list[int] = []
            leader = trial.partitions()[quarry]
            for _ in range(chased):
                tree.kill(f"broker-{leader.leader}")
                epochs.append(leader.leader_epoch)
                leader = trial.await_leader(quarry, leader.leader_epoch + 1)
            last = time.monotonic()
            trial.await_in_sync(HEALED_S)
            print(f"partition {quarry}: killed leaders of epochs {epochs}, whole {time.monotonic() - last:.2f} s later")
        trial.judge()
