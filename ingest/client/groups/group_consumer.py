"""A consumer's life in its group: partitions come and go at `poll`, positions begin where the group has committed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from ingest.client.cluster import Cluster, monotonic_ms
from ingest.client.fetcher import Fetcher
from ingest.client.groups.committed import Committed, MemberId, commit_requests, fetch_requests
from ingest.client.groups.coordinator import Coordinator
from ingest.client.groups.listener import RebalanceListener
from ingest.client.groups.member import Assign, Lose, MemberConfig, Revoke
from ingest.client.groups.membership import Membership
from ingest.client.positions import Position, TopicPartition, named
from ingest.client.wake_fd import WakeFd
from ingest.errors import CommitFailed, ForebayError, RemoteError, RequestTimedOut, UsageError
from ingest.records.batch import Record
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.group_messages import OffsetCommitResponse, OffsetFetchResponse

CALL_TIMEOUT_MS = 60_000  # Kafka's default.api.timeout.ms
REVOKE_TIMEOUT_MS = 5_000  # a commit of what is given up holds the whole group up
RETRY_MS = 20

_GONE_ON = (ErrorCode.ILLEGAL_GENERATION, ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.UNKNOWN_MEMBER_ID)

OnCommit = Callable[[Mapping[TopicPartition, Committed], ForebayError | None], None]

log = logging.getLogger("forebay.client")


class GroupSettings(NamedTuple):
    """What a consumer wants of its group."""

    member: MemberConfig
    auto_commit: bool
    auto_commit_interval_ms: int


class GroupConsumer:
    """One consumer's side of its group. Thread: the consumer's.

    Args:
        cluster, fetcher: The consumer's.
    """

    def __init__(
        self, bootstrap: str, cluster: Cluster, fetcher: Fetcher, settings: GroupSettings, *, client_id: str
    ) -> None:
        self._bootstrap = bootstrap
        self._cluster = cluster
        self._fetcher = fetcher
        self._settings = settings
        self._client_id = client_id
        self._coordinator = Coordinator(cluster, settings.member.group)
        self._membership: Membership | None = None
        self._listener = RebalanceListener()
        self._failure: ForebayError | None = None
        self._commit_at_ms = 0
        self._committed: dict[TopicPartition, int] = {}  # what auto commit has seen committed
        self._begun: set[TopicPartition] = set()  # where nothing is committed yet
        self._settling = False
        self._retry: list[list[tuple[Position, int]]] = []
        self._news = WakeFd()
        cluster.watch(self._news)

    # ---- which partitions --------------------------------------------------------------------------------------------

    def subscribe(
        self, topics: Collection[str], pattern: re.Pattern[str] | None, listener: RebalanceListener | None
    ) -> None:
        """Share these topics with the group."""
        self._listener = listener or RebalanceListener()
        if self._membership is None:
            membership = Membership(self._bootstrap, self._settings.member, self._news, client_id=self._client_id)
            self._membership = membership
        self._membership.subscribe(topics, pattern)

    def unsubscribe(self) -> None:
        """Leave the group: what was read is committed if auto commit is on, then let go of."""
        membership = self._membership
        if membership is None:
            return
        try:
            self._give_up(list(self._fetcher.positions))
        finally:
            self._membership = None
            membership.close()

    @property
    def subscribed(self) -> bool:
        """Whether the group says what is read."""
        return self._membership is not None

    def start_at_committed(self, names: Iterable[TopicPartition]) -> None:
        """Let partitions begin where the group has committed, or where `auto_offset_reset` says."""
        waiting = [self._fetcher.positions[name] for name in names]
        for position in waiting:
            position.asking = True
        self._fetch_committed([(position, position.generation) for position in waiting])

    def _fetch_committed(self, waiting: list[tuple[Position, int]]) -> None:
        waiting = [(position, then) for position, then in waiting if self._still_waits(position, then)]
        known = [item for item in waiting if item[0].name.topic in self._cluster.topics]
        if len(known) < len(waiting):  # metadata of their topics has not come yet
            self._retry.append([item for item in waiting if item not in known])
        if not known:
            return
        names = [position.name for position, _ in known]
        start = 0
        for request in fetch_requests(self._cluster, self._settings.member.group, names):
            assert request.partitions is not None
            part = known[start : start + len(request.partitions)]
            start += len(request.partitions)

            self._coordinator.ask(request, partial(self._fetched, part), timeout_ms=CALL_TIMEOUT_MS)

    def _fetched(self, part: list[tuple[Position, int]], body: OffsetFetchResponse, error: ForebayError | None) -> None:
        if isinstance(error, RequestTimedOut):
            self._retry.append(part)
        elif error is not None:
            self._failure = error
        else:
            for (position, then), item in zip(part, body.offsets, strict=True):
                if self._still_waits(position, then):
                    self._begin(position, item.offset, item.leader_epoch)

    def _still_waits(self, position: Position, generation: int) -> bool:
        return position.generation == generation and self._fetcher.positions.get(position.name) is position

    def _begin(self, position: Position, offset: int, epoch: int) -> None:
        if offset >= 0:
            self._committed[position.name] = offset
            position.seek(offset, epoch)
        else:
            position.asking = False
            self._begun.add(position.name)

    # ---- at every poll -----------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Take the coordinator's answers; partitions neither come nor go.

        Raises:
            ForebayError: the coordinator refused for good.
        """
        self._coordinator.poll()
        again, self._retry = self._retry, []
        for waiting in again:
            self._fetch_committed(waiting)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def poll(self) -> None:
        """Do what the group asks for.

        Raises:
            ForebayError: the group does not take this member, or the coordinator refused for good; or a listener's.
        """
        self.serve()
        if self._settling:
            return
        if self._membership is not None:
            self._settle(self._membership)
        if self._begun and self._settings.auto_commit:
            self._commit_starts()

    def _settle(self, membership: Membership) -> None:
        """Do what is to be done for the group to go on."""
        membership.polled()
        self._settling = True
        try:
            while (change := membership.change()) is not None:
                match change:
                    case Revoke(partitions):
                        self._give_up(sorted(partitions))
                        membership.settled(change)
                    case Lose(partitions):
                        self._drop(partitions)
                        membership.settled(change)
                        self._listener.on_partitions_lost(sorted(partitions))
                    case Assign(partitions) if membership.settled(change):
                        self._take(sorted(partitions))
        finally:
            self._settling = False

    def _commit_starts(self) -> None:
        """Commit where partitions begin before anything of them is handed out: who takes over begins there as well."""
        self._begun &= self._fetcher.positions.keys()
        starts = {name: item for name, item in self.positions().items() if name in self._begun}
        if self._membership is not None and not starts.keys() <= self._membership.owned():
            return
        self._begun -= starts.keys()
        try:
            self.commit(starts, timeout_ms=REVOKE_TIMEOUT_MS)
        except ForebayError as error:
            if isinstance(error, RemoteError) and error.code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                self._begun |= starts.keys()  # the coordinator hears of a new partition a little later
            else:
                log.warning("where reading begins was not committed: %s", error)

    def _take(self, names: Sequence[TopicPartition]) -> None:
        self._fetcher.assign([*self._fetcher.positions, *names])
        self.start_at_committed(names)
        self._listener.on_partitions_assigned(names)

    def _give_up(self, names: Sequence[TopicPartition]) -> None:
        if self._settings.auto_commit:
            done = {name: item for name, item in self._handed_out().items() if name in names}
            try:
                self.commit(done, timeout_ms=REVOKE_TIMEOUT_MS)
            except ForebayError as error:
                log.warning("what was read was not committed before it went to others: %s", error)
        if names:
            self._listener.on_partitions_revoked(names)
        self._drop(names)

    def _drop(self, names: Collection[TopicPartition]) -> None:
        gone = set(names)
        self._fetcher.assign([name for name in self._fetcher.positions if name not in gone])
        for name in gone:
            self._committed.pop(name, None)

    def auto_commit(self) -> None:
        """Commit, from time to time, what the caller has been handed: it asks for more, so it is done with that."""
        now_ms = monotonic_ms()
        if not self._settings.auto_commit or now_ms < self._commit_at_ms:
            return
        self._commit_at_ms = now_ms + self._settings.auto_commit_interval_ms
        offsets = self._handed_out()
        if self._membership is not None:
            owned = self._membership.owned()
            offsets = {name: item for name, item in offsets.items() if name in owned}
        if offsets and not self._coordinator.busy:
            self.commit_async(offsets, None)

    def _handed_out(self) -> dict[TopicPartition, Committed]:
        """Return the positions that were not committed yet."""
        return {
            name: Committed(position.offset, "", position.epoch)
            for name, position in self._fetcher.positions.items()
            if position.offset >= 0 and not position.asking and self._committed.get(name) != position.offset
        }

    # ---- committing --------------------------------------------------------------------------------------------------

    def positions(self) -> dict[TopicPartition, Committed]:
        """Return where the next poll goes on, as what can be committed."""
        return {
            name: Committed(position.offset, "", position.epoch)
            for name, position in self._fetcher.positions.items()
            if position.offset >= 0
        }

    def commit(self, offsets: Mapping[TopicPartition, Committed], *, timeout_ms: int) -> None:
        """Commit and wait until it is stored, over a rebalance in which the partitions stay.

        Raises:
            CommitFailed: others have the partitions by now.
            RemoteError, RequestTimedOut: it was refused, or not answered in time.
        """
        if not offsets:
            return
        deadline_ms = monotonic_ms() + timeout_ms
        while True:
            identity = self._identity(offsets)
            try:
                for request in commit_requests(self._cluster, self._settings.member.group, offsets, identity):
                    left_ms = max(1, deadline_ms - monotonic_ms())
                    _check(self._coordinator.call(request, timeout_ms=left_ms))
                break
            except RemoteError as error:
                if error.code not in _GONE_ON:
                    raise
                if not self._may_commit_again(error, offsets) or monotonic_ms() >= deadline_ms:
                    raise CommitFailed(f"{error}; others have these partitions", code=error.code) from None
            self._cluster.poll()
            self._cluster.wait(RETRY_MS)
        self._note(offsets)

    def commit_async(self, offsets: Mapping[TopicPartition, Committed], on_commit: OnCommit | None) -> None:
        """Commit without waiting; a later poll calls `on_commit` with the offsets and the error, or None."""
        try:
            requests = commit_requests(self._cluster, self._settings.member.group, offsets, self._identity(offsets))
        except ForebayError as error:
            self._committed_async(offsets, error, on_commit)
            return
        left = len(requests)
        first: list[ForebayError] = []

        def on_outcome(body: OffsetCommitResponse, error: ForebayError | None) -> None:
            nonlocal left
            left -= 1
            try:
                if error is not None:
                    raise error
                _check(body)
            except ForebayError as failed:
                first.append(failed)
            if not left:
                self._committed_async(offsets, first[0] if first else None, on_commit)

        for request in requests:
            self._coordinator.ask(request, on_outcome, timeout_ms=CALL_TIMEOUT_MS)

    def _committed_async(
        self, offsets: Mapping[TopicPartition, Committed], error: ForebayError | None, on_commit: OnCommit | None
    ) -> None:
        if error is None:
            self._note(offsets)
        elif on_commit is None:
            log.info("a commit failed, the next one makes up for it: %s", error)
        if on_commit is not None:
            on_commit(offsets, error)

    def _note(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        self._committed.update((name, item.offset) for name, item in offsets.items())

    def identity(self) -> MemberId | None:
        """Return under what commits are made: nobody's if nothing is subscribed to; None: it is no member now."""
        return MemberId() if self._membership is None else self._membership.identity()

    def _identity(self, names: Collection[TopicPartition]) -> MemberId:
        if self._membership is None:
            return MemberId()
        identity = self._membership.identity(names)
        if identity is None:
            owned = self._membership.owned()
            foreign = [f"{name.topic}-{name.partition}" for name in names if name not in owned]
            member = self._settings.member
            text = f"group {member.group}: {', '.join(foreign[:5]) or 'what was read'} is not this member's now"
            if self._membership.was_late:
                text += f": it did not poll for max_poll_interval_ms={member.max_poll_interval_ms}"
            raise CommitFailed(text, code=int(ErrorCode.UNKNOWN_MEMBER_ID))
        return identity

    def _may_commit_again(self, error: RemoteError, offsets: Mapping[TopicPartition, Committed]) -> bool:
        """Tell whether the group has only gone on to another generation, in which the partitions stay here."""
        if self._membership is None or error.code == ErrorCode.UNKNOWN_MEMBER_ID:
            return False
        return self._membership.identity(offsets) is not None

    def committed(self, names: Sequence[TopicPartition], *, timeout_ms: int) -> dict[TopicPartition, Committed | None]:
        """Return what is committed for partitions, None where nothing is."""
        found: list[Committed | None] = []
        for request in fetch_requests(self._cluster, self._settings.member.group, names):
            body = self._coordinator.call(request, timeout_ms=timeout_ms)
            for item in body.offsets:
                value = Committed(item.offset, item.metadata, item.leader_epoch)
                found.append(value if item.offset >= 0 else None)
        return dict(zip(names, found, strict=True))

    @property
    def busy(self) -> bool:
        """Whether answers of the coordinator are awaited."""
        return self._coordinator.busy or bool(self._retry)

    def drop(self) -> None:
        """Leave the group without waiting for it, and commit nothing."""
        if self._membership is not None:
            self._membership.stop()

    def close(self, *, commit: bool) -> None:
        """Leave the group; with `commit` what was handed out is committed first, if auto commit is on."""
        if not commit:
            self._settings = self._settings._replace(auto_commit=False)
        try:
            if self._membership is not None:
                self.unsubscribe()
            elif self._settings.auto_commit:
                self.commit(self._handed_out(), timeout_ms=REVOKE_TIMEOUT_MS)
        except ForebayError as error:
            log.warning("what was read last was not committed: %s", error)


def to_commit(
    offsets: Mapping[tuple[str, int], int | tuple[int, str]] | Record,
    metadata: str,
    positions: Mapping[TopicPartition, Position],
) -> dict[TopicPartition, Committed]:
    """Return what a caller wants committed, with the leader epoch of what was read before it where that is known.

    Raises:
        UsageError: an offset is negative, or something names no partition.
    """
    if isinstance(offsets, Record):
        name = TopicPartition(offsets.topic, offsets.partition)
        return {name: Committed(offsets.offset + 1, metadata, offsets.leader_epoch)}
    if not isinstance(offsets, Mapping):
        raise UsageError("commit takes offsets by (topic, partition), or a Record")
    if not isinstance(metadata, str):
        raise UsageError(f"metadata={metadata!r} is no text")
    found = {}
    for name, given in zip(named(offsets), offsets.values(), strict=True):
        item = Committed(*given) if isinstance(given, tuple) else Committed(given, metadata)
        if not hasattr(item.offset, "__index__") or not isinstance(item.metadata, str):
            raise UsageError(f"{name.topic}-{name.partition}: {given!r} is no offset, nor an offset and a text")
        item = item._replace(offset=int(item.offset))  # a numpy integer, too
        if item.offset < 0:
            raise UsageError(f"{name.topic}-{name.partition}: offset {item.offset} is negative")
        position = positions.get(name)
        if item.leader_epoch < 0 and position is not None and item.offset == position.offset:
            item = item._replace(leader_epoch=position.epoch)
        found[name] = item
    return found


def _check(body: OffsetCommitResponse) -> None:
    """Raise for the first partition that was refused."""
    for code in body.offsets:
        if code:
            raise error_from_code(code, body.message or "a partition's offset was not committed")
