"""Partition states and electorates, written short."""

from __future__ import annotations

from typing import Any

from replicas.domains import Domains, Place
from replicas.election import Electorate
from replicas.state import NO_LEADER, PartitionState


def state(
    leader: int = 1, replicas: tuple[int, ...] = (1, 2, 3), isr: tuple[int, ...] | None = None, **more: Any
) -> PartitionState:
    """Return a state, by default with everyone in sync."""
    made = PartitionState(leader=leader, replicas=list(replicas), isr=list(replicas if isr is None else isr), **more)
    made.check()
    return made


def leaderless(**more: Any) -> PartitionState:
    return state(NO_LEADER, isr=(), **more)


def electorate(*usable: int, **more: Any) -> Electorate:
    return Electorate(frozenset(usable), **more)


def machines(*groups: tuple[int, ...]) -> Domains:
    """Return domains in which each group of brokers is a machine, with a disk for each broker."""
    return Domains({b: Place(f"m{index}", b) for index, group in enumerate(groups) for b in group})
