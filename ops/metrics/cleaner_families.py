"""Metrics of compaction, under the names of Kafka's LogCleaner where it has one. Pure: a view in, families out."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from brokerd.serving.stats import BrokerStats, CompactedStats
from ops.metrics.families import Sample, counter, gauge, sums
from ops.metrics.view import View

_COUNTERS = (
    ("runs", "Compaction runs that ended well."),
    ("failures", "Compaction runs that failed; their logs are tried again later."),
    ("read_bytes", "Bytes read by compaction."),
    ("written_bytes", "Bytes written by compaction."),
    ("records_dropped", "Records that compaction has dropped."),
)


def cleaner_families(view: View) -> Iterator[Metric]:
    """Yield what is known of compaction, by broker and by replica of a compacted topic."""
    label = ["broker"]
    brokers = [([str(broker.broker_id)], broker) for broker in view.brokers.values()]
    for name, text in _COUNTERS:
        yield counter(f"forebay_log_cleaner_{name}", text, label, sums(view, f"cleaner_{name}"))
    yield gauge(
        "kafka_log_logcleanermanager_max_dirty_percent",
        "How much of the dirtiest compacted log is not compacted.",
        label,
        [(where, 100 * max((one.dirty_ratio for one in broker.compacted), default=0.0)) for where, broker in brokers],
    )
    yield gauge(
        "kafka_log_logcleanermanager_uncleanable_partitions_count",
        "Replicas whose last compaction run failed.",
        label,
        [(where, len(_uncleanable(broker))) for where, broker in brokers],
    )
    yield gauge(
        "kafka_log_logcleanermanager_uncleanable_bytes",
        "Bytes of them that are not compacted.",
        label,
        [(where, sum(one.dirty_bytes for one in _uncleanable(broker))) for where, broker in brokers],
    )
    yield gauge(
        "kafka_log_logcleanermanager_time_since_last_run_ms",
        "Since a compaction run ended well; -1: none has.",
        label,
        [(where, broker.cleaner.idle_ms) for where, broker in brokers],
    )
    yield gauge(
        "kafka_log_logcleaner_max_clean_time_secs",
        "Duration of the longest compaction run.",
        label,
        [(where, broker.cleaner.max_ms / 1000) for where, broker in brokers],
    )
    yield gauge(
        "kafka_log_logcleaner_cleaner_recopy_percent",
        "What part of the bytes read was written again.",
        label,
        [(where, _recopied(broker)) for where, broker in brokers],
    )
    shown = set(view.topics)
    at: list[tuple[list[str], CompactedStats]] = [
        ([one.topic, str(one.partition), str(broker.broker_id)], one)
        for _, broker in brokers
        for one in broker.compacted
        if one.topic in shown
    ]
    labels = ["topic", "partition", "broker"]
    dirty: list[Sample] = [(where, one.dirty_bytes) for where, one in at]
    yield gauge("forebay_log_cleaner_dirty_bytes", "Bytes of sealed segments not compacted.", labels, dirty)
    ratios: list[Sample] = [(where, one.dirty_ratio) for where, one in at]
    yield gauge("forebay_log_cleaner_dirty_ratio", "What part of sealed segments is not compacted.", labels, ratios)


def _uncleanable(broker: BrokerStats) -> list[CompactedStats]:
    return [one for one in broker.compacted if one.uncleanable]


def _recopied(broker: BrokerStats) -> float:
    return 100 * broker.cleaner.written_bytes_total / max(1, broker.cleaner.read_bytes_total)
