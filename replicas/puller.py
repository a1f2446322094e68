"""Pull from one leader: one fetch under way for all partitions followed from that broker.

The next fetch leaves when what came before is on the disk, for it is the acknowledgement. An answer counts for a
partition only if it answers the fetch under way, comes from the leader epoch that is followed, and finds the log's end
where it was when the fetch left: anything else is a late word of the past. The owner sends the requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ingest.errors import CorruptBatch, LogDirOffline, StorageError, UnsupportedFormat
from ingest.limits import LIMITS
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import FetchedPartition, FetchPartition, FetchRequest, FetchResponse, FetchSession
from replicas.follower import Action, GoOffline, Refill, Truncate, on_diverged, on_out_of_range
from replicas.log import Log
from replicas.throttle import Throttle

if TYPE_CHECKING:
    from typing_extensions import Buffer

Key = tuple[bytes, int]

RETRY_MS = 20  # after a refusal: metadata is on its way
REFUSED_RETRY_MS_MAX = 1000


@dataclass(frozen=True, slots=True)
class PullSettings:
    """What a broker's configuration says about its fetches from leaders.

    Attributes:
        wait_max_ms, partition_bytes_max, bytes_max: `replica.fetch.wait.max.ms`, `replica.fetch.max.bytes`,
            `replica.fetch.response.max.bytes`.
        grace_ms: How much longer than the wait an answer may take: a leader that stands still is asked again.
    """

    wait_max_ms: int = 500
    partition_bytes_max: int = 1 << 20
    bytes_max: int = 10 << 20
    grace_ms: int = 1500


class Followed:
    """One partition as its follower sees it.

    Attributes:
        durable: An append counts once it is on the disk.
        offline: Why it is not followed any more, empty if it is.
    """

    __slots__ = ("durable", "leader_epoch", "log", "offline", "refusals", "retry_at_ms", "unclean_epoch")

    def __init__(self, log: Log, leader_epoch: int, *, durable: bool, unclean_epoch: int) -> None:
        self.log = log
        self.leader_epoch = leader_epoch
        self.durable = durable
        self.unclean_epoch = unclean_epoch
        self.offline = ""
        self.refusals = 0
        self.retry_at_ms = 0

    @property
    def settled(self) -> bool:
        """Whether what it holds is where it counts."""
        return not self.durable or self.log.flushed_end >= self.log.end_offset


@dataclass(slots=True)
class Pulled:
    """What came of an answer.

    Attributes:
        appended: Partitions that got records, to be flushed where that is awaited, and how many bytes.
        changed: Partitions whose log was cut, or whose marks moved.
        offline: Partitions that can't be followed, with the reason.
        refill: Partitions whose log is of no use, with the reason.
    """

    appended: dict[Key, int] = field(default_factory=dict)
    changed: list[Key] = field(default_factory=list)
    offline: list[tuple[Key, str]] = field(default_factory=list)
    refill: list[tuple[Key, str]] = field(default_factory=list)
    records: int = 0


@dataclass(frozen=True, slots=True)
class _UnderWay:
    number: int
    deadline_ms: int


class Puller:
    """Follow what one broker leads. Thread: the owner's.

    A fetch costs by the number of partitions that have news, not by those that are followed.

    Attributes:
        followed: By partition.
        corrupt: Answers whose batches did not verify.
    """

    def __init__(self, broker_id: int, leader_id: int, settings: PullSettings, throttle: Throttle) -> None:
        """Follow nothing yet.

        Args:
            throttle: Of what this broker fetches for replicas that catch up, from whatever leader.
        """
        self._throttle = throttle
        self._throttled: set[Key] = set()
        self._broker_id = broker_id
        self.leader_id = leader_id
        self.settings = settings
        self.followed: dict[Key, Followed] = {}
        self._under_way: _UnderWay | None = None
        self._number = 0
        self._session_id = 0
        self._session_epoch = 0
        self._told: dict[Key, FetchPartition] = {}  # the positions the leader has
        self._stale: dict[Key, None] = {}  # whose position may be another by now
        self._dropped: dict[Key, None] = {}  # told, and not asked for any more
        self._resting: dict[Key, None] = {}  # refused or throttled, and left out for a while
        self._unsettled: set[Key] = set()
        self._interrupted = False
        self._retry_at_ms = 0
        self.corrupt = 0

    # ---- what is followed

    def follow(self, key: Key, followed: Followed) -> None:
        """Follow a partition from now on, under a newer leader epoch if it was followed already."""
        self.followed[key] = followed
        self._resting.pop(key, None)
        self._unsettled.add(key)
        self._stale[key] = None
        self._interrupted = self._under_way is not None

    def forget(self, key: Key) -> None:
        """Follow a partition no longer; an answer under way counts for nothing."""
        self.followed.pop(key, None)
        self._throttled.discard(key)
        self._unsettled.discard(key)
        self._resting.pop(key, None)
        self._leave_out(key)

    def set_durable(self, key: Key, durable: bool) -> None:
        """Follow a change of the topic's durability: what is on the disk counts from now on, or does not."""
        if self.followed[key].durable != durable:
            self.followed[key].durable = durable
            self._unsettled.add(key)
            self._stale[key] = None

    def cleaned(self, key: Key) -> None:
        """Tell the leader, with the next fetch, that more of a log is compacted."""
        if key in self._told:
            self._stale[key] = None

    def set_throttled(self, key: Key, throttled: bool) -> None:
        """Count what comes of a partition for the throttle, while it catches up; in sync it does not wait for that."""
        if throttled:
            self._throttled.add(key)
        elif key in self._throttled:
            self._throttled.discard(key)
            if key in self._resting:
                self.followed[key].retry_at_ms = 0
                self._interrupted = self._under_way is not None

    def _leave_out(self, key: Key) -> None:
        self._stale.pop(key, None)
        if self._told.pop(key, None) is not None:
            self._dropped[key] = None

    # ---- out

    def request(self, broker_epoch: int, now_ms: int) -> tuple[int, FetchRequest, int] | None:
        """Return (number, request, timeout) if one is due."""
        if now_ms < self._retry_at_ms or not self._settled():
            return None
        if self._under_way is not None:
            if not self._interrupted:
                return None
            # The fetch under way waits for other partitions, perhaps for long. Its answer will count for nothing, so
            # the leader must hear all positions again.
            self._under_way, self._session_epoch = None, 0
        for key in [key for key in self._resting if self.followed[key].retry_at_ms <= now_ms]:
            del self._resting[key]
            self._stale[key] = None
        if self._throttled and not self._throttle.room(now_ms):
            until_ms = min(self._throttle.ready_ms(), now_ms + REFUSED_RETRY_MS_MAX)  # the rate may change
            for key in self._throttled:
                if not self.followed[key].offline:
                    self._rest(key, max(self.followed[key].retry_at_ms, until_ms))
        if self._session_epoch == 0:
            self._session_id += 1
            self._told.clear()
            self._dropped.clear()
            self._stale = {key: None for key, followed in self.followed.items() if not followed.offline}
            for key in self._resting:
                self._stale.pop(key, None)
        news = []
        for key in self._stale:
            position = self._position(key, self.followed[key])
            if self._told.get(key) != position:
                self._told[key] = position
                self._dropped.pop(key, None)
                news.append(position)
        self._stale.clear()
        if not self._told:
            return None
        forgotten, self._dropped = list(self._dropped), {}
        session = FetchSession(self._broker_id, broker_epoch, self._session_id, self._session_epoch, forgotten)
        self._session_epoch += 1
        self._number += 1
        self._interrupted = False
        wait_ms = self.settings.wait_max_ms
        if self._resting:
            wait_ms = min(wait_ms, max(1, self._rested_ms() - now_ms))
        timeout_ms = wait_ms + self.settings.grace_ms
        self._under_way = _UnderWay(self._number, now_ms + timeout_ms)
        return self._number, FetchRequest(wait_ms, 1, self.settings.bytes_max, news, session), timeout_ms

    def _settled(self) -> bool:
        if self._unsettled:
            self._unsettled = {
                key for key in self._unsettled if (f := self.followed.get(key)) is not None and not f.settled
            }
        return not self._unsettled

    def _rested_ms(self) -> int:
        return min(self.followed[key].retry_at_ms for key in self._resting)

    def _position(self, key: Key, followed: Followed) -> FetchPartition:
        log = followed.log
        return FetchPartition(
            *key,
            log.end_offset,
            self.settings.partition_bytes_max,
            followed.leader_epoch,
            log.last_epoch,
            log.flushed_end,
            log.cleaned_end,
        )

    def deadline_ms(self) -> int | None:
        """Return when `request` or `expire` has something to do at the latest, None: after an answer or a flush."""
        if self._under_way is not None and not self._interrupted:
            return self._under_way.deadline_ms
        if self._unsettled:
            return None
        if self._told or self._stale:
            return self._retry_at_ms
        return max(self._retry_at_ms, self._rested_ms()) if self._resting else None

    # ---- in

    def expire(self, now_ms: int) -> bool:
        """Give up on an answer that is overdue; tell whether there was one: its connection is to be made anew."""
        if self._under_way is None or self._under_way.deadline_ms > now_ms:
            return False
        self.on_lost(now_ms)
        return True

    def on_lost(self, now_ms: int) -> None:
        """The connection is gone, or another: no answer will come, and the leader may have forgotten the session."""
        if self._under_way is not None:
            self._retry_at_ms = now_ms + RETRY_MS
        self._under_way = None
        self._session_epoch = 0

    def on_refused(self, number: int, now_ms: int) -> None:
        """The leader refused the whole fetch."""
        if self._under_way is not None and self._under_way.number == number:
            self.on_lost(now_ms)

    def on_answer(
        self, number: int, response: FetchResponse, payload: Sequence[Buffer], *, now_ms: int, wall_ms: int
    ) -> Pulled:
        """Take the leader's answer.

        Raises:
            LogDirOffline: the directory failed.
        """
        under_way = self._under_way
        pulled = Pulled()
        if under_way is None or under_way.number != number:
            return pulled
        self._under_way = None
        for result in response.partitions:
            key = (result.topic_id, result.partition)
            followed = self.followed.get(key)
            told = self._told.get(key)
            if result.error_code or result.diverging_end_offset >= 0:
                self._told.pop(key, None)  # the leader has dropped the position, and wants to hear it again
            if followed is None or followed.offline:
                continue
            self._stale[key] = None
            if told is None or not self._is_current(told, followed, result):
                continue
            try:
                self._take(key, followed, result, payload, now_ms, wall_ms, pulled)
            except LogDirOffline:
                raise
            except (CorruptBatch, UnsupportedFormat):
                self.corrupt += 1
                self._refuse(key, followed, now_ms)
            except StorageError:  # no room, no descriptor: this partition's trouble alone
                self._refuse(key, followed, now_ms)
        return pulled

    def _is_current(self, told: FetchPartition, followed: Followed, result: FetchedPartition) -> bool:
        """Tell whether the answer is about the log as it is now, from the leader that is followed."""
        return (told.leader_epoch, told.offset) == (followed.leader_epoch, followed.log.end_offset) and (
            bool(result.error_code) or result.leader_epoch == followed.leader_epoch
        )

    def _take(
        self,
        key: Key,
        followed: Followed,
        result: FetchedPartition,
        payload: Sequence[Buffer],
        now_ms: int,
        wall_ms: int,
        pulled: Pulled,
    ) -> None:
        log = followed.log
        if result.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            self._act(key, followed, on_out_of_range(log, result.log_start_offset), now_ms, pulled)
            return
        if result.error_code:
            self._refuse(key, followed, now_ms)
            return
        if result.diverging_end_offset >= 0:
            action = on_diverged(
                log, result.diverging_epoch, result.diverging_end_offset, unclean_epoch=followed.unclean_epoch
            )
            self._act(key, followed, action, now_ms, pulled)
            return
        followed.refusals = 0
        if 0 <= result.frame < min(len(payload), LIMITS.payload_frames_max):
            batches = payload[result.frame]
            pulled.records += log.append_replicated(batches, wall_ms=wall_ms)
            size = pulled.appended[key] = memoryview(batches).nbytes
            if key in self._throttled:
                self._throttle.spend(size, now_ms)
            self._unsettled.add(key)
        marks = (log.high_watermark, log.start_offset)
        log.advance_high_watermark(max(log.high_watermark, min(result.high_watermark, log.end_offset)))
        if result.log_start_offset > log.start_offset:
            log.delete_records(min(result.log_start_offset, log.high_watermark))
        if marks != (log.high_watermark, log.start_offset):
            pulled.changed.append(key)

    def _act(self, key: Key, followed: Followed, action: Action | None, now_ms: int, pulled: Pulled) -> None:
        log = followed.log
        if isinstance(action, GoOffline):
            followed.offline = action.reason
            self._leave_out(key)
            pulled.offline.append((key, action.reason))
        elif isinstance(action, Refill):
            self._refuse(key, followed, now_ms)
            pulled.refill.append((key, action.reason))
        elif action is None or log.flush_under_way:  # what is being flushed may be what has to go: ask again after that
            self._refuse(key, followed, now_ms)
        elif isinstance(action, Truncate):
            log.truncate_to(action.offset)
            pulled.changed.append(key)
            self._unsettled.add(key)
        else:
            log.restart_at(action.offset)
            pulled.changed.append(key)
            self._unsettled.add(key)

    def _refuse(self, key: Key, followed: Followed, now_ms: int) -> None:
        """Leave a partition out for a while; its position is told anew after that."""
        followed.refusals += 1
        self._rest(key, now_ms + min(REFUSED_RETRY_MS_MAX, RETRY_MS << min(followed.refusals - 1, 6)))

    def _rest(self, key: Key, until_ms: int) -> None:
        self._leave_out(key)
        self._resting[key] = None
        self.followed[key].retry_at_ms = until_ms
