"""The offsets that groups have committed, and when they are forgotten. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from brokerd.groups.records import Fact, OffsetKey, OffsetValue
from ingest.wire.group_messages import CommittedOffset

Place = tuple[bytes, int]  # (topic id, partition)
_OFFSET_BYTES = 50  # the most one takes in an answer, beside its metadata


class CommittedOffsets:
    """By group and partition, what was committed last.

    Attributes:
        count: How many there are.
        texts_bytes: What their metadata takes.
    """

    def __init__(self) -> None:
        self._groups: dict[str, dict[Place, OffsetValue]] = {}
        self._topics: dict[bytes, Counter[str]] = {}  # how many each group has of each topic
        self.count = 0
        self.texts_bytes = 0

    def apply(self, key: OffsetKey, value: OffsetValue | None) -> None:
        """Take a fact; None forgets the offset."""
        offsets = self._groups.setdefault(key.group, {})
        place = (key.topic_id, key.partition)
        before = offsets.get(place)
        more = (value is not None) - (before is not None)
        self.texts_bytes += text_bytes(value) - text_bytes(before)
        self.count += more
        if value is None:
            offsets.pop(place, None)
            if not offsets:
                del self._groups[key.group]
        else:
            offsets[place] = value
        if more:
            self._count_in_topic(key, more)

    def _count_in_topic(self, key: OffsetKey, more: int) -> None:
        groups = self._topics.setdefault(key.topic_id, Counter())
        groups[key.group] += more
        if not groups[key.group]:
            del groups[key.group]
            if not groups:
                del self._topics[key.topic_id]

    def groups(self) -> Collection[str]:
        """Return the groups that have any."""
        return self._groups.keys()

    def of(self, group: str) -> dict[Place, OffsetValue]:
        """Return the offsets of a group by (topic id, partition)."""
        return self._groups.get(group, {})

    def fetch(self, group: str, places: Sequence[Place]) -> list[CommittedOffset]:
        """Return what is committed, in the order asked for; -1 where nothing is."""
        offsets = self.of(group)
        return [_committed(place, offsets.get(place)) for place in places]

    def page(self, group: str, after: Place | None, bytes_max: int) -> tuple[list[CommittedOffset], bool]:
        """Return what a group has, in order, from behind a place on; and whether there is more than what has room."""
        offsets = self.of(group)
        found: list[CommittedOffset] = []
        for place in sorted(offsets if after is None else [place for place in offsets if place > after]):
            value = offsets[place]
            bytes_max -= _OFFSET_BYTES + len(value.metadata.encode())
            if bytes_max < 0 and found:
                return found, True
            found.append(_committed(place, value))
        return found, False

    def forget(self, group: str, places: Collection[Place] | None = None) -> Iterator[Fact]:
        """Return the facts that forget these offsets of a group, all of them with None."""
        for place in self.of(group):
            if places is None or place in places:
                yield Fact(OffsetKey(group, *place), None)

    def of_topics(self, topic_ids: Collection[bytes]) -> Iterator[Fact]:
        """Return the facts that forget what was committed to topics that are no more.

        Cost: a look at the offsets of the groups that have any of them.
        """
        for topic_id in self._topics.keys() & topic_ids:
            for group in self._topics[topic_id]:
                for place in self.of(group):
                    if place[0] == topic_id:
                        yield Fact(OffsetKey(group, *place), None)

    def expired(self, group: str, since_age_ms: int | None, before_age_ms: int) -> Iterator[Fact]:
        """Return the facts that forget what was committed before an age and is of no use any more.

        Args:
            since_age_ms: Since when the group has had no members; None: it never had any, each offset counts by itself.
        """
        if since_age_ms is not None and since_age_ms >= before_age_ms:
            return
        for place, value in self.of(group).items():
            if value.age_ms < before_age_ms:
                yield Fact(OffsetKey(group, *place), None)


def text_bytes(value: OffsetValue | None) -> int:
    """Return what the metadata of a committed offset takes."""
    return 0 if value is None else len(value.metadata.encode())


def _committed(place: Place, value: OffsetValue | None) -> CommittedOffset:
    if value is None:
        return CommittedOffset(*place, -1)
    return CommittedOffset(*place, value.offset, value.leader_epoch, value.metadata)
