"""Move a partition to other brokers: the new replicas catch up first, then the old ones go; pure. Source: KIP-455."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from replicas.election import Electorate, S, settle
from replicas.state import NO_LEADER


def target(state: S) -> list[int]:
    """Return the replicas the partition is to have once the reassignment is over."""
    return [broker for broker in state.replicas if broker not in state.removing]


def begin(state: S, replicas: Sequence[int], electorate: Electorate, *, throttle_bytes_per_s: int = 0) -> S:
    """Start moving to `replicas`, the preferred leader first; what was under way before is given up.

    Args:
        throttle_bytes_per_s: What brokers may send and fetch for new replicas; 0: no bound.
    """
    state = cancel(state, electorate)
    before = set(state.replicas)
    adding = [broker for broker in replicas if broker not in before]
    removing = [broker for broker in state.replicas if broker not in replicas]
    state = msgspec.structs.replace(
        state,
        replicas=[*replicas, *removing],
        adding=adding,
        removing=removing,
        throttle_bytes_per_s=throttle_bytes_per_s if adding else 0,
    )
    return finish(state, electorate)


def cancel(state: S, electorate: Electorate) -> S:
    """Give up the move under way: what was added goes, unless nobody else would be in sync."""
    if not state.adding and not state.removing:
        return state
    stay = [broker for broker in state.replicas if broker not in state.adding]
    if not set(state.isr) & set(stay):
        return state
    return _keep(state, stay, electorate)


def finish(state: S, electorate: Electorate) -> S:
    """End the move if every replica that is to stay is in sync."""
    if not state.adding and not state.removing:
        return state
    stay = target(state)
    if not set(stay) <= set(state.isr):
        return state
    return _keep(state, stay, electorate)


def _keep(state: S, stay: Sequence[int], electorate: Electorate) -> S:
    """Make `stay` the replicas, and one of them the leader."""
    gone = set(state.replicas) - set(stay)
    state = msgspec.structs.replace(
        state,
        leader=NO_LEADER if state.leader in gone else state.leader,
        replicas=list(stay),
        isr=[broker for broker in state.isr if broker not in gone],
        eligible=[broker for broker in state.eligible if broker not in gone],
        recovering=[broker for broker in state.recovering if broker not in gone],
        adding=[],
        removing=[],
        throttle_bytes_per_s=0,
    )
    return settle(state, electorate)[0]
