"""Give leadership back to preferred leaders when too many partitions are led by others; pure.

Source: Kafka's auto.leader.rebalance.enable, leader.imbalance.per.broker.percentage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from replicas.election import S


def preferred(state: S) -> int:
    """Return who should lead: the first replica."""
    return state.replicas[0]


def can_return(state: S, usable: Collection[int]) -> bool:
    """Tell whether the preferred leader does not lead and could."""
    leader = preferred(state)
    return state.leader != leader and leader in usable and leader in state.isr


def imbalanced(states: Iterable[S], usable: Collection[int], percentage: int) -> list[S]:
    """Return the partitions to give back: of each broker that lacks more than `percentage` of those it should lead."""
    owed: Counter[int] = Counter()
    lacking: dict[int, list[S]] = {}
    for state in states:
        leader = preferred(state)
        owed[leader] += 1
        if state.leader != leader:
            lacking.setdefault(leader, []).append(state)
    return [
        state
        for broker, lost in lacking.items()
        if len(lost) * 100 > percentage * owed[broker]
        for state in lost
        if can_return(state, usable)
    ]
