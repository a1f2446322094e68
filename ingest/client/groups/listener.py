"""What a caller may do when its group gives partitions to it or takes them away."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.client.positions import TopicPartition


class RebalanceListener:
    """Override what is of interest. Called from within `poll` and `close`, on the caller's thread.

    The consumer may be used in it: commit in `on_partitions_revoked`, seek in `on_partitions_assigned`.
    """

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """These come in addition; nothing of them has been read yet."""

    def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """These go to others once this returns; what was done with their records can still be committed."""

    def on_partitions_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """These are others' already: the member was taken for gone. Nothing can be committed any more."""
        self.on_partitions_revoked(partitions)
