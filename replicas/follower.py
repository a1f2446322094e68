"""What a follower makes of its leader's answer; pure.

A follower truncates by leader epoch, never by an offset alone, and never below its own high watermark: what lies there
was acknowledged, so a leader that lacks it is a fault to be seen, not to be followed. Source: KIP-101, KIP-595.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicas.log import Log


@dataclass(frozen=True, slots=True)
class Truncate:
    """Drop what the leader does not have."""

    offset: int


@dataclass(frozen=True, slots=True)
class Restart:
    """Begin anew where the leader's log starts: what lies between was deleted there."""

    offset: int


@dataclass(frozen=True, slots=True)
class GoOffline:
    """Stop following: the two logs contradict each other below what was committed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refill:
    """Leave, put the log aside, and copy the leader's from its start: nothing of it is of use, or it can't be read."""

    reason: str


Action = Truncate | Restart | GoOffline | Refill


def on_diverged(
    log: Log, epoch: int, end_offset: int, *, unclean_epoch: int = -1
) -> Truncate | GoOffline | Refill | None:
    """Decide what to do when the leader's log holds records up to `epoch` below `end_offset` alone.

    Args:
        epoch: The greatest leader epoch in the leader's log that is not above our last one. -1, where this log is not
            empty: compaction has left nothing between the leader's start, which is `end_offset`, and our end.
        end_offset: Where the leader's log leaves it.
        unclean_epoch: A log that ends in an earlier leader epoch may have to give up committed records.
    Returns:
        None: nothing to drop, ask again.
    """
    in_hole = epoch < 0 <= log.last_epoch
    offset = end_offset
    if not in_hole:
        own = log.epoch_end(epoch)
        if own is None:
            return Refill(f"damage hides where leader epoch {epoch} ends in this log")
        offset = min(end_offset, own[1])
    if offset >= log.end_offset:
        return None
    if offset < log.high_watermark and log.last_epoch >= unclean_epoch:
        if in_hole:
            return Refill(f"whether this log belongs to the leader's, compacted from {end_offset} on, can't be told")
        return GoOffline(
            f"the leader's log ends epoch {epoch} at {end_offset}, this one has committed records up to "
            f"{log.high_watermark}"
        )
    if offset < log.start_offset:
        return Refill(f"the leader's log ends at {end_offset}, before this one starts at {log.start_offset}")
    return Truncate(offset)


def on_out_of_range(log: Log, leader_start: int) -> Restart | Refill | None:
    """Decide what to do when the leader's log starts behind where this one ends, or does not go on from there."""
    if log.end_offset < leader_start:
        return Restart(leader_start)
    if log.start_offset < log.end_offset:
        return None  # where they part shows itself as a divergence
    return Refill(f"the leader's log does not go on at {log.end_offset}, where this one, which is empty, starts")
