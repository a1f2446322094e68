"""What groups may do and how long they may take."""

from __future__ import annotations

import msgspec

from ingest.limits import KIB, LIMITS, MIB


class GroupConfig(msgspec.Struct, frozen=True):
    """Bounds of groups; Kafka's `group.…` and `offset…` settings."""

    initial_rebalance_delay_ms: int = 100
    session_timeout_ms_min: int = 6_000
    session_timeout_ms_max: int = 1_800_000
    members_max: int = 1_000  # group.max.size
    groups_max: int = 100_000  # of one partition of the topic: with members, and with offsets
    metadata_chars_max: int = 4_096  # offset.metadata.max.bytes
    group_chars_max: int = 249
    group_bytes_max: int = LIMITS.member_metadata_bytes_max - 4 * KIB  # of its record: one batch of 1 MiB
    held_bytes_max: int = 16 * MIB  # of one partition of the topic: what members say of themselves and are assigned
    texts_bytes_max: int = 16 * MIB  # of one partition of the topic: metadata of committed offsets
    offsets_max: int = 500_000  # of one partition of the topic: some 300 bytes each
    offsets_retention_ms: int = 7 * 24 * 3_600_000  # offsets.retention.minutes; -1: for ever
