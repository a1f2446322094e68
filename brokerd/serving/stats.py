"""What a broker tells of itself: one frozen value, for the monitor and `forebay status`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from brokerd.config import BrokerConfig
from brokerd.groups.group import GroupState
from ingest.latency import Histogram, LatencyRecorder

if TYPE_CHECKING:
    from brokerd.groups.shard import Shard
    from brokerd.serving.quotas import Quota
    from brokerd.serving.requests import RequestHandler
    from brokerd.storage.compaction.cleaner import Cleaner
    from brokerd.storage.directory import LogDirectory
    from brokerd.storage.flusher import Flusher
    from replicas.leader import Leadership

OFFSETS_TOLD_MAX = 20_000  # committed ones: 270 kB of JSON, 4 ms of work


class FollowerStats(msgspec.Struct, frozen=True):
    """One follower as its leader knows it; -1 records: it has not fetched in this epoch."""

    broker_id: int
    lag_records: int
    lag_ms: int


class PartitionStats(msgspec.Struct, frozen=True):
    """One led partition; offsets as Kafka counts them.

    Attributes:
        replicas, in_sync: How many there are.
        is_preferred: The first replica leads.
        enough_in_sync: acks=all can be served.
    """

    topic: str
    partition: int
    leader_epoch: int
    log_start_offset: int
    high_watermark: int
    log_end_offset: int
    flushed_end: int
    size_bytes: int
    segments: int
    replicas: int = 1
    in_sync: int = 1
    is_preferred: bool = True
    enough_in_sync: bool = True
    followers: list[FollowerStats] = []


class GroupStats(msgspec.Struct, frozen=True, array_like=True):
    """One group that is coordinated here.

    Attributes:
        members: How many there are.
        offsets: What it has committed, by topic and partition.
    """

    group: str
    state: str
    members: int
    offsets: dict[str, dict[int, int]]


class CleanerStats(msgspec.Struct, frozen=True):
    """What compaction did since this incarnation began.

    Attributes:
        max_ms: How long the longest run took.
        idle_ms: Since the last run ended well, -1: none has.
    """

    runs_total: int = 0
    failures_total: int = 0
    read_bytes_total: int = 0
    written_bytes_total: int = 0
    records_dropped_total: int = 0
    max_ms: int = 0
    idle_ms: int = -1


class CompactedStats(msgspec.Struct, frozen=True):
    """One replica of a compacted topic, as it was looked at last.

    Attributes:
        dirty_bytes, clean_bytes: Of its sealed segments.
        cleaned_end: Below it each key has one record.
        uncleanable: Why its last run failed; empty: it did not.
    """

    topic: str
    partition: int
    dirty_bytes: int
    clean_bytes: int
    cleaned_end: int
    uncleanable: str = ""

    @property
    def dirty_ratio(self) -> float:
        return self.dirty_bytes / max(1, self.dirty_bytes + self.clean_bytes)


class QuotaStats(msgspec.Struct, frozen=True):
    """What clients with a quota of a kind have used, and how they were throttled.

    Attributes:
        throttle_ms_total: For how long clients were told to send nothing.
        clients: How many are remembered.
    """

    bytes_total: int = 0
    throttled_total: int = 0
    throttle_ms_total: int = 0
    clients: int = 0


class BrokerStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since this incarnation began, and gauges of now.

    Attributes:
        refusal: Why the controller does not register it.
        leaderless: Partitions of the whole cluster that nobody leads, as far as this broker has heard.
        groups: Those it coordinates, as far as there is room.
        groups_untold: How many there was no room for.
        group_members_lost_total: Members that went without their leave, by reason.
    """

    broker_id: int
    broker_epoch: int
    metadata_version: int
    registered: bool
    refusal: str = ""
    directory_id: str
    directory_failed: bool
    disk_full: bool = False  # an adopted broker of an earlier version does not say
    partitions: list[PartitionStats]
    records_in_total: dict[str, int]
    bytes_in_total: dict[str, int]
    bytes_out_total: dict[str, int]
    requests_total: dict[str, int]
    errors_total: dict[str, int]
    request_seconds: dict[str, Histogram]
    flush_seconds: Histogram
    malformed_total: int
    unroutable_total: int
    corrupt_total: int
    torn_bytes_total: int = 0
    damaged_batches_total: int = 0
    lost_offsets_total: int = 0
    unavailable_partitions: int = 0
    leaderless: int = 0
    replicas: int = 0
    replicas_offline: int = 0
    isr_shrinks_total: int = 0
    isr_expands_total: int = 0
    refills_total: int = 0
    cleaner: CleanerStats = CleanerStats()
    compacted: list[CompactedStats] = []
    parked_produces: int
    unsent_bytes: int
    unflushed_bytes: int
    disk_free_bytes: int
    groups: list[GroupStats] = []
    groups_untold: int = 0
    group_rebalances_total: int = 0
    group_members_lost_total: dict[str, int] = {}
    produce_quota: QuotaStats = QuotaStats()
    fetch_quota: QuotaStats = QuotaStats()


def broker_stats(
    config: BrokerConfig,
    directory: LogDirectory,
    handler: RequestHandler,
    flusher: Flusher,
    cleaner: Cleaner,
    *,
    malformed: int,
    unroutable: int,
    unsent_bytes: int,
    latency: dict[str, LatencyRecorder],
) -> BrokerStats:
    """Gather a snapshot. Thread: any; each value read is one that the loop replaces whole."""
    disk = os.statvfs(config.log_dir)
    partitions = []
    unflushed = 0
    now_ms = time.monotonic_ns() // 1_000_000
    for partition in handler.partitions.led():
        log, leadership = partition.log, partition.leadership
        if leadership is None:
            continue
        state = leadership.state
        unflushed += log.unflushed_bytes
        partitions.append(
            PartitionStats(
                partition.topic,
                log.partition,
                log.leader_epoch,
                log.start_offset,
                log.high_watermark,
                log.end_offset,
                log.flushed_end,
                log.size_bytes,
                log.segment_count,
                len(state.replicas),
                len(state.isr),
                state.replicas[0] == config.broker_id,
                leadership.enough_in_sync,
                _followers(leadership, config.broker_id, log.end_offset, now_ms),
            )
        )
    groups, untold = group_stats(handler.groups.shards().values(), handler.groups.topic_names)
    return BrokerStats(
        broker_id=config.broker_id,
        broker_epoch=handler.link.broker_epoch,
        metadata_version=handler.view.version,
        registered=handler.link.registered,
        refusal=handler.link.refusal,
        directory_id=directory.directory_id,
        directory_failed=directory.failed,
        disk_full=directory.disk_full,
        partitions=partitions,
        records_in_total=dict(handler.produce.records_in),
        bytes_in_total=dict(handler.produce.bytes_in),
        bytes_out_total=dict(handler.fetch.bytes_out),
        requests_total=dict(handler.requests),
        errors_total=dict(handler.produce.errors),
        request_seconds={name: h.snapshot() for name, h in latency.items()},
        flush_seconds=flusher.latency.snapshot(),
        malformed_total=malformed,
        unroutable_total=unroutable,
        corrupt_total=handler.fetch.corrupt + handler.followers.corrupt,
        torn_bytes_total=directory.torn_bytes_total,
        damaged_batches_total=directory.damaged_batches_total,
        lost_offsets_total=directory.lost_offsets_total,
        unavailable_partitions=handler.partitions.unavailable,
        leaderless=handler.view.leaderless,
        replicas=len(handler.partitions.all()),
        replicas_offline=handler.partitions.offline,
        isr_shrinks_total=handler.in_sync.shrinks,
        isr_expands_total=handler.in_sync.expands,
        refills_total=handler.partitions.refills,
        cleaner=_cleaner(cleaner, now_ms),
        compacted=_compacted(cleaner, handler),
        parked_produces=handler.produce.parked,
        unsent_bytes=unsent_bytes,
        unflushed_bytes=unflushed,
        disk_free_bytes=disk.f_bavail * disk.f_frsize,
        groups=groups,
        groups_untold=untold,
        group_rebalances_total=handler.groups.counts.rebalances,
        group_members_lost_total=dict(handler.groups.counts.lost),
        produce_quota=_quota(handler.produce.quota),
        fetch_quota=_quota(handler.fetch.quota),
    )


def _quota(quota: Quota) -> QuotaStats:
    return QuotaStats(quota.bytes_total, quota.throttled_total, quota.throttle_ms_total, quota.clients)


def group_stats(
    shards: Iterable[Shard], topic_names: Mapping[bytes, str], *, offsets_max: int = OFFSETS_TOLD_MAX
) -> tuple[list[GroupStats], int]:
    """Return the groups of these shards, each whole, and how many there was no room for. Thread: any.

    What the loop may change meanwhile is copied in one step first.
    """
    told: list[GroupStats] = []
    untold, room = 0, offsets_max
    for shard in shards:
        alone = [name for name in list(shard.offsets.groups()) if name not in shard.groups]
        found = [(group.name, group.state.value, len(group.members)) for group in list(shard.groups.values())]
        found += [(name, GroupState.EMPTY.value, 0) for name in alone]
        for name, state, members in found:
            committed = list(shard.offsets.of(name).items())
            room -= max(1, len(committed))
            if room < 0:
                room += max(1, len(committed))
                untold += 1
                continue
            offsets: dict[str, dict[int, int]] = {}
            for (topic_id, partition), value in committed:
                topic = topic_names.get(topic_id)
                if topic is not None:
                    offsets.setdefault(topic, {})[partition] = value.offset
            told.append(GroupStats(name, state, members, offsets))
    return told, untold


def _cleaner(cleaner: Cleaner, now_ms: int) -> CleanerStats:
    counts = cleaner.counts
    return CleanerStats(
        counts.runs,
        counts.failures,
        counts.read_bytes,
        counts.written_bytes,
        counts.records_dropped,
        counts.max_ms,
        now_ms - cleaner.ended_ms if cleaner.ended_ms >= 0 else -1,
    )


def _compacted(cleaner: Cleaner, handler: RequestHandler) -> list[CompactedStats]:
    found = []
    reasons = cleaner.uncleanable
    for key, dirt in cleaner.dirt.items():
        partition = handler.partitions.hosted(*key)
        if partition is not None:
            found.append(
                CompactedStats(
                    partition.topic,
                    partition.log.partition,
                    dirt.dirty_bytes,
                    dirt.clean_bytes,
                    partition.log.cleaned_end,
                    reasons.get(key, ""),
                )
            )
    return found


def _followers(leadership: Leadership, leader: int, end_offset: int, now_ms: int) -> list[FollowerStats]:
    found = []
    for broker in leadership.state.replicas:
        if broker != leader:
            end = leadership.end_of(broker)
            lag = -1 if end is None else max(0, end_offset - end.appended_end)
            found.append(FollowerStats(broker, lag, leadership.behind_ms(broker, now_ms)))
    return found
