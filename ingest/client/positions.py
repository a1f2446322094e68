"""Where a consumer is in each of its partitions, and what each needs next. Pure: answers in, needs out."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from ingest.errors import ForebayError, UsageError
from ingest.wire.messages import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP

PREFERRED_MS = 300_000  # how long a replica that the leader named is read; Kafka's metadata.max.age.ms
PATIENCE_MS = 1_000  # with a replica that can't serve, and with the leader before it may name another


class TopicPartition(NamedTuple):
    """A partition by its topic's name."""

    topic: str
    partition: int


def named(items: Iterable[tuple[str, int]]) -> list[TopicPartition]:
    """Return what the caller names as partitions.

    Raises:
        UsageError: something is not (topic, partition).
    """
    names = []
    for item in items:
        match item:
            case (str(topic), partition) if hasattr(partition, "__index__"):  # a numpy integer, too
                names.append(TopicPartition(topic, int(partition)))
            case _:
                raise UsageError(f"{item!r} is no (topic, partition)")
    return names


def listed(names: Iterable[str], what: str) -> list[str]:
    """Return names as a list.

    Raises:
        UsageError: it is one string, whose letters would be taken for names.
    """
    if isinstance(names, str):
        raise UsageError(f"{what}={names!r} is one string; give a list of names: [{names!r}]")
    return list(names)


class Reset(Enum):
    """`auto.offset.reset`: where to go without a position, or when it is out of range."""

    EARLIEST = "earliest"
    LATEST = "latest"
    NONE = "none"


class Position:
    """One partition's place.

    Attributes:
        offset: The next record to hand to the caller; -1 until it is known.
        fetch_offset: The next record to ask for; ahead of `offset` by what is buffered.
        timestamp_ms: What to ask ListOffsets for while `offset` is unknown; None: nobody has said where to begin.
        fault: What stopped it, told again until the caller seeks; None: nothing does.
        epoch, fetch_epoch: Leader epoch of the last record below `offset` and `fetch_offset`, -1 unknown (KIP-320).
        leader_epoch: Epoch of the leader whose marks are held.
        source: The broker to fetch from: the leader, or the follower that it named.
        source_until_ms, source_well_ms: When to ask the leader again; when that follower last served.
        leader_until_ms: The leader is not to name a follower before.
        row: On the state page of `source`; -1 until it was asked by a Fetch, which compares epochs.
        high_watermark: As last heard; -1 before.
    """

    __slots__ = (
        "asking",
        "epoch",
        "fault",
        "fetch_epoch",
        "fetch_offset",
        "generation",
        "high_watermark",
        "leader",
        "leader_epoch",
        "leader_until_ms",
        "name",
        "offset",
        "paused",
        "read_remotely",
        "row",
        "source",
        "source_until_ms",
        "source_well_ms",
        "timestamp_ms",
        "topic_id",
    )

    def __init__(self, name: TopicPartition, timestamp_ms: int | None) -> None:
        self.name = name
        self.offset = -1
        self.fetch_offset = -1
        self.epoch = self.fetch_epoch = -1
        self.timestamp_ms = timestamp_ms
        self.fault: ForebayError | None = None
        self.generation = 0
        self.asking = False
        self.paused = False
        self.topic_id = b""
        self.leader = self.source = -1
        self.leader_epoch = -1
        self.source_until_ms = self.source_well_ms = self.leader_until_ms = 0
        self.high_watermark = -1
        self.row = -1
        self.read_remotely = False

    def seek(self, offset: int, epoch: int = -1) -> None:
        """Go to an offset; what is buffered or under way is void. Whether there is such a one, the leader knows."""
        self.generation += 1
        self._read_at(self.leader)
        self.asking = False
        self.fault = None
        self.offset = self.fetch_offset = offset
        self.epoch = self.fetch_epoch = epoch

    def stop(self) -> None:
        """Fetch no more until an error that lies behind what is buffered was told."""
        self.generation += 1
        self.fetch_offset = -1

    def contradicts(self, base_offset: int, epoch: int) -> bool:
        """Tell whether a batch at `fetch_offset` can't follow what was read: epochs never go down in a log."""
        if self.fetch_epoch < 0:
            return False
        return epoch < self.fetch_epoch or (base_offset < self.fetch_offset and epoch != self.fetch_epoch)

    def seek_to_timestamp(self, timestamp_ms: int | None) -> None:
        """Go to the first record at or after a time (-1 the end, -2 the start), once the leader says where."""
        self.seek(-1)
        self.timestamp_ms = timestamp_ms

    def lead_by(self, topic_id: bytes, leader: int, leader_epoch: int) -> bool:
        """Take the leader from metadata; tell whether it is another than before."""
        if (topic_id, leader, leader_epoch) == (self.topic_id, self.leader, self.leader_epoch):
            return False
        if topic_id != self.topic_id:
            self.high_watermark = -1
        self.topic_id, self.leader, self.leader_epoch = topic_id, leader, leader_epoch
        self.leader_until_ms = 0
        self._read_at(leader, anew=True)
        return True

    # ---- nearer replicas (KIP-392)

    @property
    def strays(self) -> bool:
        """Whether it is read at a follower."""
        return self.source != self.leader

    def prefer(self, follower: int, now_ms: int) -> None:
        """Read at the follower that the leader named, for a while."""
        self.source_until_ms, self.source_well_ms = now_ms + PREFERRED_MS, now_ms
        self._read_at(follower)

    def not_served(self, now_ms: int, *, for_good: bool) -> None:
        """The follower did not serve: read at the leader, at once or after some patience."""
        if self.strays and (for_good or now_ms - self.source_well_ms >= PATIENCE_MS):
            self.leader_until_ms = now_ms + PATIENCE_MS
            self._read_at(self.leader)

    def expire(self, now_ms: int) -> None:
        """Ask the leader again whom to read once its word is old."""
        if self.strays and now_ms >= self.source_until_ms:
            self._read_at(self.leader)

    def _read_at(self, broker_id: int, *, anew: bool = False) -> None:
        if anew or broker_id != self.source:
            self.source = broker_id
            self.row = -1
            self.read_remotely = False

    @property
    def lag_records(self) -> int | None:
        """Records below the high watermark as last heard and not yet handed out; None while unknown."""
        if self.offset < 0 or self.high_watermark < 0:
            return None
        return max(0, self.high_watermark - self.offset)


def reset_timestamp(reset: Reset) -> int | None:
    """Return what ListOffsets is asked for a reset, None for one that is an error."""
    return {Reset.EARLIEST: EARLIEST_TIMESTAMP, Reset.LATEST: LATEST_TIMESTAMP}.get(reset)
