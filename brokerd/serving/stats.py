"""What a broker tells of itself: one frozen value, for the monitor and `forebay status`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from brokerd.config import BrokerConfig
from ingest.latency import Histogram, LatencyRecorder

if TYPE_CHECKING:
    from brokerd.serving.requests import RequestHandler
    from brokerd.storage.directory import LogDirectory
    from brokerd.storage.flusher import Flusher


class PartitionStats(msgspec.Struct, frozen=True):
    """One led partition; offsets as Kafka counts them."""

    topic: str
    partition: int
    leader_epoch: int
    log_start_offset: int
    high_watermark: int
    log_end_offset: int
    flushed_end: int
    size_bytes: int
    segments: int


class BrokerStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since this incarnation began, and gauges of now."""

    broker_id: int
    broker_epoch: int
    metadata_version: int
    registered: bool
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
    parked_produces: int
    unsent_bytes: int
    unflushed_bytes: int
    disk_free_bytes: int


def broker_stats(
    config: BrokerConfig,
    directory: LogDirectory,
    handler: RequestHandler,
    flusher: Flusher,
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
    for partition in handler.partitions.led():
        log = partition.log
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
            )
        )
    return BrokerStats(
        broker_id=config.broker_id,
        broker_epoch=handler.link.broker_epoch,
        metadata_version=handler.view.version,
        registered=handler.link.registered,
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
        corrupt_total=handler.fetch.corrupt,
        torn_bytes_total=directory.torn_bytes_total,
        damaged_batches_total=directory.damaged_batches_total,
        lost_offsets_total=directory.lost_offsets_total,
        unavailable_partitions=handler.partitions.unavailable,
        parked_produces=handler.produce.parked,
        unsent_bytes=unsent_bytes,
        unflushed_bytes=unflushed,
        disk_free_bytes=disk.f_bavail * disk.f_frsize,
    )
