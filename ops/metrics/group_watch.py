"""How far groups are behind, from what coordinators and leaders tell; and what leaders are to be asked next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from brokerd.serving.stats import BrokerStats, GroupStats, PartitionStats
from ingest.client.lag import Lag, LeaderLag, Place
from ingest.client.positions import TopicPartition

PARTITIONS_MAX = 10_000  # of all groups: four series each, half a second of work a scrape
PLACES_MAX = 2_000  # asked about at once: at some 35 us each a thirtieth of the leaders' time

Key = tuple[str, str, int]  # (group, topic, partition)


class Answer(NamedTuple):
    """What a leader said of a place, and when; ms of the monotonic clock."""

    place: Place
    found: LeaderLag
    at_ms: int


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """How far a group is in one partition. None: nobody has said yet."""

    topic: str
    partition: int
    offset: int
    lag_records: int | None
    lag_bytes: int | None
    lag_seconds: float | None


@dataclass(frozen=True, slots=True)
class GroupProgress:
    """A group that is coordinated on this machine."""

    group: str
    state: str
    members: int
    partitions: list[PartitionProgress]


@dataclass(frozen=True, slots=True)
class GroupsSeen:
    """What is shown of groups.

    Attributes:
        left_out: Groups beyond the cap on labels.
        places: What leaders are to be asked, those nobody has asked about for the longest time first.
    """

    groups: list[GroupProgress] = field(default_factory=list)
    left_out: int = 0
    places: list[Place] = field(default_factory=list)


class GroupWatch:
    """Take what brokers tell, give what is shown. Thread: the monitor's loop.

    A group is shown whole or not at all; one that is shown stays as long as it lives.
    """

    def __init__(self, *, groups_max: int, partitions_max: int = PARTITIONS_MAX, places_max: int = PLACES_MAX) -> None:
        self._groups_max = groups_max
        self._partitions_max = partitions_max
        self._places_max = places_max
        self._shown: dict[str, None] = {}
        self._answers: dict[Place, Answer] = {}
        self._last: dict[Key, Lag] = {}

    def step(
        self,
        brokers: Iterable[BrokerStats],
        marks: Mapping[tuple[str, int], PartitionStats],
        news: Iterable[Answer],
        now_ms: int,
    ) -> GroupsSeen:
        """Return how far groups are.

        Args:
            marks: Where partitions end that are led on this machine: what is there needs no question.
            news: Answers that have come since the last step.
        """
        brokers = list(brokers)
        found = {one.group: one for broker in brokers for one in broker.groups}
        untold = sum(broker.groups_untold for broker in brokers)
        self._choose(found)
        self._answers.update((answer.place, answer) for answer in news)
        asked: dict[Place, None] = {}
        last: dict[Key, Lag] = {}
        groups = []
        for name in sorted(self._shown):
            group = found[name]
            partitions = [
                self._progress((name, topic, partition), offset, marks, asked, last, now_ms)
                for topic, offsets in sorted(group.offsets.items())
                for partition, offset in sorted(offsets.items())
            ]
            groups.append(GroupProgress(name, group.state, group.members, partitions))
        self._last = last
        self._answers = {place: answer for place, answer in self._answers.items() if place in asked}
        places = sorted(asked, key=lambda place: self._answers[place].at_ms if place in self._answers else -1)
        left_out = untold + len(found) - len(self._shown)
        return GroupsSeen(groups, left_out, places[: self._places_max])

    def _choose(self, found: Mapping[str, GroupStats]) -> None:
        """Keep the groups shown while they live, fill up with new ones."""
        candidates = [name for name in self._shown if name in found]
        candidates += sorted(found.keys() - self._shown.keys())
        self._shown = {}
        room = self._partitions_max
        for name in candidates:
            size = sum(map(len, found[name].offsets.values()))
            if len(self._shown) < self._groups_max and size <= room:
                self._shown[name] = None
                room -= size

    def _progress(
        self,
        key: Key,
        offset: int,
        marks: Mapping[tuple[str, int], PartitionStats],
        asked: dict[Place, None],
        last: dict[Key, Lag],
        now_ms: int,
    ) -> PartitionProgress:
        _, topic, partition = key
        mark = marks.get((topic, partition))
        if mark is not None and offset >= mark.high_watermark:
            return PartitionProgress(topic, partition, offset, 0, 0, 0.0)
        place = Place(TopicPartition(topic, partition), offset)
        asked[place] = None
        lag = self._lag(place, now_ms) or self._last.get(key)
        if lag is not None:
            last[key] = lag
        records = None if lag is None else lag.records
        if mark is not None:
            records = mark.high_watermark - max(offset, min(mark.log_start_offset, mark.high_watermark))
        if lag is None:
            return PartitionProgress(topic, partition, offset, records, None, None)
        return PartitionProgress(topic, partition, offset, records, lag.bytes, lag.seconds)

    def _lag(self, place: Place, now_ms: int) -> Lag | None:
        """Return what a leader said, grown older since: the oldest record that is not read is still the same."""
        answer = self._answers.get(place)
        if answer is None:
            return None
        lag = answer.found.lag
        if not lag.records:
            return lag
        return Lag(lag.records, lag.bytes, lag.seconds + (now_ms - answer.at_ms) / 1000)
