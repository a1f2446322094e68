"""Which broker is killed when, and how long until its partitions were read from again. Pure: the dice are given."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec

FIRST_S = 2.0
EVERY_S = (2.5, 4.0)  # a broker that has served for 2 s is restarted at once: the supervisor's settled_ms


class Kill(msgspec.Struct):
    """One SIGKILL.

    Attributes:
        epochs: Of the broker's partitions at that time.
        recovered_s: Until a record written under a newer epoch was read back; None: not yet.
    """

    broker: str
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
        self.kills: list[Kill] = []

    def choose(self, brokers: Mapping[str, int], now_s: float) -> str | None:
        """Return the broker to kill now, None for none.

        Args:
            brokers: Those that serve, with their pids.
        """
        if now_s < self._next_s or now_s > self._ends_s or not brokers:
            return None
        if any(kill.recovered_s is None and now_s - kill.at_s < 10 for kill in self.kills):
            return None
        self._next_s = now_s + self._dice.uniform(*EVERY_S)
        return self._dice.choice(sorted(brokers))

    def killed(self, broker: str, pid: int, partitions: Sequence[int], now_s: float) -> None:
        """Note a kill of the leader of these partitions."""
        self.kills.append(Kill(broker, pid, now_s, {p: self._epochs.get(p, -1) for p in partitions}))

    def read(self, partition: int, leader_epoch: int, now_s: float) -> None:
        """Note a batch that was read."""
        if leader_epoch <= self._epochs.get(partition, -1):
            return
        self._epochs[partition] = leader_epoch
        for kill in self.kills:
            if kill.recovered_s is None and leader_epoch > kill.epochs.get(partition, leader_epoch):
                kill.recovered_s = now_s - kill.at_s

    @property
    def survived(self) -> int:
        return sum(kill.recovered_s is not None for kill in self.kills)
