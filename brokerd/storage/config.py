"""What one replica is told: the topic configs that a broker heeds, parsed once."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ingest.topic_config import parse_topic_configs


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one log; see ingest.topic_config for what each means.

    Attributes:
        uses_reserve: Where the disk is full appends go on for a while: commits of consumers.
    """

    segment_bytes: int = 1 << 30
    segment_ms: int = 604_800_000
    retention_ms: int = 604_800_000
    retention_bytes: int = -1
    index_interval_bytes: int = 4096
    durability: str = "fsync"
    timestamp_type: str = "CreateTime"
    max_message_bytes: int = 1_048_588
    file_delete_delay_ms: int = 60_000
    cleanup_policy: str = "delete"
    delete_retention_ms: int = 86_400_000
    min_cleanable_dirty_ratio: float = 0.5
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = 2**63 - 1
    min_insync_replicas: int = 0
    timestamp_before_max_ms: int = 2**63 - 1
    timestamp_after_max_ms: int = 2**63 - 1
    producer_id_expiration_ms: int = 86_400_000  # producer.id.expiration.ms, a broker config
    uses_reserve: bool = False

    @property
    def compacts(self) -> bool:
        """Whether the topic keeps the latest value of each key."""
        return "compact" in self.cleanup_policy

    @property
    def deletes(self) -> bool:
        """Whether old segments go by time and size."""
        return "delete" in self.cleanup_policy

    @property
    def roll_ms(self) -> int:
        """The age at which a segment is rolled; what is to be compacted in time has to be sealed before."""
        return min(self.segment_ms, self.max_compaction_lag_ms) if self.compacts else self.segment_ms

    @classmethod
    def from_topic_configs(
        cls,
        configs: Mapping[str, str],
        *,
        producer_id_expiration_ms: int = 86_400_000,
        uses_reserve: bool = False,
    ) -> LogConfig:
        """Parse a topic's configs.

        Raises:
            ConfigError: an unknown key or a value that can't be used.
        """
        values = parse_topic_configs(configs)
        return cls(
            segment_bytes=values["segment.bytes"],
            segment_ms=values["segment.ms"],
            retention_ms=values["retention.ms"],
            retention_bytes=values["retention.bytes"],
            index_interval_bytes=values["index.interval.bytes"],
            durability=values["durability"],
            timestamp_type=values["message.timestamp.type"],
            max_message_bytes=values["max.message.bytes"],
            file_delete_delay_ms=values["file.delete.delay.ms"],
            cleanup_policy=values["cleanup.policy"],
            delete_retention_ms=values["delete.retention.ms"],
            min_cleanable_dirty_ratio=values["min.cleanable.dirty.ratio"],
            min_compaction_lag_ms=values["min.compaction.lag.ms"],
            max_compaction_lag_ms=values["max.compaction.lag.ms"],
            min_insync_replicas=values["min.insync.replicas"],
            timestamp_before_max_ms=values["message.timestamp.before.max.ms"],
            timestamp_after_max_ms=values["message.timestamp.after.max.ms"],
            producer_id_expiration_ms=producer_id_expiration_ms,
            uses_reserve=uses_reserve,
        )
