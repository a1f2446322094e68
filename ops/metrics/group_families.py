"""Metrics of consumer groups, under kafka_exporter's names; what it can't know as `forebay_…`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from ops.metrics.families import Sample, counter, gauge, sums
from ops.metrics.view import View

_PARTITION = ["consumergroup", "topic", "partition"]
_TOPIC = ["consumergroup", "topic"]


def group_families(view: View) -> Iterator[Metric]:
    """Yield what is known of the groups that this machine's brokers coordinate."""
    seen = view.groups
    at = [([group.group, item.topic, str(item.partition)], item) for group in seen.groups for item in group.partitions]
    offsets: list[Sample] = [(where, item.offset) for where, item in at]
    records: list[Sample] = [(where, item.lag_records) for where, item in at if item.lag_records is not None]
    yield gauge("kafka_consumergroup_current_offset", "Committed: the next record to read.", _PARTITION, offsets)
    yield gauge(
        "kafka_consumergroup_lag",
        "Offsets below the high watermark that the group has not read: records, but for what compaction took out.",
        _PARTITION,
        records,
    )
    text = "What is committed, over all partitions of a topic."
    yield gauge("kafka_consumergroup_current_offset_sum", text, _TOPIC, _by_topic(offsets))
    yield gauge("kafka_consumergroup_lag_sum", "Lag over all partitions of a topic.", _TOPIC, _by_topic(records))
    yield gauge(
        "kafka_consumergroup_members",
        "Members of a group.",
        ["consumergroup"],
        [([group.group], group.members) for group in seen.groups],
    )
    yield gauge(
        "forebay_consumer_lag_seconds",
        "For how long the oldest record that the group has not read has been in the log.",
        _PARTITION,
        [(where, item.lag_seconds) for where, item in at if item.lag_seconds is not None],
    )
    yield gauge(
        "forebay_consumer_lag_bytes",
        "Bytes of the stored batches that hold records the group has not read.",
        _PARTITION,
        [(where, item.lag_bytes) for where, item in at if item.lag_bytes is not None],
    )
    yield gauge("forebay_consumergroups_without_metrics", "Groups beyond the cap on labels.", [], [([], seen.left_out)])
    yield counter("forebay_consumergroup_rebalances", "Rebalances begun.", ["broker"], sums(view, "rebalances"))
    yield counter(
        "forebay_consumergroup_members_lost",
        "Members that groups gave up: their process ended, or they were not heard in time.",
        ["reason"],
        sums(view, "members_lost"),
    )


def _by_topic(samples: list[Sample]) -> list[Sample]:
    found: dict[tuple[str, str], float] = {}
    for (group, topic, _), value in samples:
        found[group, topic] = found.get((group, topic), 0) + value
    return [([group, topic], value) for (group, topic), value in found.items()]
