"""How far readers are behind, as leaders know it: exact, in records, bytes and seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ingest.client.cluster import Answered, Cluster, monotonic_ms
from ingest.client.positions import TopicPartition
from ingest.errors import ForebayError, ProtocolError, RemoteError, RequestTimedOut
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.messages import (
    OFFSET_LAG_PARTITIONS_MAX,
    OffsetLag,
    OffsetLagPartition,
    OffsetLagRequest,
    PartitionMetadata,
    TopicMetadata,
)

RETRY_MS = 20
TRY_MS = 2_000
AT_THE_END = 2**63 - 1  # the offset of a reader that asks where the log ends and nothing else


@dataclass(frozen=True, slots=True)
class Lag:
    """What a reader has not read yet.

    Attributes:
        records: Offsets below the high watermark; in a compacted log there may be fewer records.
        bytes: Of the stored batches that hold any of them.
        seconds: For how long the oldest has been in the log; 0.0: nothing is unread.
    """

    records: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaderLag:
    """A lag, and between which offsets the log is; `log_end_offset` is the high watermark, as in Kafka's tools."""

    log_start_offset: int
    log_end_offset: int
    lag: Lag


class Place(NamedTuple):
    """A reader's place: the next record it would read."""

    name: TopicPartition
    offset: int


def ask_lags(
    cluster: Cluster, places: Iterable[Place], *, timeout_ms: int, is_over: Callable[[], bool] = lambda: False
) -> tuple[dict[Place, LeaderLag], dict[Place, ForebayError]]:
    """Ask the leaders, again while that may help; return what they said, and why of the others nothing is known.

    Args:
        is_over: Whether nobody wants to know any more; looked at while answers are awaited.
    Cost: a request for each 100 places a leader has, one at a time each.
    """
    survey = _Survey(cluster, places)
    cluster.want({place.name.topic for place in survey.left})
    deadline_ms = monotonic_ms() + timeout_ms
    while survey.busy and (now_ms := monotonic_ms()) < deadline_ms and not is_over():
        cluster.poll()
        survey.send(now_ms, deadline_ms)
        if survey.busy:
            cluster.wait(5)
    return survey.found, survey.failed()


class _Survey:
    """What is still to be asked, what is under way, and what came of the rest."""

    def __init__(self, cluster: Cluster, places: Iterable[Place]) -> None:
        self._cluster = cluster
        self.left: dict[Place, ForebayError | None] = dict.fromkeys(places)
        self.found: dict[Place, LeaderLag] = {}
        self._refused: dict[Place, ForebayError] = {}
        self._under_way: dict[int, list[Place]] = {}
        self._retry_at_ms = 0

    @property
    def busy(self) -> bool:
        return bool(self.left or self._under_way)

    def failed(self) -> dict[Place, ForebayError]:
        """Return why nothing is known of the places that nothing was found of; the time is over."""
        for place in [place for places in self._under_way.values() for place in places]:
            self.left.setdefault(place)
        late = RequestTimedOut("no leader answered in time")
        return self._refused | {place: error or late for place, error in self.left.items()}

    def send(self, now_ms: int, deadline_ms: int) -> None:
        """Ask each leader the next portion, where none is under way."""
        if not self.left or now_ms < self._retry_at_ms:
            return
        portions: dict[int, list[tuple[Place, OffsetLagPartition]]] = defaultdict(list)
        for place in self.left:
            known = self._leader_of(place)
            if known is None:
                continue
            topic_id, item = known
            if item.leader not in self._under_way and len(portions[item.leader]) < OFFSET_LAG_PARTITIONS_MAX:
                asked = OffsetLagPartition(topic_id, item.partition, place.offset, item.leader_epoch)
                portions[item.leader].append((place, asked))
        self._retry_at_ms = now_ms + RETRY_MS
        for leader, portion in portions.items():
            self._send_portion(leader, portion, min(TRY_MS, deadline_ms - now_ms))

    def _leader_of(self, place: Place) -> tuple[bytes, PartitionMetadata] | None:
        """Return the topic's id and the partition as metadata has it; None, with the reason noted: nobody leads it."""
        topic = self._cluster.topics.get(place.name.topic)
        item = None if topic is None else _partition_of(topic, place.name.partition)
        if topic is not None and item is not None and item.leader >= 0:
            return topic.topic_id, item
        code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if item is None else ErrorCode.LEADER_NOT_AVAILABLE
        self.left[place] = error_from_code(code, f"{place.name.topic}-{place.name.partition}")
        return None

    def _send_portion(self, leader: int, portion: list[tuple[Place, OffsetLagPartition]], timeout_ms: int) -> None:
        places = [place for place, _ in portion]

        def on_done(answered: Answered) -> None:
            del self._under_way[leader]
            error, lags = answered.error, [] if answered.body is None else answered.body.partitions
            if error is None and len(lags) != len(places):
                error = ProtocolError(f"{len(lags)} answers to {len(places)} questions")
            if error is not None:
                for place in places:
                    self._failed(place, error)
                return
            for place, item in zip(places, lags, strict=True):
                self._answered(place, item)

        request = OffsetLagRequest([asked for _, asked in portion])
        if self._cluster.send(leader, request, on_done, timeout_ms=timeout_ms):
            self._under_way[leader] = places
            for place in places:
                del self.left[place]
            self._retry_at_ms = 0

    def _answered(self, place: Place, item: OffsetLag) -> None:
        if item.error_code:
            text = f"{place.name.topic}-{place.name.partition}"
            self._failed(place, error_from_code(item.error_code, text))
            return
        lag = Lag(item.lag_records, item.lag_bytes, item.lag_ms / 1000)
        self.found[place] = LeaderLag(item.log_start_offset, item.high_watermark, lag)

    def _failed(self, place: Place, error: ForebayError) -> None:
        """Ask again, with newer metadata, unless the leader refuses for good."""
        if isinstance(error, RemoteError) and not error.retriable:
            self._refused[place] = error
            return
        self.left[place] = error
        now_ms = monotonic_ms()
        self._cluster.wait_for_newer(now_ms)
        self._retry_at_ms = now_ms + RETRY_MS


def _partition_of(topic: TopicMetadata, partition: int) -> PartitionMetadata | None:
    """Return a partition, None if the topic has none of that number. Metadata has them in order as a rule."""
    if partition < len(topic.partitions) and topic.partitions[partition].partition == partition:
        return topic.partitions[partition]
    return next((item for item in topic.partitions if item.partition == partition), None)
