"""The appliance as one round of asking shows it, added to what was seen before. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from brokerd.control.stats import ControllerStats
from brokerd.groups.member import Loss
from brokerd.serving.stats import BrokerStats, PartitionStats
from ingest.latency import Histogram
from ops.metrics.control_socket import Answer, Answers, Silence
from ops.metrics.group_watch import Answer as LagAnswer
from ops.metrics.group_watch import GroupsSeen, GroupWatch
from ops.metrics.recent import Recent
from ops.metrics.stats import GATEWAY_EVENTS, Balance, GatewayView, KafkaView
from ops.metrics.totals import Key, Totals

OTHER_TOPICS = "_other"
KAFKA = "kafka"  # the input that all processes of a Kafka gateway are

_NO_STATS = msgspec.Raw(b"null")

_decode_broker = msgspec.json.Decoder(BrokerStats).decode
_decode_controller = msgspec.json.Decoder(ControllerStats).decode
_decode_gateway = msgspec.json.Decoder(GatewayView).decode
_decode_kafka = msgspec.json.Decoder(KafkaView).decode


@dataclass(frozen=True, slots=True)
class LedPartition:
    """One partition and the broker that leads it."""

    broker: str
    stats: PartitionStats


@dataclass(frozen=True, slots=True)
class View:
    """Everything that is shown; counters in `sums` and `of_process` cover all incarnations.

    Attributes:
        restarts: Of each process, counted while this monitor watched.
        request_seconds: Of each request, over the last minute: bucket counts.
        gateways, kafka: By process; the processes of a Kafka gateway are one input.
        inputs: What each process of `gateways` is called as an input.
    """

    processes: list[Answer] = field(default_factory=list)
    silent: list[Silence] = field(default_factory=list)
    brokers: dict[str, BrokerStats] = field(default_factory=dict)
    partitions: list[LedPartition] = field(default_factory=list)
    controllers: dict[str, ControllerStats] = field(default_factory=dict)
    gateways: dict[str, GatewayView] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    kafka: dict[str, KafkaView] = field(default_factory=dict)
    sums: dict[Key, float] = field(default_factory=dict)
    of_process: dict[str, dict[Key, float]] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    request_seconds: dict[str, list[int]] = field(default_factory=dict)
    balance: dict[str, Balance] = field(default_factory=dict)
    topics: list[str] = field(default_factory=list)
    topics_left_out: int = 0
    groups: GroupsSeen = field(default_factory=GroupsSeen)


class Watch:
    """Take answers in, give views out; it remembers counters of the dead. Thread: the monitor's loop."""

    def __init__(self, *, topics_max: int, groups_max: int = 1000, expected: Iterable[str] = ()) -> None:
        """Start with nothing seen.

        Args:
            expected: Processes that count as silent from the start; others only once they were seen alive, for a
                socket may be left over from a process that is no longer wanted.
        """
        self._topics_max = topics_max
        self._wanted = frozenset(expected)
        self._topics: dict[str, None] = {}  # those shown, in the order they were seen
        self._totals = Totals()
        self._incarnations: dict[str, tuple[int, int]] = {}
        self._restarts: dict[str, int] = {}
        self._inputs: dict[str, str] = {}  # of each process
        self._in_flight: dict[str, int] = {}
        self._abandoned: dict[str, int] = {}
        self._recent = Recent()
        self._groups = GroupWatch(groups_max=groups_max)

    def step(self, answers: Answers, now_ms: int, lags: Iterable[LagAnswer] = ()) -> View:
        """Add one round of answers, and what leaders have said of lags since the last one; return the whole picture."""
        brokers: dict[str, BrokerStats] = {}
        controllers: dict[str, ControllerStats] = {}
        gateways: dict[str, GatewayView] = {}
        kafka: dict[str, KafkaView] = {}
        silent = [one for one in answers.silent if one.name in self._wanted or one.name in self._incarnations]
        for answer in answers.processes:
            self._count_restart(answer)
            if answer.stats == _NO_STATS:
                continue  # it has only just started, or its role has none
            try:
                match answer.role:
                    case "broker":
                        brokers[answer.name] = _decode_broker(answer.stats)
                    case "controller":
                        controllers[answer.name] = _decode_controller(answer.stats)
                    case "gateway" | "bridge":
                        gateways[answer.name] = _decode_gateway(answer.stats)
                    case "kafka":
                        kafka[answer.name] = _decode_kafka(answer.stats)
                        gateways[answer.name] = _decode_gateway(answer.stats)
            except (msgspec.DecodeError, RecursionError) as error:
                silent.append(Silence(answer.name, f"stats of another version: {error}"))
        left_out = self._choose_topics(brokers.values())
        for answer in answers.processes:
            if answer.name in brokers:
                self._totals.take(answer.name, _start_of(answer), self._broker_counts(brokers[answer.name]))
            elif answer.name in controllers:
                self._totals.take(answer.name, _start_of(answer), _controller_counts(controllers[answer.name]))
            elif answer.name in gateways:
                name = self._inputs[answer.name] = KAFKA if answer.name in kafka else answer.name
                counts = _gateway_counts(name, gateways[answer.name])
                if answer.name in kafka:
                    counts |= _kafka_counts(answer.name, kafka[answer.name])
                self._totals.take(answer.name, _start_of(answer), counts)
        live = {OTHER_TOPICS, *self._topics}
        self._totals.forget(lambda key: key[0] in _TOPIC_COUNTERS and key[1] not in live)
        sums = self._totals.sums()
        led = _led(brokers)
        marks = {(one.stats.topic, one.stats.partition): one.stats for one in led}
        return View(
            processes=answers.processes,
            silent=silent,
            brokers=brokers,
            partitions=[one for one in led if one.stats.topic in self._topics],
            controllers=controllers,
            gateways=gateways,
            inputs=dict(self._inputs),
            kafka=kafka,
            sums=sums,
            of_process={name: self._totals.of(name) for name in self._incarnations},
            restarts=dict(self._restarts),
            request_seconds=self._recent.step(_request_counts(sums), now_ms),
            balance=self._balance(sums, gateways),
            topics=list(self._topics),
            topics_left_out=left_out,
            groups=self._groups.step(brokers.values(), marks, lags, now_ms),
        )

    def _count_restart(self, answer: Answer) -> None:
        before = self._incarnations.get(answer.name)
        self._incarnations[answer.name] = _start_of(answer)
        self._restarts.setdefault(answer.name, 0)
        if before is not None and before != _start_of(answer):
            self._restarts[answer.name] += 1
            # what the dead one held in flight was never answered: its device sends it again, and it is counted again
            self._abandoned[answer.name] = self._abandoned.get(answer.name, 0) + self._in_flight.pop(answer.name, 0)

    def _choose_topics(self, brokers: Iterable[BrokerStats]) -> int:
        """Keep the topics shown while they live, fill up with new ones; return how many are left out."""
        led = {partition.topic for broker in brokers for partition in broker.partitions}
        if len(self._topics) + len(led) > self._topics_max:
            self._topics = {topic: None for topic in self._topics if topic in led}
        for topic in sorted(led):
            if len(self._topics) < self._topics_max:
                self._topics.setdefault(topic)
        return len(led - set(self._topics))

    def _broker_counts(self, broker: BrokerStats) -> dict[Key, float]:
        counts: dict[Key, float] = {}
        for name, by_topic in (
            ("messagesin", broker.records_in_total),
            ("bytesin", broker.bytes_in_total),
            ("bytesout", broker.bytes_out_total),
        ):
            for topic, count in by_topic.items():
                key = (name, topic if topic in self._topics else OTHER_TOPICS)
                counts[key] = counts.get(key, 0) + count
        counts["shrinks", str(broker.broker_id)] = broker.isr_shrinks_total
        counts["expands", str(broker.broker_id)] = broker.isr_expands_total
        counts["refills", str(broker.broker_id)] = broker.refills_total
        counts["rebalances", str(broker.broker_id)] = broker.group_rebalances_total
        for loss in Loss:
            counts["members_lost", loss.value] = broker.group_members_lost_total.get(loss.value, 0)
        for name in ("runs", "failures", "read_bytes", "written_bytes", "records_dropped"):
            counts[f"cleaner_{name}", str(broker.broker_id)] = getattr(broker.cleaner, f"{name}_total")
        for kind, quota in (("produce", broker.produce_quota), ("fetch", broker.fetch_quota)):
            counts["quota_bytes", kind] = quota.bytes_total
            counts["quota_throttled", kind] = quota.throttled_total
            counts["quota_throttle_seconds", kind] = quota.throttle_ms_total / 1000
        for request, count in broker.requests_total.items():
            counts["requests", _kafka_name(request)] = count
        for error, count in broker.errors_total.items():
            counts["errors", error] = count
        for reason in ("malformed", "unroutable", "corrupt", "torn_bytes", "damaged_batches", "lost_offsets"):
            counts["bad", reason] = getattr(broker, f"{reason}_total")
        for request, histogram in broker.request_seconds.items():
            _add_histogram(counts, "request_seconds", _kafka_name(request), histogram)
        _add_histogram(counts, "flush_seconds", "", broker.flush_seconds)
        return counts

    def _balance(self, sums: dict[Key, float], gateways: dict[str, GatewayView]) -> dict[str, Balance]:
        for name, gateway in gateways.items():
            self._in_flight[name] = gateway.in_flight
        return {
            name: Balance(
                received=int(sums["received", name]),
                acknowledged=int(sums["acknowledged", name]),
                refused=int(sums["refused", name]) + self._of_input(self._abandoned, name),
                unanswered=int(sums["unanswered", name]) + self._of_input(self._abandoned, name),
                in_flight=self._of_input(self._in_flight, name),
                appended=int(sums["appended", name]),
            )
            for name in labels_of(sums, "received")
        }

    def _of_input(self, by_process: dict[str, int], name: str) -> int:
        return sum(count for process, count in by_process.items() if self._inputs.get(process) == name)


def _start_of(answer: Answer) -> tuple[int, int]:
    """Return what tells two starts of a process apart."""
    return answer.incarnation, answer.pid


_TOPIC_COUNTERS = frozenset({"messagesin", "bytesin", "bytesout"})


def _led(brokers: dict[str, BrokerStats]) -> list[LedPartition]:
    """Return each partition once: by the leader of the newest epoch, should two brokers name it."""
    led: dict[tuple[str, int], LedPartition] = {}
    for name, broker in brokers.items():
        for partition in broker.partitions:
            key = (partition.topic, partition.partition)
            if key not in led or led[key].stats.leader_epoch < partition.leader_epoch:
                led[key] = LedPartition(name, partition)
    return [led[key] for key in sorted(led)]


def _controller_counts(controller: ControllerStats) -> dict[Key, float]:
    counts: dict[Key, float] = {("elections", reason): count for reason, count in controller.elections.items()}
    if controller.election_seconds is not None:
        _add_histogram(counts, "election_seconds", "", controller.election_seconds)
    return counts


def _gateway_counts(name: str, gateway: GatewayView) -> dict[Key, float]:
    return {
        ("received", name): gateway.received_total,
        ("acknowledged", name): gateway.acknowledged_total,
        ("refused", name): gateway.refused_total,
        ("unanswered", name): gateway.unanswered_total,
        ("appended", name): gateway.appended_total,
        ("gateway_bytes", name): gateway.bytes_in_total,
        **{("gateway_events", name, event): getattr(gateway, f"{event}_total") for event in GATEWAY_EVENTS},
    }


def _kafka_counts(process: str, kafka: KafkaView) -> dict[Key, float]:
    counts: dict[Key, float] = {
        ("kafka_bytes_in", process): kafka.bytes_in_total,
        ("kafka_bytes_out", process): kafka.bytes_out_total,
        ("kafka_connections_opened", process): kafka.connections_opened_total,
        ("kafka_fetched", KAFKA): kafka.fetched_total,
    }
    for request, view in kafka.apis.items():
        _add_histogram(counts, "kafka_seconds", request, view.seconds)
        counts["kafka_requests", request] = sum(view.seconds.counts)
        for error, count in view.errors_total.items():
            counts["kafka_errors", request, error] = count
    return counts


def _kafka_name(request: str) -> str:
    """LIST_OFFSETS is ListOffsets in Kafka's metrics."""
    return "".join(word.capitalize() for word in request.split("_"))


def _add_histogram(counts: dict[Key, float], name: str, label: str, histogram: Histogram) -> None:
    for index, count in enumerate(histogram.counts):
        counts[name, label, str(index)] = count
    counts[name, label, "sum"] = histogram.sum_seconds


def _request_counts(sums: dict[Key, float]) -> dict[str, list[int]]:
    return {label: buckets(sums, "request_seconds", label)[0] for label in labels_of(sums, "request_seconds")}


def labels_of(sums: dict[Key, float], name: str) -> list[str]:
    """Return the labels of which there are histograms of this name."""
    return sorted({key[1] for key in sums if key[0] == name})


def buckets(sums: dict[Key, float], name: str, label: str) -> tuple[list[int], float]:
    """Return a histogram's counts and sum of seconds."""
    counts: list[int] = []
    while (count := sums.get((name, label, str(len(counts))))) is not None:
        counts.append(int(count))
    return counts, sums.get((name, label, "sum"), 0.0)
