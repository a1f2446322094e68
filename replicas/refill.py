"""Replicas that give up a role of their own accord; pure.

A leader whose disk is full gives up leading. A replica whose data is damaged gives up its seat, and only then begins
anew. Between the two a leader epoch begins, so that nothing it said of its old log counts for the new one: within one
leader epoch and one broker epoch a follower's end never goes back.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum, auto

from replicas.domains import Domains
from replicas.election import Electorate, S, forfeit, move, settle
from replicas.state import NO_LEADER, PartitionState


class RefillStep(Enum):
    """The next step of a damaged replica."""

    WAIT = auto()  # nobody to refill from: nobody else has a seat, or nobody leads
    LEAVE = auto()  # ask to be without a seat
    BEGIN = auto()  # put the old log aside, and follow from the leader's log start


def next_step(broker: int, state: PartitionState, acted_epoch: int) -> RefillStep:
    """Decide what a damaged replica may do.

    Args:
        acted_epoch: The last leader epoch under which this process led or followed with the damaged log; -1: none.
    """
    if not set(state.seats) - {broker}:
        return RefillStep.WAIT
    if broker in state.seats or state.leader_epoch <= acted_epoch:
        return RefillStep.LEAVE
    return RefillStep.WAIT if state.leader == NO_LEADER else RefillStep.BEGIN


def leave_for_refill(state: S, broker: int, electorate: Electorate) -> S | None:
    """Take every seat from a damaged replica; None while those that hold what was acknowledged are not there.

    One that surely holds it leads. Where all the others come from an unclean start they have their time to catch up,
    for the damage need not be in their way; after that, with all of them there, the greatest of them is to be elected.
    The caller begins a leader epoch, also if the leader is the same.
    """
    left, chosen = settle(forfeit(state, broker), electorate)
    if chosen is not None and chosen.reason not in ("clean", "eligible"):
        return None
    if left.leader != NO_LEADER:
        return left if left.leader in electorate.usable else None
    return left if left.seats and set(left.seats) <= set(electorate.usable) and electorate.patience_over else None


def leave_for_space(state: S, usable: Collection[int], domains: Domains) -> S | None:
    """Have an in-sync replica on another disk lead in place of a leader whose disk is full; None: there is none.

    Args:
        usable: Brokers that can lead, and whose disks have room.
    """
    for broker in state.in_order(state.isr):
        if broker in usable and domains.disk(broker) != domains.disk(state.leader):
            return move(state, broker)
    return None
