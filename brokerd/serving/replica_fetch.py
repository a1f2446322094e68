"""Fetches of followers: all that is appended, as soon as there is something, in sessions that name only what is new.

A session lives as long as the follower goes on fetching; it holds one position for each partition followed here. What
has news is kept beside, so that neither a request nor an answer costs by the number of partitions. Source: KIP-227.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from brokerd.serving.deadlines import Deadlines
from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.partition import Find, Partition
from brokerd.serving.unsent import UnsentAnswers
from ingest.errors import CorruptBatch, LogDirOffline, StorageError
from ingest.limits import LIMITS
from ingest.records.header import decode_header
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request
from ingest.wire.messages import FetchedPartition, FetchPartition, FetchRequest, FetchResponse, FetchSession
from replicas.leader import ReplicaEnd
from replicas.throttle import Throttle

if TYPE_CHECKING:
    from typing_extensions import Buffer

Key = tuple[bytes, int]


class _Parked:
    """A follower's fetch that found nothing new."""

    __slots__ = ("body", "correlation_id", "done", "peer", "session")

    def __init__(self, peer: Peer, correlation_id: int, body: FetchRequest, session: _Session) -> None:
        self.peer = peer
        self.correlation_id = correlation_id
        self.body = body
        self.session = session
        self.done = False


@dataclass(slots=True, eq=False)
class _Session:
    """One follower's.

    Attributes:
        epoch: Of the next fetch.
        news: Partitions with records, an error or a divergence to tell; they end the wait.
        marks: Partitions whose high watermark or log start has moved since it was told; they go with an answer.
        told: The high watermark it was told last.
        held: Partitions with records that wait for the throttle, and not to be in the news before.
        throttled_ms: When it was last given some of what the throttle allows.
    """

    broker_id: int
    broker_epoch: int
    session_id: int
    epoch: int = 0
    positions: dict[Key, FetchPartition] = field(default_factory=dict)
    news: dict[Key, None] = field(default_factory=dict)
    marks: dict[Key, None] = field(default_factory=dict)
    told: dict[Key, int] = field(default_factory=dict)
    held: dict[Key, None] = field(default_factory=dict)
    throttled_ms: int = 0
    parked: _Parked | None = None


class ReplicaFetchRoom:
    """Serve followers. Thread: the broker loop.

    Attributes:
        moved: Partitions whose high watermark a fetch has moved; the owner takes them.
        checked: Partitions whose in-sync set may have to change; the owner takes them.
        tells_marks: A high watermark that has moved ends the wait too: readers at followers wait for it (KIP-392). It
            costs another fetch of each follower whenever a mark moves and nothing else does.
        damaged: Partitions in which damage was met, and where; the owner takes them.
    """

    def __init__(
        self,
        find: Find,
        broker_epoch: Callable[[int], int],
        outbox: Outbox,
        response_bytes_max: int,
        unsent: UnsentAnswers,
        throttle: Throttle,
    ) -> None:
        self._find = find
        self._throttle = throttle
        self._broker_epoch = broker_epoch
        self._outbox = outbox
        self._response_bytes_max = response_bytes_max
        self._unsent = unsent
        self._sessions: dict[int, _Session] = {}
        self._deadlines: Deadlines[_Parked] = Deadlines()
        self.moved: dict[Partition, None] = {}
        self.checked: dict[Partition, None] = {}
        self.tells_marks = False
        self.damaged: dict[Partition, str] = {}
        self.bytes_out = 0
        self.corrupt = 0

    # ---- requests

    def handle(self, peer: Peer, request: Request, now_ms: int) -> None:
        """Take note of how far a follower is; answer at once if there is something for it, else when there is."""
        body: FetchRequest = request.body
        assert body.session is not None
        session = self._session(peer, request.correlation_id, body.session, now_ms)
        if session is None:
            return
        for topic_id, partition in body.session.forgotten:
            self._forget(session, (topic_id, partition))
        for item in body.partitions:
            self._observe(session, item, now_ms)
        parked = _Parked(peer, request.correlation_id, body, session)
        if session.news or body.max_wait_ms <= 0:
            self._answer(parked, now_ms)
            return
        session.parked = parked
        self._deadlines.add(now_ms + min(body.max_wait_ms, request.timeout_ms), parked)

    def _session(self, peer: Peer, correlation_id: int, told: FetchSession, now_ms: int) -> _Session | None:
        """Return the session a fetch belongs to; refuse one of an earlier incarnation, or out of turn."""
        registered = self._broker_epoch(told.broker_id)
        session = self._sessions.get(told.broker_id)
        if told.broker_epoch != registered or registered < 0:  # nobody: each would leave a session behind
            stale = told.broker_epoch < registered
            code = ErrorCode.STALE_BROKER_EPOCH if stale else ErrorCode.REPLICA_NOT_AVAILABLE
            text = f"broker {told.broker_id} has broker epoch {registered} here, not {told.broker_epoch}"
            self._outbox.refuse(peer, correlation_id, code, text)
            return None
        if told.epoch == 0:
            self._end(session)
            session = self._sessions[told.broker_id] = _Session(told.broker_id, told.broker_epoch, told.session_id)
        elif session is None or (session.broker_epoch, session.session_id) != (told.broker_epoch, told.session_id):
            text = "this broker does not know the session; begin another"
            self._outbox.refuse(peer, correlation_id, ErrorCode.FETCH_SESSION_ID_NOT_FOUND, text)
            return None
        elif told.epoch != session.epoch:
            text = f"session epoch {told.epoch}, due is {session.epoch}"
            self._outbox.refuse(peer, correlation_id, ErrorCode.INVALID_FETCH_SESSION_EPOCH, text)
            return None
        else:
            self._wake(session, now_ms)
        session.epoch = told.epoch + 1
        return session

    def _end(self, session: _Session | None) -> None:
        """Drop a session; what it waited for has no one to go to."""
        if session is not None and session.parked is not None:
            session.parked.done = True

    def _forget(self, session: _Session, key: Key) -> None:
        session.positions.pop(key, None)
        session.news.pop(key, None)
        session.marks.pop(key, None)
        session.told.pop(key, None)
        session.held.pop(key, None)

    def _is_told(self, session: _Session, item: FetchPartition, high_watermark: int) -> bool:
        """Whether the follower knows of its log all that is committed."""
        key = (item.topic_id, item.partition)
        return not self.tells_marks or min(item.offset, high_watermark) <= session.told.get(key, 0)

    def _observe(self, session: _Session, item: FetchPartition, now_ms: int) -> None:
        key = (item.topic_id, item.partition)
        session.positions[key] = item
        session.marks[key] = None
        session.news.pop(key, None)
        session.held.pop(key, None)
        found = self._find(*key)
        if isinstance(found, ErrorCode) or _is_contradicted(found, item):
            session.news[key] = None
            return
        end = ReplicaEnd(item.offset, min(item.flushed_end, item.offset), min(item.cleaned_end, item.offset))
        if found.fetched(session.broker_id, session.broker_epoch, end, now_ms):
            self.moved[found] = None
        self.checked[found] = None
        if found.log.end_offset > item.offset:
            self._note_records(session, found, now_ms)
        if not self._is_told(session, item, found.log.high_watermark):
            session.news[key] = None

    def _note_records(self, session: _Session, partition: Partition, now_ms: int) -> None:
        """Have a follower get records, now or once the throttle allows."""
        waits = partition.throttles(session.broker_id) and not self._throttle.room(now_ms)
        (session.held if waits else session.news)[partition.key] = None

    # ---- the log moves

    def _wake(self, session: _Session, now_ms: int) -> None:
        if session.parked is not None and not session.parked.done:
            self._answer(session.parked, now_ms)

    def appended(self, partitions: Iterable[Partition], now_ms: int) -> None:
        """Give the followers that wait what was appended to these."""
        for session in self._sessions.values():
            for partition in partitions:
                key = partition.key
                position = session.positions.get(key)
                if position is not None and position.offset < partition.log.end_offset:
                    self._note_records(session, partition, now_ms)
            if session.news:
                self._wake(session, now_ms)

    def advanced(self, partition: Partition, now_ms: int) -> None:
        """Note that a high watermark or log start has moved; followers hear of it with their next answer, or now."""
        key = partition.key
        for session in self._sessions.values():
            position = session.positions.get(key)
            if position is None:
                continue
            session.marks[key] = None
            if not self._is_told(session, position, partition.log.high_watermark):
                session.news[key] = None
                self._wake(session, now_ms)

    def recount(self, partition: Partition, now_ms: int) -> None:
        """Count what followers said before metadata made them replicas here: they don't say the same again."""
        leadership = partition.leadership
        for session in self._sessions.values():
            position = session.positions.get(partition.key)
            if position is not None and leadership is not None and leadership.end_of(session.broker_id) is None:
                self._observe(session, position, now_ms)

    def ended(self, partition: Partition, now_ms: int) -> None:
        """Tell followers that the partition is not led here any more."""
        key = partition.key
        for session in self._sessions.values():
            if key in session.positions:
                session.news[key] = None
                self._wake(session, now_ms)

    def expire(self, now_ms: int) -> None:
        held = [session for session in self._sessions.values() if session.held]
        for session in sorted(held, key=lambda session: session.throttled_ms):
            if not self._throttle.room(now_ms):
                break
            session.news |= session.held
            session.held = {}
            self._wake(session, now_ms)
        for parked in self._deadlines.pop_due(now_ms):
            self._answer(parked, now_ms)

    def next_deadline_ms(self) -> int | None:
        times = [] if (parked_ms := self._deadlines.next_ms()) is None else [parked_ms]
        if any(session.held for session in self._sessions.values()):
            times.append(self._throttle.ready_ms())
        return min(times, default=None)

    # ---- answers

    def _answer(self, parked: _Parked, now_ms: int) -> None:
        parked.done = True
        session = parked.session
        session.parked = None
        results: list[FetchedPartition] = []
        payload: list[Buffer] = []
        left = min(parked.body.max_bytes, self._response_bytes_max, self._unsent.room(parked.peer.connection))
        postponed: dict[Key, None] = {}
        for key in (*session.news, *(key for key in session.marks if key not in session.news)):
            position = session.positions.get(key)
            if position is None:
                continue
            room = left if len(payload) < LIMITS.payload_frames_max else 0
            result, data = self._result(session, key, position, room, now_ms)
            if data is None:
                postponed[key] = None
            elif data:
                result = msgspec.structs.replace(result, frame=len(payload))
                payload.append(data)
                left = max(0, left - memoryview(data).nbytes)
            if key in session.positions:  # no error, no divergence
                session.told[key] = result.high_watermark
            results.append(result)
        session.news, session.marks = postponed, {}
        size = sum(memoryview(frame).nbytes for frame in payload)
        self.bytes_out += size
        self._unsent.decided(parked.peer.connection, size)
        self._outbox.answer(parked.peer, parked.correlation_id, FetchResponse(results), payload)

    def _result(
        self, session: _Session, key: Key, position: FetchPartition, room: int, now_ms: int
    ) -> tuple[FetchedPartition, Buffer | None]:
        """Return what to tell of a partition, with its records; None: there are some, and no room."""
        found = self._find(*key)
        if isinstance(found, ErrorCode):
            return self._failed(session, key, found), b""
        log = found.log
        marks = (log.high_watermark, log.start_offset, log.leader_epoch)
        try:
            contradiction = _contradiction(found, position)
            start = found.first_base() if contradiction == ErrorCode.OFFSET_OUT_OF_RANGE else log.start_offset
        except CorruptBatch as error:
            return self._damaged(session, key, found, error), b""
        if isinstance(contradiction, ErrorCode):
            return self._failed(session, key, contradiction, log.leader_epoch, start), b""
        if contradiction is not None:
            del session.positions[key]  # it comes back from where it has cut its log
            return FetchedPartition(*key, 0, *marks, -1, -1, -1, *contradiction), b""
        if log.end_offset <= position.offset:
            return FetchedPartition(*key, 0, *marks), b""
        session.held.pop(key, None)
        throttled = found.throttles(session.broker_id)
        if throttled:
            room = min(room, allowed := self._throttle.room(now_ms))
            if not allowed:
                session.held[key] = None
                return FetchedPartition(*key, 0, *marks), b""
        if not room:
            return FetchedPartition(*key, 0, *marks), None
        try:
            offset = max(position.offset, log.start_offset)
            data = log.read(offset, min(position.max_bytes, room), end=log.end_offset)
        except CorruptBatch as error:
            return self._damaged(session, key, found, error), b""
        except LogDirOffline:
            raise
        except (StorageError, OSError):  # no descriptor left, a file gone: this read's trouble alone
            return self._failed(session, key, ErrorCode.KAFKA_STORAGE_ERROR, log.leader_epoch), b""
        if decode_header(data, 0).base_offset < position.offset:  # its empty log starts amid a batch that was lost
            return self._failed(session, key, ErrorCode.OFFSET_OUT_OF_RANGE, log.leader_epoch, log.start_offset), b""
        if throttled:
            self._throttle.spend(memoryview(data).nbytes, now_ms)
            session.throttled_ms = now_ms
        return FetchedPartition(*key, 0, *marks), data

    def _damaged(self, session: _Session, key: Key, found: Partition, error: CorruptBatch) -> FetchedPartition:
        self.corrupt += 1
        self.damaged[found] = str(error)
        return self._failed(session, key, ErrorCode.CORRUPT_MESSAGE, found.log.leader_epoch)

    def _failed(
        self, session: _Session, key: Key, code: ErrorCode, leader_epoch: int = -1, log_start: int = -1
    ) -> FetchedPartition:
        """Return an error; the follower names the partition anew when it tries again."""
        del session.positions[key]
        return FetchedPartition(*key, int(code), -1, log_start, leader_epoch)


def _is_contradicted(found: Partition, item: FetchPartition) -> bool:
    try:
        return _contradiction(found, item) is not None
    except CorruptBatch:
        return True


def _contradiction(found: Partition, item: FetchPartition) -> ErrorCode | tuple[int, int] | None:
    """Return why a follower can't be served from its position, or (epoch, end offset) where its log diverges.

    Raises:
        CorruptBatch: damage hides it.
    """
    code = ErrorCode.UNKNOWN_LEADER_EPOCH if item.leader_epoch < 0 else found.check_epoch(item.leader_epoch)
    if code:
        return code
    log = found.log
    lacks_the_start = item.offset < log.start_offset and item.offset < found.first_base()
    if lacks_the_start or (item.offset > log.end_offset and item.last_epoch < 0):
        return ErrorCode.OFFSET_OUT_OF_RANGE
    return found.diverging_follower(item.offset, item.last_epoch)
