"""Which process is killed when, and how long until it was made good. Pure: the dice are given."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec

FIRST_S = 2.0
EVERY_S = (2.5, 4.0)  # a process that has served for 2 s is restarted at once: the supervisor's settled_ms
LEADER, FOLLOWER, CONTROLLER, GATEWAY = "leader", "follower", "controller", "gateway"
KINDS = (LEADER, FOLLOWER, CONTROLLER, GATEWAY)


class Kill(msgspec.Struct):
    """One SIGKILL.

    Attributes:
        process: Its name, or that of its role where another takes its place.
        epochs: Of the partitions that it led at that time.
        recovered_s: Until a record written under a newer epoch was read back, or, where nothing was led, until there
            was another process in its place; None: not yet.
    """

    kind: str
    process: str
    pid: int
    at_s: float
    epochs: dict[int, int]
    recovered_s: float | None = None


class Chaos:
    """Decide on kills and follow them.

    Args:
        ends_s: No kill after that: there must be time to see that it recovers.
    """

    def __init__(self, dice: random.Random, ends_s: float) -> None:
        self._dice = dice
        self._ends_s = ends_s
        self._next_s = FIRST_S
        self._epochs: dict[int, int] = {}
        self._kinds = [LEADER]  # the first; after that each kind has its turn, in any order
        self.kills: list[Kill] = []

    def is_due(self, now_s: float) -> bool:
        """Tell whether it is time for a kill; they come one at a time."""
        return self._next_s <= now_s <= self._ends_s and not any(
            kill.recovered_s is None and now_s - kill.at_s < 10 for kill in self.kills
        )

    def choose(self, candidates: Mapping[str, Sequence[str]], now_s: float) -> tuple[str, str] | None:
        """Return the kind and the name of the process to kill now, None for none.

        Args:
            candidates: Names of those that serve, by kind.
        """
        if not any(candidates.values()):
            return None
        while not candidates.get(kind := self._next_kind()):
            pass
        self._next_s = now_s + self._dice.uniform(*EVERY_S)
        return kind, self._dice.choice(sorted(candidates[kind]))

    def _next_kind(self) -> str:
        if not self._kinds:
            self._kinds = self._dice.sample(KINDS, len(KINDS))
        return self._kinds.pop()

    def killed(self, kind: str, process: str, pid: int, epochs: dict[int, int], now_s: float) -> None:
        """Note a kill; `epochs` are those of the partitions that it led."""
        self.kills.append(Kill(kind, process, pid, now_s, epochs))

    def read(self, partition: int, leader_epoch: int, now_s: float) -> None:
        """Note a batch that was read."""
        if leader_epoch <= self._epochs.get(partition, -1):
            return
        self._epochs[partition] = leader_epoch
        for kill in self.kills:
            if kill.recovered_s is None and leader_epoch > kill.epochs.get(partition, leader_epoch):
                kill.recovered_s = now_s - kill.at_s

    def serve(self, pids: Mapping[str, int], now_s: float) -> None:
        """Note which processes serve."""
        for kill in self.kills:
            if kill.recovered_s is None and not kill.epochs and pids.get(kill.process, kill.pid) != kill.pid:
                kill.recovered_s = now_s - kill.at_s
