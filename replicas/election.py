"""Who leads a partition, and who may: deaths, returns and elections, one partition at a time; pure.

A leader moves the high watermark only while no replica is remembered as eligible. So whoever is put among the eligible
in the commit that takes it out of the in-sync set holds everything below the high watermark, and goes on doing so
until the commit that clears them. Source: KIP-966, and docs/concepts/replication.md for what differs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from replicas.domains import Domains
from replicas.state import NO_LEADER, PartitionState


@dataclass(frozen=True, slots=True)
class Electorate:
    """What an election is decided from.

    Attributes:
        usable: Brokers that live, that this controller has heard, and that do not shut down.
        expected: Brokers that live as far as the store knows; this controller has not heard them yet.
        min_in_sync: min.insync.replicas of the topic; see `PartitionState.needed_in_sync`.
        patience_over: Those that are missing had their time to come back.
        unclean: Electing a replica that may lack acknowledged records is allowed.
        ends: (last leader epoch, end offset) of the replicas, as far as they have said since nobody leads.
    """

    usable: Collection[int]
    expected: Collection[int] = ()
    min_in_sync: int = 0
    domains: Domains = field(default_factory=Domains)
    patience_over: bool = False
    unclean: bool = False
    ends: dict[int, tuple[int, int]] = field(default_factory=dict)

    def enough(self, state: PartitionState, brokers: Collection[int]) -> bool:
        """Tell whether these are as many copies as acks=all needs."""
        return self.domains.copies(brokers, state.replicas) >= state.needed_in_sync(self.min_in_sync)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who leads from now on.

    Attributes:
        reason: clean, eligible, greatest (the longest log after an unclean start of all) or unclean (what others had
            acknowledged may be gone).
    """

    broker: int
    reason: str


S = TypeVar("S", bound=PartitionState)


def leave(state: S, gone: Collection[int]) -> S:
    """Take brokers that died out of the in-sync set; they stay eligible until `settle` says otherwise."""
    left = [broker for broker in state.isr if broker in gone]
    if not left and state.leader not in gone:
        return state
    return msgspec.structs.replace(
        state,
        leader=NO_LEADER if state.leader in gone else state.leader,
        isr=[broker for broker in state.isr if broker not in gone],
        eligible=state.in_order({*state.eligible, *left}),
    )


def forfeit(state: S, broker: int) -> S:
    """Take every seat from a replica whose copy is gone or known to be damaged."""
    if broker not in state.isr and broker not in state.eligible:
        return state
    return msgspec.structs.replace(
        state,
        leader=NO_LEADER if state.leader == broker else state.leader,
        isr=[other for other in state.isr if other != broker],
        eligible=[other for other in state.eligible if other != broker],
        recovering=[other for other in state.recovering if other != broker],
    )


def come_back(state: S, broker: int, *, intact: bool) -> S:
    """Take note of a new incarnation of a replica: it is out of sync until it has caught up.

    Args:
        intact: Nothing it had written is lost: it was stopped in good order, or only its process died.
    """
    state = leave(state, {broker})
    if broker not in state.eligible or intact or broker in state.recovering:
        return state
    return msgspec.structs.replace(state, recovering=[*state.recovering, broker])


def settle(state: S, electorate: Electorate) -> tuple[S, Chosen | None]:
    """Return the state as it should be with these brokers there, and the leader elected for it, if there was one.

    Epochs are not touched; see `commit`.
    """
    chosen = None
    if state.leader not in electorate.usable:
        if state.leader != NO_LEADER and state.leader in electorate.expected:
            return state, None  # it has the session time to be heard
        chosen = choose(state, electorate)
        if chosen is None:
            return state, None
        state = _lead(state, chosen)
    if state.eligible and electorate.enough(state, state.isr):
        state = msgspec.structs.replace(state, eligible=[], recovering=[])
    return state, chosen


def choose(state: PartitionState, electorate: Electorate) -> Chosen | None:
    """Return who can lead, None for nobody yet."""
    usable, seats = electorate.usable, state.seats
    for pool, reason in ((state.isr, "clean"), (state.eligible, "eligible")):
        for broker in state.in_order(pool):
            if broker in usable and broker not in state.recovering:
                return Chosen(broker, reason)
    ends = electorate.ends
    there = [broker for broker in seats if broker in usable and broker in ends]
    enough = len(there) == len(seats) or (electorate.patience_over and electorate.enough(state, there))
    if there and enough and not any(broker in electorate.expected for broker in seats):
        return Chosen(max(there, key=lambda broker: ends[broker]), "greatest")
    others = [broker for broker in state.replicas if broker in usable and broker in ends]
    if others and (electorate.unclean or (not seats and len(others) == len(state.replicas))):
        return Chosen(max(others, key=lambda broker: ends[broker]), "unclean")
    return None


def _lead(state: S, chosen: Chosen) -> S:
    if chosen.reason == "clean":
        return msgspec.structs.replace(state, leader=chosen.broker)
    return msgspec.structs.replace(
        state,
        leader=chosen.broker,
        isr=[chosen.broker],
        eligible=state.in_order(set(state.seats) - {chosen.broker}),
        recovering=[broker for broker in state.recovering if broker != chosen.broker],
    )


def commit(before: S, after: S, chosen: Chosen | None = None, *, epoch_min: int = 0, forced: bool = False) -> S:
    """Return `after` with its epochs raised over `before`, as far as anything changed.

    Args:
        after: May have a higher leader epoch that some log holds, while nobody leads.
        chosen: Who was elected: then a leadership begins, though the leader may be the same broker.
        epoch_min: What a new leader epoch must be at least: above what any log holds.
        forced: Raise the partition epoch even if nothing changed.
    """
    # One that has gone deletes its log and may come back empty before the leader hears of either: under another epoch
    # what it said of the old log counts for nothing.
    someone_went = not set(before.replicas) <= set(after.replicas)
    other = after.leader != before.leader or someone_went
    began = chosen is not None or (other and after.leader != NO_LEADER)
    if not began and not forced and after == before:
        return before
    epoch = max(after.leader_epoch + 1, epoch_min) if began else after.leader_epoch
    lossy = chosen is not None and chosen.reason in ("greatest", "unclean")
    return msgspec.structs.replace(
        after,
        leader_epoch=epoch,
        partition_epoch=before.partition_epoch + 1,
        unclean_epoch=epoch if lossy else before.unclean_epoch,
    )


def move(state: S, broker: int) -> S:
    """Have another in-sync replica lead."""
    assert broker in state.isr, "a leader comes from the in-sync set"
    return msgspec.structs.replace(state, leader=broker)


def alter(state: S, isr: list[int], electorate: Electorate) -> S:
    """Take over the in-sync set that the leader proposes; those that leave it stay eligible if too few are left."""
    assert state.leader in isr, "a leader is in sync with itself"
    left = [broker for broker in state.isr if broker not in isr]
    altered = msgspec.structs.replace(
        state,
        isr=state.in_order(isr),
        eligible=state.in_order({*state.eligible, *left} - set(isr)),
        recovering=[broker for broker in state.recovering if broker not in isr],
    )
    return settle(altered, electorate)[0]
