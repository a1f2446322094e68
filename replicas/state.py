"""The agreed state of one partition: who leads under which epoch, who has copies, whose copy may lead."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

NO_LEADER = -1


class PartitionState(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller has committed. Every change raises `partition_epoch`, the version of a compare-and-set.

    Attributes:
        leader: NO_LEADER while nobody may lead.
        leader_epoch: Raised whenever a leader begins, be it the same broker again.
        replicas: Who is to have a copy, the preferred leader first.
        isr: In sync: each holds everything below the high watermark.
        eligible: Left the in-sync set when too few copies were left in it: each still holds everything below the high
            watermark, for that does not move while there are any (KIP-966).
        recovering: Members of `eligible` that came back from an unclean start. Such a log can't be proved whole: it
            leads only if it is the greatest of them.
        adding, removing: The reassignment under way: replicas to be caught up, and to go after that.
        throttle_bytes_per_s: What brokers may send and fetch for those that are added, 0: no bound. It goes with them.
        unclean_epoch: The last leader epoch that began without proof that all that was acknowledged was kept; a log
            that ends in an earlier one may have to give up committed records.
    """

    leader: int
    leader_epoch: int = 0
    partition_epoch: int = 0
    replicas: list[int]
    isr: list[int]
    eligible: list[int] = []
    recovering: list[int] = []
    adding: list[int] = []
    removing: list[int] = []
    unclean_epoch: int = -1
    throttle_bytes_per_s: int = 0

    @property
    def seats(self) -> list[int]:
        """The replicas that may hold everything below the high watermark, in the order of preference."""
        return self.in_order({*self.isr, *self.eligible})

    def needed_in_sync(self, configured: int) -> int:
        """Return how many copies acks=all needs."""
        return needed_in_sync(self.replicas, self.adding, configured)

    def in_order(self, brokers: Iterable[int]) -> list[int]:
        """Return brokers as `replicas` has them."""
        wanted = set(brokers)
        return [broker for broker in self.replicas if broker in wanted]

    def check(self) -> None:
        """Assert what holds of any state."""
        assert len(set(self.replicas)) == len(self.replicas) > 0, "no replicas, or two on one broker"
        assert len(set(self.isr)) == len(self.isr), "twice in the in-sync set"
        assert set(self.isr) <= set(self.replicas), "in sync, but no replica"
        assert set(self.eligible) <= set(self.replicas), "eligible, but no replica"
        assert not set(self.isr) & set(self.eligible), "in sync and eligible"
        assert set(self.recovering) <= set(self.eligible), "recovering, but not eligible"
        assert self.leader == NO_LEADER or self.leader in self.isr, "the leader is outside the in-sync set"
        assert self.leader_epoch >= 0
        assert self.partition_epoch >= 0
        assert set(self.adding) <= set(self.replicas), "adding what is no replica"
        assert set(self.removing) <= set(self.replicas), "removing what is no replica"
        assert not self.throttle_bytes_per_s or self.adding, "a throttle of nothing that is added"


def needed_in_sync(replicas: Collection[int], adding: Collection[int], configured: int) -> int:
    """Return how many copies acks=all needs: min.insync.replicas, or with 0 half of the replicas, rounded up.

    So one of three may be missing, and one of two: with two machines the alternative is to stop at the first death.
    """
    return configured or (len(replicas) - len(adding) + 1) // 2
