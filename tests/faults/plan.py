"""What a nemesis does and when: drawn from a seed alone, so that a run that failed can be run again. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple


class Step(NamedTuple):
    """One misfortune.

    Attributes:
        wait_s: After the last one; some meet what has not healed.
        kind: One of KINDS.
        target: A process, or whose role it is: "leader" and "follower" of the partition, "controller".
        partition: Of the topic.
        length_s: How long somebody stands still; on both sides of the session time.
        brokers: All of them in an order: the first is meant, or the first few get the replicas.
    """

    wait_s: float
    kind: str
    target: str
    partition: int
    length_s: float
    brokers: tuple[int, ...]

    def __str__(self) -> str:
        order = "".join(map(str, self.brokers))
        return f"{self.kind}: {self.target}, partition {self.partition}, {self.length_s:.1f} s, brokers {order}"


TARGETS = ("leader", "leader", "follower", "controller", "mqtt", "zygote", "monitor")
KINDS = {  # how often, one beside the other
    "kill": 8,
    "kill two": 2,  # the target, and with it a leader
    "pause": 4,
    "pause and kill": 4,  # what stood still dies while others take its place
    "kill the successor": 2,  # of a leader that stands still
    "kill the supervisor": 2,
    "kill everything": 1,
    "move": 4,
    "move and kill": 4,
    "drain": 2,
    "prefer leaders": 3,
    "restart in order": 2,
    "empty a directory": 1,
    "delete indexes": 2,
    "fill a disk": 3,  # until the next healing, or the next start of everything
    "fail a disk": 2,  # likewise; the first broker's
    "heal": 6,  # wait until all is whole
}


def steps(seed: int, partitions: int, brokers: int) -> Iterator[Step]:
    """Return misfortunes without end."""
    dice = random.Random(seed)
    while True:
        yield Step(
            wait_s=dice.choice((0.0, 0.05, 0.3, 1.0)) * dice.random(),
            kind=dice.choices(list(KINDS), list(KINDS.values()))[0],
            target=dice.choice(TARGETS),
            partition=dice.randrange(partitions),
            length_s=dice.choice((0.3, 1.0, 3.0, 4.5)) * dice.uniform(0.8, 1.2),
            brokers=tuple(dice.sample(range(1, brokers + 1), brokers)),
        )
