"""Where a consumer is in each of its partitions, and what each needs next. Pure: answers in, needs out."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from ingest.errors import ForebayError
from ingest.wire.messages import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP


class TopicPartition(NamedTuple):
    """A partition by its topic's name."""

    topic: str
    partition: int


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
        timestamp_ms: What to ask ListOffsets for while `offset` is unknown.
        fault: What stopped it, told again until the caller seeks; None: nothing does.
        epoch, fetch_epoch: Leader epoch of the last record below `offset` and `fetch_offset`, -1 unknown (KIP-320).
        leader_epoch: Epoch of the leader whose marks are held.
        row: On the state page; -1 until this leader was asked by a Fetch, which compares epochs.
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
        "name",
        "offset",
        "paused",
        "read_remotely",
        "row",
        "timestamp_ms",
        "topic_id",
    )

    def __init__(self, name: TopicPartition, timestamp_ms: int) -> None:
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
        self.leader = -1
        self.leader_epoch = -1
        self.high_watermark = -1
        self.row = -1
        self.read_remotely = False

    def seek(self, offset: int, epoch: int = -1) -> None:
        """Go to an offset; what is buffered or under way is void."""
        self.generation += 1
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

    def seek_to_timestamp(self, timestamp_ms: int) -> None:
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
        self.row = -1
        self.read_remotely = False
        return True

    @property
    def lag_records(self) -> int | None:
        """Records below the high watermark as last heard and not yet handed out; None while unknown."""
        if self.offset < 0 or self.high_watermark < 0:
            return None
        return max(0, self.high_watermark - self.offset)


def reset_timestamp(reset: Reset) -> int:
    """Return what ListOffsets is asked for a reset."""
    return EARLIEST_TIMESTAMP if reset is Reset.EARLIEST else LATEST_TIMESTAMP
