"""The leader's view of one partition: how far its followers are, who is in sync, and the high watermark; pure.

The high watermark is the least of what the maximal in-sync set holds: the committed set and all that were proposed
since the last commit, for nobody here knows which of them counts: a proposal may be late, or its answer. It moves only
while the committed set has enough copies and nobody is remembered as eligible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from replicas.domains import Domains
from replicas.state import PartitionState


class ReplicaEnd(msgspec.Struct, frozen=True):
    """How far one replica holds the log: in its page cache, on its disk, and with one record of each key alone."""

    appended_end: int
    flushed_end: int
    cleaned_end: int = 0

    def counted(self, durable: bool) -> int:
        """Return what counts: under durability=fsync what is on the disk."""
        return self.flushed_end if durable else self.appended_end


@dataclass(slots=True)
class _Follower:
    """What one follower said in its fetches of this leader epoch.

    Attributes:
        broker_epoch: Of the incarnation that fetched.
        behind_since_ms: Since when it lacks something, None while it has all.
        fetched_ms, leader_end: When it last fetched, and the leader's end at that time.
    """

    broker_epoch: int
    end: ReplicaEnd
    behind_since_ms: int | None
    fetched_ms: int
    leader_end: int


class Proposal(msgspec.Struct, frozen=True):
    """An in-sync set for the controller to accept: a compare-and-set on both epochs.

    Attributes:
        isr: Broker ids, each with the broker epoch its leader knows it by.
    """

    isr: dict[int, int]
    leader_epoch: int
    partition_epoch: int


class Leadership:
    """One leader epoch of one partition at its leader. Thread: the owner's.

    Attributes:
        confirmed: Whether the controller may be taken to know this leader still. One that is left alone in sync and is
            not confirmed acknowledges nothing: another may have been elected by hand, whom nobody told it of.
    """

    def __init__(
        self,
        broker_id: int,
        state: PartitionState,
        broker_epochs: Mapping[int, int],
        *,
        end_offset: int,
        high_watermark: int,
        min_in_sync: int,
        domains: Domains,
        now_ms: int,
    ) -> None:
        """Begin to lead.

        Args:
            broker_epochs: The registered epochs of all brokers.
            end_offset: Of the log; the epoch starts here.
        """
        assert state.leader == broker_id
        self._broker_id = broker_id
        self._began_ms = now_ms
        self._followers: dict[int, _Follower] = {}
        self._own = ReplicaEnd(end_offset, high_watermark)
        self.confirmed = True
        self.epoch_start = end_offset
        self.high_watermark = high_watermark
        self.leader_epoch = state.leader_epoch
        self.proposed: Proposal | None = None
        self._asked: set[int] = set()  # of all proposals made at the committed partition epoch
        self.state = state
        self.update(state, broker_epochs, min_in_sync=min_in_sync, domains=domains)

    def update(
        self, state: PartitionState, broker_epochs: Mapping[int, int], *, min_in_sync: int, domains: Domains
    ) -> None:
        """Take over what the controller has committed; a proposal under way that it answers is over."""
        assert state.leader_epoch == self.leader_epoch, "another leader epoch is another leadership"
        self._broker_epochs = broker_epochs
        self._min_in_sync = min_in_sync
        self._domains = domains
        if state.partition_epoch > self.state.partition_epoch:
            self.proposed = None
            self._asked.clear()
        self.state = state
        for broker, follower in list(self._followers.items()):
            # what an earlier incarnation held may be more than the present one came back with (KIP-903)
            if broker not in state.replicas or broker_epochs.get(broker) != follower.broker_epoch:
                del self._followers[broker]

    @property
    def copies(self) -> int:
        """How many copies are in sync."""
        return self._domains.copies(self.state.isr, self.state.replicas)

    @property
    def enough_in_sync(self) -> bool:
        """Whether acks=all can be served."""
        alone = len(self.state.replicas) > 1 and self._maximal() == {self._broker_id}
        return (self.confirmed or not alone) and self.copies >= self.state.needed_in_sync(self._min_in_sync)

    def own(self, end: ReplicaEnd, *, durable: bool, now_ms: int) -> int:
        """Note how far the leader's log is; return the high watermark."""
        if end.appended_end > self._own.appended_end:
            for follower in self._followers.values():
                if follower.behind_since_ms is None:
                    follower.behind_since_ms = now_ms
        self._own = end
        return self._advance(durable)

    def fetched(self, broker: int, broker_epoch: int, end: ReplicaEnd, *, durable: bool, now_ms: int) -> int:
        """Note a follower's fetch, made in this leader epoch; return the high watermark."""
        assert end.appended_end <= self._own.appended_end, "a follower that is ahead diverges"
        if broker not in self.state.replicas or self._broker_epochs.get(broker) != broker_epoch:
            return self.high_watermark
        before = self._followers.get(broker)
        if end.appended_end >= self._own.appended_end:
            behind = None
        elif before is None:
            behind = self._began_ms
        elif before.behind_since_ms is not None and end.appended_end >= before.leader_end:
            behind = max(before.behind_since_ms, before.fetched_ms)  # it has all that there was when it last asked
        else:
            behind = before.behind_since_ms if before.behind_since_ms is not None else now_ms
        self._followers[broker] = _Follower(broker_epoch, end, behind, now_ms, self._own.appended_end)
        return self._advance(durable)

    def _advance(self, durable: bool) -> int:
        if self.enough_in_sync and not self.state.eligible:
            ends = [self._counted(broker, durable) for broker in self._maximal()]
            self.high_watermark = max(self.high_watermark, min(ends))
        return self.high_watermark

    def counts(self, broker: int) -> bool:
        """Whether the high watermark waits for a replica: it is in sync, or proposed."""
        return broker in self._maximal()

    def _maximal(self) -> set[int]:
        return {*self.state.isr, *self._asked}

    def _counted(self, broker: int, durable: bool) -> int:
        if broker == self._broker_id:
            return self._own.counted(durable)
        follower = self._followers.get(broker)
        return -1 if follower is None else follower.end.counted(durable)

    def end_of(self, broker: int) -> ReplicaEnd | None:
        """Return how far a follower is, None if it has not fetched in this epoch."""
        follower = self._followers.get(broker)
        return None if follower is None else follower.end

    def cleaned_by_all(self) -> int:
        """Return below which offset every assigned replica is known to hold one record of each key.

        A tombstone below deletes nothing any more: no replica is left that has an older value of its key, and none will
        get one. 0 as long as one has not fetched in this epoch. Source: docs/concepts/compaction.md.
        """
        ends = []
        for broker in self.state.replicas:
            end = self._own if broker == self._broker_id else self.end_of(broker)
            ends.append(0 if end is None else end.cleaned_end)
        return min(ends)

    def behind_ms(self, broker: int, now_ms: int) -> int:
        """Return for how long a follower has lacked something."""
        follower = self._followers.get(broker)
        since = self._began_ms if follower is None else follower.behind_since_ms
        return 0 if since is None else now_ms - since

    @property
    def settled(self) -> bool:
        """Whether time alone changes nothing: no proposal is under way, and no member of the set lacks anything."""
        return self.proposed is None and all(
            broker == self._broker_id
            or ((follower := self._followers.get(broker)) is not None and follower.behind_since_ms is None)
            for broker in self.state.isr
        )

    def propose(self, *, durable: bool, lag_max_ms: int, now_ms: int) -> Proposal | None:
        """Return the in-sync set to ask for, None if it is as it should be or a proposal is under way.

        One that was refused is followed by another, be it for the set there is, so that it can't be accepted later.

        Args:
            lag_max_ms: replica.lag.time.max.ms.
        """
        if self.proposed is not None:
            return None
        keep = [b for b in self.state.isr if b == self._broker_id or self.behind_ms(b, now_ms) <= lag_max_ms]
        # one that fell silent at the mark would seem caught up for ever: what was proposed counts, and the mark stays
        joining = [
            b
            for b in self.state.replicas
            if b not in self.state.isr and self._caught_up(b, durable) and self.behind_ms(b, now_ms) <= lag_max_ms
        ]
        isr = [*keep, *joining]
        if set(isr) == set(self.state.isr) and self._asked <= set(isr):
            return None
        self._asked |= set(isr)
        epochs = {broker: self._broker_epochs.get(broker, -1) for broker in isr}
        self.proposed = Proposal(epochs, self.leader_epoch, self.state.partition_epoch)
        return self.proposed

    def _caught_up(self, broker: int, durable: bool) -> bool:
        follower = self._followers.get(broker)
        if follower is None:
            return False
        counted = follower.end.counted(durable)
        return counted >= self.high_watermark and counted >= self.epoch_start

    def refused(self, proposal: Proposal) -> None:
        """The controller did not accept a proposal: another may be made. What it held still counts."""
        if self.proposed == proposal:
            self.proposed = None
