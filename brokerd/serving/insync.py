"""Keep the in-sync sets of what is led here as they should be: gather proposals, send them, hear the outcome."""

from __future__ import annotations

from collections.abc import Iterable

from brokerd.serving.partition import Partition
from ingest.wire.messages import AlterPartition, AlterPartitionResponse, InSyncReplica
from replicas.leader import Proposal

CHECK_MS = 500  # how often partitions are looked at whose followers lack something
REFUSED_RETRY_MS = 200
BATCH_MAX = 2000  # partitions in one request: some 100 KB

Key = tuple[bytes, int]


class InSyncSets:
    """Proposals under way. Thread: the broker loop.

    Attributes:
        lag_max_ms: replica.lag.time.max.ms.
        shrinks, expands: How many proposals were sent that take a replica out, or in.
    """

    def __init__(self, lag_max_ms: int) -> None:
        self.lag_max_ms = lag_max_ms
        self._proposals: dict[Key, tuple[Partition, Proposal]] = {}
        self._sent: dict[Key, Proposal] = {}
        self._watched: dict[Partition, None] = {}  # whose set may have to change though nothing comes
        self._check_at_ms = 0
        self._retry_at_ms = 0
        self.shrinks = self.expands = 0

    def watch(self, partitions: Iterable[Partition]) -> None:
        """Look at these with the next check; those that are settled then are let go, until they are named again."""
        self._watched.update(dict.fromkeys(partitions))

    def look(self, partitions: Iterable[Partition], now_ms: int) -> None:
        """Ask partitions whether their in-sync set should be another."""
        if now_ms < self._retry_at_ms:
            self.watch(partitions)
            return
        for partition in partitions:
            leadership = partition.leadership
            if leadership is None:
                self._watched.pop(partition, None)
                continue
            proposal = leadership.propose(durable=partition.durable, lag_max_ms=self.lag_max_ms, now_ms=now_ms)
            if proposal is not None:
                self.shrinks += not set(leadership.state.isr) <= set(proposal.isr)
                self.expands += not set(proposal.isr) <= set(leadership.state.isr)
                self._proposals[partition.key] = (partition, proposal)
            if leadership.settled:
                self._watched.pop(partition, None)
            else:
                self._watched[partition] = None

    def check(self, now_ms: int) -> None:
        """Look now and then at what is watched. Cost: by the partitions with a follower that lacks something."""
        if now_ms >= self._check_at_ms:
            self._check_at_ms = now_ms + min(CHECK_MS, max(50, self.lag_max_ms // 4))
            self.look(list(self._watched), now_ms)

    def next_ms(self) -> int:
        return self._check_at_ms

    def take(self, now_ms: int) -> list[AlterPartition]:
        """Return what to ask for now: what is still wanted, also if it was asked for before and nobody answered."""
        if now_ms < self._retry_at_ms:
            return []
        self._proposals = {key: (p, proposal) for key, (p, proposal) in self._proposals.items() if _stands(p, proposal)}
        self._sent = {key: proposal for key, (_, proposal) in list(self._proposals.items())[:BATCH_MAX]}
        return [
            AlterPartition(
                *key,
                proposal.leader_epoch,
                proposal.partition_epoch,
                [InSyncReplica(broker, epoch) for broker, epoch in proposal.isr.items()],
            )
            for key, proposal in self._sent.items()
        ]

    def answered(self, response: AlterPartitionResponse | None, now_ms: int) -> None:
        """Take the outcome; what was accepted comes as metadata, what nobody answered is asked again."""
        if response is None:
            self._retry_at_ms = now_ms + REFUSED_RETRY_MS
            return
        for result in response.partitions:
            key = (result.topic_id, result.partition)
            partition, proposal = self._proposals.get(key, (None, None))
            if partition is None or proposal is None or self._sent.get(key) != proposal:
                continue  # metadata has overtaken the answer, and something else is wanted by now
            del self._proposals[key]
            if result.error_code and partition.leadership is not None:
                partition.leadership.refused(proposal)
                self._retry_at_ms = now_ms + REFUSED_RETRY_MS


def _stands(partition: Partition, proposal: Proposal) -> bool:
    return partition.leadership is not None and partition.leadership.proposed == proposal
