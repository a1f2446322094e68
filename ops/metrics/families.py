"""Metrics under the names that dashboards for Kafka expect, and our own as `forebay_…`. Pure: a view in, families out.

Names follow kafka_exporter (`kafka_topic_partition_…`) and Kafka's JMX beans as the Prometheus JMX exporter writes them
(`kafka_server_…`, `kafka_log_log_…`, `kafka_network_…`). Units are base units, counters end in `_total`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ingest.latency import BOUNDS_SECONDS
from ops.metrics.recent import quantile_seconds
from ops.metrics.view import View, buckets, labels_of

QUANTILES = (0.5, 0.75, 0.95, 0.99, 0.999)  # those of Kafka's own histograms

Sample = tuple[list[str], float]


def gauge(name: str, text: str, labels: list[str], samples: Iterable[Sample]) -> Metric:
    """Build a gauge."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def counter(name: str, text: str, labels: list[str], samples: Iterable[Sample]) -> Metric:
    """Build a counter; `_total` is added to its name."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def sums(view: View, name: str) -> list[Sample]:
    """Return what all processes counted under one name, by its label."""
    return [([key[1]], value) for key, value in sorted(view.sums.items()) if key[0] == name]


def histogram(view: View, name: str, text: str, source: str, label: str = "") -> Metric:
    """Build a histogram of durations from counted buckets."""
    family = HistogramMetricFamily(name, text, labels=[label] if label else [])
    for value in labels_of(view.sums, source):
        counts, total_seconds = buckets(view.sums, source, value)
        cumulative, running = [], 0
        for bound, count in zip([*map(str, BOUNDS_SECONDS), "+Inf"], counts, strict=True):
            running += count
            cumulative.append((bound, float(running)))
        family.add_metric([value] if label else [], cumulative, total_seconds)
    return family


def topic_families(view: View) -> Iterator[Metric]:
    """Yield what is known of topics and their partitions, from those who lead them."""
    partitions = view.partitions
    at = [([led.stats.topic, str(led.stats.partition)], led) for led in partitions]
    labels = ["topic", "partition"]
    counts = dict.fromkeys(view.topics, 0)
    for led in partitions:
        counts[led.stats.topic] += 1
    led_topics = [([topic], float(count)) for topic, count in counts.items() if count]
    leaders = [(where, float(view.brokers[led.broker].broker_id)) for where, led in at]

    yield gauge("kafka_topic_partitions", "Partitions of a topic.", ["topic"], led_topics)
    yield gauge(
        "kafka_topic_partition_current_offset",
        "High watermark: the offset after the newest record readers may see.",
        labels,
        [(where, led.stats.high_watermark) for where, led in at],
    )
    yield gauge(
        "kafka_topic_partition_oldest_offset",
        "Offset of the oldest record.",
        labels,
        [(where, led.stats.log_start_offset) for where, led in at],
    )
    yield gauge("kafka_topic_partition_leader", "Id of the broker that leads.", labels, leaders)
    preferred = [(where, float(led.stats.is_preferred)) for where, led in at]
    under = [(where, float(led.stats.in_sync < led.stats.replicas)) for where, led in at]
    too_few = [(where, float(not led.stats.enough_in_sync)) for where, led in at]
    yield gauge("kafka_topic_partition_leader_is_preferred", "1 where the first replica leads.", labels, preferred)
    yield gauge(
        "kafka_topic_partition_replicas",
        "Replicas of a partition.",
        labels,
        [(where, led.stats.replicas) for where, led in at],
    )
    yield gauge(
        "kafka_topic_partition_in_sync_replica",
        "Replicas that are in sync.",
        labels,
        [(where, led.stats.in_sync) for where, led in at],
    )
    yield gauge("kafka_topic_partition_under_replicated_partition", "1 if replicas are out of sync.", labels, under)
    yield gauge("kafka_cluster_partition_underreplicated", "1 if replicas are out of sync.", labels, under)
    yield gauge("kafka_cluster_partition_underminisr", "1 if fewer are in sync than acks=all needs.", labels, too_few)
    followers = [([*where, str(one.broker_id)], one) for where, led in at for one in led.stats.followers]
    yield gauge(
        "forebay_follower_lag_records",
        "Records a follower lacks; -1: it has not fetched since the leader began.",
        [*labels, "broker"],
        [(where, one.lag_records) for where, one in followers],
    )
    yield gauge(
        "forebay_follower_lag_seconds",
        "For how long a follower has lacked something.",
        [*labels, "broker"],
        [(where, one.lag_ms / 1000) for where, one in followers],
    )
    yield gauge(
        "kafka_log_log_size", "Bytes of a partition.", labels, [(where, led.stats.size_bytes) for where, led in at]
    )
    yield gauge(
        "kafka_log_log_logstartoffset",
        "Offset of the oldest record.",
        labels,
        [(where, led.stats.log_start_offset) for where, led in at],
    )
    yield gauge(
        "kafka_log_log_logendoffset",
        "Offset the next record gets.",
        labels,
        [(where, led.stats.log_end_offset) for where, led in at],
    )
    yield gauge(
        "kafka_log_log_numlogsegments", "Segment files.", labels, [(where, led.stats.segments) for where, led in at]
    )
    yield gauge("forebay_leader_epoch", "Leader epoch.", labels, [(where, led.stats.leader_epoch) for where, led in at])
    yield gauge(
        "forebay_unflushed_records",
        "Records appended that a power cut would take: the newest of all, and of durability=os also acknowledged ones.",
        labels,
        [(where, max(0, led.stats.log_end_offset - led.stats.flushed_end)) for where, led in at],
    )
    yield gauge("forebay_topics_without_metrics", "Topics beyond the cap on labels.", [], [([], view.topics_left_out)])
    for kind, text in (
        ("messagesin", "Records appended."),
        ("bytesin", "Bytes of batches appended."),
        ("bytesout", "Bytes of batches fetched over the wire; readers of the mapping take theirs unseen."),
    ):
        yield counter(f"kafka_server_brokertopicmetrics_{kind}", text, ["topic"], sums(view, kind))


def broker_families(view: View) -> Iterator[Metric]:
    """Yield what is known of brokers, requests and disks."""
    ids = {name: [str(broker.broker_id)] for name, broker in view.brokers.items()}

    def each(values: dict[str, float]) -> list[Sample]:
        return [(ids[name], value) for name, value in values.items()]

    brokers = view.brokers
    partition_counts = {name: float(len(broker.partitions)) for name, broker in brokers.items()}
    label = ["broker"]
    registered = sum(broker.registered for broker in brokers.values())
    yield gauge("kafka_brokers", "Brokers that serve.", [], [([], registered)])
    replicas = each({name: float(broker.replicas) for name, broker in brokers.items()})
    yield gauge("kafka_server_replicamanager_partitioncount", "Replicas on a broker.", label, replicas)
    yield gauge("kafka_server_replicamanager_leadercount", "Partitions it leads.", label, each(partition_counts))
    yield counter("kafka_server_replicamanager_isrshrinks", "In-sync sets that shrank.", label, sums(view, "shrinks"))
    yield counter("kafka_server_replicamanager_isrexpands", "In-sync sets that grew.", label, sums(view, "expands"))
    yield counter("forebay_refills", "Damaged replicas put aside and copied anew.", label, sums(view, "refills"))
    yield gauge(
        "forebay_offline_replicas",
        "Replicas that contradict their leader below what was committed; they are not followed any more.",
        label,
        each({name: float(broker.replicas_offline) for name, broker in brokers.items()}),
    )
    yield gauge(
        "forebay_unflushed_bytes",
        "Bytes appended and not yet flushed.",
        label,
        each({name: broker.unflushed_bytes for name, broker in brokers.items()}),
    )
    yield gauge(
        "forebay_disk_free_bytes",
        "Bytes free on the file system of a broker's log directory.",
        label,
        each({name: broker.disk_free_bytes for name, broker in brokers.items()}),
    )
    yield gauge(
        "forebay_log_directory_failed",
        "1 once a log directory took an I/O error; it takes no more writes.",
        label,
        each({name: broker.directory_failed for name, broker in brokers.items()}),
    )
    yield gauge(
        "forebay_unsent_bytes",
        "Answers that peers have not read yet.",
        label,
        each({name: broker.unsent_bytes for name, broker in brokers.items()}),
    )
    yield gauge(
        "forebay_parked_produces",
        "Produce requests that wait for a flush or the high watermark.",
        label,
        each({name: broker.parked_produces for name, broker in brokers.items()}),
    )
    yield counter("forebay_requests", "Requests taken.", ["request"], sums(view, "requests"))
    yield counter("forebay_produce_errors", "Batches refused, by Kafka's error.", ["error"], sums(view, "errors"))
    quota = ["quota"]
    yield counter("forebay_quota_bytes", "Bytes of clients that have a quota.", quota, sums(view, "quota_bytes"))
    yield counter("forebay_quota_throttled", "Answers that told to wait.", quota, sums(view, "quota_throttled"))
    yield counter(
        "forebay_quota_throttle_seconds", "For how long they told to.", quota, sums(view, "quota_throttle_seconds")
    )
    quotas = [
        ([str(broker.broker_id), kind], quota.clients)
        for broker in brokers.values()
        for kind, quota in (("produce", broker.produce_quota), ("fetch", broker.fetch_quota))
    ]
    yield gauge("forebay_quota_clients", "Client ids whose use of a quota is remembered.", ["broker", "quota"], quotas)
    yield counter("forebay_bad_input", "Messages dropped; log torn, lost or corrupt.", ["reason"], sums(view, "bad"))
    yield histogram(
        view, "forebay_request_duration_seconds", "From the last byte in to the answer.", "request_seconds", "request"
    )
    yield histogram(view, "forebay_flush_duration_seconds", "Duration of a group commit.", "flush_seconds")
    yield gauge(
        "kafka_network_requestmetrics_totaltimems",
        "Quantiles of the last minute, in milliseconds as Kafka has it; estimated within buckets.",
        ["request", "quantile"],
        [
            ([request, f"{quantile:g}"], 1000 * quantile_seconds(counts, quantile))
            for request, counts in view.request_seconds.items()
            for quantile in QUANTILES
        ],
    )


def controller_families(view: View) -> Iterator[Metric]:
    """Yield what is known of the controller, which may be another machine's."""
    active = [controller for controller in view.controllers.values() if controller.role == "active"]
    yield gauge("kafka_controller_kafkacontroller_activecontrollercount", "1 is right.", [], [([], len(active))])
    yield gauge(
        "kafka_controller_kafkacontroller_offlinepartitionscount",
        "Partitions without a leader.",
        [],
        [([], offline_partitions(view))],
    )
    yield gauge(
        "kafka_controller_kafkacontroller_preferredreplicaimbalancecount",
        "Partitions led by another than their first replica.",
        [],
        [([], sum(controller.not_preferred for controller in active))],
    )
    elections = sums(view, "elections")
    unclean = sum(count for where, count in elections if where == ["unclean"])
    yield counter("forebay_leader_elections", "Leaders elected.", ["reason"], elections)
    text = "From what made elections necessary to their being durable."
    yield histogram(view, "forebay_leader_election_duration_seconds", text, "election_seconds")
    yield counter(
        "kafka_controller_controllerstats_uncleanleaderelections",
        "Elections of a leader that may lack acknowledged records.",
        [],
        [([], unclean)],
    )
    if active:
        newest = max(active, key=lambda controller: controller.controller_epoch)
        yield gauge("forebay_metadata_version", "Version of the metadata.", [], [([], newest.version)])
        yield gauge("forebay_controller_epoch", "Epoch of the active controller.", [], [([], newest.controller_epoch)])


def offline_partitions(view: View) -> int:
    """Return how many partitions of the cluster nobody leads, as who has the newest metadata says."""
    said = [(one.version, one.leaderless) for one in view.controllers.values() if one.role == "active"]
    said += [(broker.metadata_version, broker.leaderless) for broker in view.brokers.values()]
    return max(said, default=(-1, 0))[1]


def gateway_families(view: View) -> Iterator[Metric]:
    """Yield the balance of every input: received = acknowledged + refused + in flight."""
    label = ["input"]
    balance = sorted(view.balance.items())
    for name, text in (
        ("received", "Records that came in."),
        ("acknowledged", "Records whose sender was told that they are safe."),
        ("refused", "Records whose sender was told no, or never got an answer."),
        ("unanswered", "Of those refused: their session or their process ended before the sender was told anything."),
        ("appended", "Records the log acknowledged to the gateway."),
    ):
        samples = [([source], float(getattr(one, name))) for source, one in balance]
        yield counter(f"forebay_gateway_{name}", text, label, samples)
    in_flight = [([source], one.in_flight) for source, one in balance]
    yield gauge("forebay_gateway_in_flight", "Records neither acknowledged nor refused.", label, in_flight)
    yield counter(
        "forebay_gateway_bytes", "Bytes received: payload of MQTT, all of Kafka.", label, sums(view, "gateway_bytes")
    )
    yield counter(
        "forebay_gateway_events",
        "Dead letters, resends, refused connections and the like.",
        ["input", "event"],
        [([key[1], key[2]], value) for key, value in sorted(view.sums.items()) if key[0] == "gateway_events"],
    )
    yield gauge(
        "forebay_gateway_held_bytes",
        "Messages that wait in the gateway for room in its producer.",
        label,
        _by_input(view, {name: gateway.held_bytes for name, gateway in view.gateways.items()}),
    )
    yield gauge(
        "forebay_gateway_connections",
        "Connections open now.",
        label,
        _by_input(view, {name: gateway.connections for name, gateway in view.gateways.items()}),
    )


def _by_input(view: View, by_process: dict[str, int]) -> list[Sample]:
    totals: dict[str, int] = {}
    for process, count in by_process.items():
        name = view.inputs.get(process, process)
        totals[name] = totals.get(name, 0) + count
    return [([name], float(count)) for name, count in totals.items()]
