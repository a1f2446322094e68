"""A led partition of `__consumer_offsets` and its shard: loading it, storing its facts, answering what is committed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from brokerd.groups.config import GroupConfig
from brokerd.groups.member import Effects, Watch
from brokerd.groups.records import AgeKey, AgeValue, Fact, decode, encode
from brokerd.groups.shard import Shard
from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.partition import Partition
from ingest.errors import CorruptBatch, DiskFull, LogDirOffline, RemoteError, StorageError, UnsupportedFormat
from ingest.records.batch import decode_batch, encode_batch
from ingest.records.header import hop_headers
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import JoinGroupResponse, OffsetFetchResponse
from ingest.wire.message import Message

if TYPE_CHECKING:
    from brokerd.storage.log import Log

log = structlog.get_logger()

LOAD_BYTES = 1 << 20  # read between two looks at the sockets: some milliseconds
LOAD_RETRY_MS = 100
FACTS_IN_BATCH = 5_000
PROBE_MS = 1_000
BATCH_BYTES, RECORD_BYTES = 512, 32  # the most a batch, and a record in it, takes beside keys and values
FACTS_AT_ONCE = 2_000  # decoded between two looks at the sockets: as long

Then = Callable[[ErrorCode], None]


@dataclass(slots=True)
class GroupCounts:
    """What has happened to the groups of one broker since it began."""

    rebalances: int = 0
    lost: Counter[str] = field(default_factory=Counter)


class HostedShard:
    """One partition of the topic as long as it is led here under one epoch. Thread: the broker loop.

    Attributes:
        shard: None until everything stored was read.
        load_at_ms: When `load_some` goes on, as long as there is no shard.
        damage: Where stored records are bad; empty: nowhere.
        watches: Processes to watch, and no longer to watch; the owner takes them.
        full: What was decided last could not be stored: nothing is decided until something can be again.
        probe_at_ms: When to see whether it can, while it is full.
    """

    def __init__(
        self, partition: Partition, config: GroupConfig, outbox: Outbox, counts: GroupCounts, *, full: bool = False
    ) -> None:
        self.partition = partition
        self._counts = counts
        self.leader_epoch = partition.log.leader_epoch
        self._config = config
        self._outbox = outbox
        self.shard: Shard | None = None
        self.watches: list[Watch] = []
        self.damage = ""
        self.full = full
        self.probe_at_ms = 0
        self._damage_told = ""
        self._loading = Shard(config)
        self.load_at_ms = 0
        self._load_offset = partition.log.start_offset
        self._load_end = partition.log.end_offset
        self._found: dict[bytes, bytes | None] = {}
        self._facts: list[Fact] = []
        self._undecided: list[tuple[Peer, int, Message]] = []
        self._waiting: deque[tuple[int, Peer, int, Message]] = deque()
        self._waiting_items = 0
        self._calls_undecided: list[Then] = []
        self._calls: deque[tuple[int, Then]] = deque()

    @property
    def is_current(self) -> bool:
        """Whether the partition is still led here under the epoch it was loaded for."""
        return self.partition.leadership is not None and self.partition.log.leader_epoch == self.leader_epoch

    def configure(self, config: GroupConfig) -> None:
        """Take other settings."""
        self._config = config
        self._loading.configure(config)

    @property
    def next_ms(self) -> int:
        """Return when to read on, to try whether there is room again, or to do what time demands."""
        if self.shard is None:
            return self.load_at_ms
        return self.probe_at_ms if self.full else self.shard.next_ms()

    @property
    def waiting(self) -> int:
        """How many answers wait for what was decided before them to be committed."""
        return len(self._waiting) + len(self._undecided) + len(self._calls) + len(self._calls_undecided)

    @property
    def waiting_items(self) -> int:
        """How many offsets and members those answers name."""
        return self._waiting_items

    # ---- loading -----------------------------------------------------------------------------------------------------

    def load_some(self, now_ms: int, deleted_topics: Collection[bytes]) -> None:
        """Read the next stretch of what is stored, then decode the latest record under each key; then coordinate.

        Args:
            deleted_topics: What was committed to these is forgotten.
        Cost: a megabyte, or some thousand records.
        """
        source = self.partition.log
        if self._load_offset < self._load_end:
            try:
                self._read(source)
            except CorruptBatch as error:
                self._damaged(source, error, now_ms)
            except LogDirOffline:
                raise
            except StorageError as error:  # no descriptor left
                self.load_at_ms = now_ms + LOAD_RETRY_MS
                log.warning("groups can't be loaded yet", partition=source.partition, reason=str(error))
            return
        for _ in range(min(FACTS_AT_ONCE, len(self._found))):
            try:
                self._loading.replay(decode(*self._found.popitem()), now_ms)
            except UnsupportedFormat as error:
                log.error("a record of groups is not understood", partition=source.partition, reason=str(error))
        if not self._found:
            self.shard = self._loading
            self.take(self.shard.loaded(now_ms))
            self.take(self.shard.topics_deleted(deleted_topics))

    def _damaged(self, source: Log, error: CorruptBatch, now_ms: int) -> None:
        """Wait until another replica leads, which has the records, or there is none: only then they are lost."""
        text = str(error)
        if self.partition.is_alone:
            self._load_offset = max(self._load_offset + 1, getattr(error, "next_offset", -1))
            log.error("records of groups are lost to damage", partition=source.partition, reason=text)
        else:
            self.load_at_ms = now_ms + LOAD_RETRY_MS
            if text != self._damage_told:
                log.error("groups wait for a leader without damage", partition=source.partition, reason=text)
        self.damage = self._damage_told = text

    def _read(self, source: Log) -> None:
        self._load_offset = max(self._load_offset, source.start_offset)
        data = source.read(self._load_offset, LOAD_BYTES, end=self._load_end)
        for position, header in hop_headers(data):
            batch = data[position : position + header.size]
            self._load_offset = header.next_offset
            try:
                columns = decode_batch(batch, self.partition.topic, source.partition, header)
            except (CorruptBatch, UnsupportedFormat) as error:  # it is what its leader stored: all copies are alike
                log.error("a batch of groups is not understood", partition=source.partition, reason=str(error))
                continue
            pairs = zip(columns.keys.to_list(), columns.values.to_list(), strict=True)
            self._found.update((key, value) for key, value in pairs if key is not None)

    # ---- deciding ----------------------------------------------------------------------------------------------------

    def take(self, effects: Effects) -> None:
        """Take what the shard decided; `store` makes it last."""
        self._facts += effects.facts
        self.watches += effects.watches
        self._counts.rebalances += effects.rebalances
        self._counts.lost.update(loss.value for loss in effects.lost)
        for (peer, correlation_id), message in effects.answers:
            self.answer(peer, correlation_id, message)

    def answer(self, peer: Peer, correlation_id: int, message: Message) -> None:
        """Answer once all that was decided until now is committed."""
        self._undecided.append((peer, correlation_id, message))
        self._waiting_items += _items(message)

    @property
    def refusal(self) -> str:
        """Why nothing can be decided now; empty: it can."""
        if not self.partition.enough_in_sync:
            return "fewer copies of the groups are in sync than min.insync.replicas"
        return "what groups do can't be stored, see the broker's log" if self.full else ""

    def probe(self, now_ms: int) -> None:
        """Have `store` try with a fact on which nothing depends."""
        if self.shard is not None and now_ms >= self.probe_at_ms:
            self.probe_at_ms = now_ms + PROBE_MS
            self._facts.append(Fact(AgeKey(), AgeValue(self.shard.age_ms(now_ms))))

    def then(self, call: Then) -> None:
        """Call with NONE once all that was decided until now is committed, or with why that can't be told."""
        self._calls_undecided.append(call)

    def store(self, wall_ms: int) -> bool:
        """Append what was decided; False: it could not be, and what the shard knows is not what is stored.

        Cost: one batch for everything since the last call, more where that is large.
        """
        target = self.partition.log
        facts, self._facts = self._facts, []
        probes = self.full and [type(fact.key) for fact in facts] == [AgeKey]
        try:
            for batch in _batches(facts, wall_ms, target.config.max_message_bytes):
                target.append([batch], wall_ms=wall_ms)
        except (DiskFull, RemoteError) as error:
            if not probes:
                log.warning("what groups do can't be stored", partition=target.partition, reason=str(error))
                return False
            facts = []
        self.full = self.full and not facts
        for peer, correlation_id, message in self._undecided:
            self._waiting.append((target.end_offset, peer, correlation_id, message))
        self._undecided.clear()
        self._calls.extend((target.end_offset, call) for call in self._calls_undecided)
        self._calls_undecided.clear()
        if not facts:
            self.committed()
        return True

    @property
    def has_news(self) -> bool:
        """Whether `store` has something to do."""
        return bool(self._facts or self._undecided or self._calls_undecided)

    def committed(self) -> None:
        """Answer what the high watermark has passed."""
        mark, waiting = self.partition.log.high_watermark, self._waiting
        while waiting and waiting[0][0] <= mark:
            _, peer, correlation_id, message = waiting.popleft()
            self._waiting_items -= _items(message)
            self._outbox.answer(peer, correlation_id, message)
        while self._calls and self._calls[0][0] <= mark:
            self._calls.popleft()[1](ErrorCode.NONE)

    def abandon(self, code: ErrorCode) -> None:
        """Refuse what still waits: another coordinator, or the next load, tells what became of it."""
        for _, peer, correlation_id, _ in self._waiting:
            self._outbox.refuse(peer, correlation_id, code, "the outcome is unknown")
        for peer, correlation_id, _ in self._undecided:
            self._outbox.refuse(peer, correlation_id, code, "the outcome is unknown")
        if self.shard is not None:
            for peer, correlation_id in self.shard.waiting():
                self._outbox.refuse(peer, correlation_id, code, "the outcome is unknown")
        for call in (*(call for _, call in self._calls), *self._calls_undecided):
            call(code)
        self.shard = None
        self._calls.clear()
        self._calls_undecided.clear()
        self._waiting.clear()
        self._undecided.clear()
        self._waiting_items = 0
        self._facts.clear()


def _items(message: Message) -> int:
    """Return how many objects an answer is made of, beside itself."""
    match message:
        case OffsetFetchResponse(offsets=items) | JoinGroupResponse(members=items):
            return len(items)
    return 0


def _batches(facts: Sequence[Fact], wall_ms: int, bytes_max: int) -> Iterator[bytes]:
    """Encode facts as batches of no more bytes than these; each holds one fact at least."""
    keys: list[bytes] = []
    values: list[bytes | None] = []
    size = BATCH_BYTES
    for fact in facts:
        key, value = encode(fact.key), None if fact.value is None else encode(fact.value)
        room = RECORD_BYTES + len(key) + len(value or b"")
        if keys and (size + room > bytes_max or len(keys) == FACTS_IN_BATCH):
            yield encode_batch([wall_ms] * len(keys), keys, values)
            keys, values, size = [], [], BATCH_BYTES
        keys.append(key)
        values.append(value)
        size += room
    if keys:
        yield encode_batch([wall_ms] * len(keys), keys, values)
