"""The groups of one partition of `__consumer_offsets`: requests in, facts and answers out. Pure.

What a call decides is in force at once, here; the caller stores its facts and answers once they are committed, with all
that was decided before them. A store that fails ends the shard: the next one is loaded from what is stored. Source: the
coordinator runtime of KIP-848; attacks C19 and L10 of the design.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from brokerd.groups.config import GroupConfig
from brokerd.groups.group import Group, GroupState
from brokerd.groups.member import Effects, Token
from brokerd.groups.offsets import CommittedOffsets, Place, text_bytes
from brokerd.groups.records import AgeKey, AgeValue, Fact, GroupKey, GroupValue, OffsetKey, OffsetValue
from ingest.limits import MIB
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import (
    CONSUMER_PROTOCOL,
    DescribedGroup,
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    ListedGroup,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)

AGE_EVERY_MS = 3_600_000  # how often the age is stored while nothing else is
EXPIRE_EVERY_MS = 60_000  # Kafka's offsets.retention.check.interval.ms is ten minutes
FACTS_AT_ONCE = 2_000  # of those forgotten for their age or with their topic, between two looks at the sockets
GROUPS_AT_ONCE = 2_000  # whose age is looked at: about as long
FETCH_BYTES = MIB  # of offsets in one answer: a header frame holds 8 MiB, and others wait while it is made
OFFSET_MAX = 2**63 - 1  # int64
DUE_SPARE = 1_000  # times that are not due any more, before they are cleared away


class Shard:
    """Groups and their offsets. Thread: the broker loop."""

    def __init__(self, config: GroupConfig) -> None:
        self._config = config
        self.groups: dict[str, Group] = {}
        self.offsets = CommittedOffsets()
        self._age_ms = 0
        self._age_since_ms = 0
        self._age_stored_ms = 0
        self._due: list[tuple[int, str]] = []
        self._due_at: dict[str, int] = {}
        self._expire_at_ms = 0
        self._to_expire: deque[str] = deque()
        self._deleted_topics: Collection[bytes] = ()
        self._forgets_topics = False
        self._held: dict[str, int] = {}  # by group
        self._held_bytes = 0

    def configure(self, config: GroupConfig) -> None:
        """Take other settings."""
        self._config = config
        for group in self.groups.values():
            group.config = config

    # ---- what is stored ----------------------------------------------------------------------------------------------

    def replay(self, fact: Fact, now_ms: int) -> None:
        """Take a stored fact; of those under one key the latest counts."""
        match fact:
            case Fact(key=GroupKey(group=name), value=GroupValue() as value):
                self.groups[name] = Group(name, self._config)
                self.groups[name].load(value, now_ms)
                self._measure(name)
            case _:
                self._apply(fact)
        if fact.value is not None:
            self._age_ms = max(self._age_ms, fact.value.age_ms)

    def _apply(self, fact: Fact) -> None:
        match fact:
            case Fact(key=OffsetKey() as key, value=OffsetValue() | None as value):
                self.offsets.apply(key, value)
            case Fact(key=GroupKey(group=name), value=None):
                self.groups.pop(name, None)
                self._measure(name)

    def loaded(self, now_ms: int) -> Effects:
        """Begin to coordinate: what was replayed is all there is."""
        self._age_since_ms = now_ms
        self._age_stored_ms = self._age_ms
        self._expire_at_ms = now_ms + EXPIRE_EVERY_MS
        effects = Effects()
        for group in self.groups.values():
            group.watch_all(effects)
            self._schedule(group)
        return effects

    def age_ms(self, now_ms: int) -> int:
        """Return for how long the partition has been coordinated, as far as is stored."""
        return self._age_ms + now_ms - self._age_since_ms

    # ---- membership --------------------------------------------------------------------------------------------------

    def join(
        self,
        request: JoinGroupRequest,
        metadata: Sequence[bytes],
        token: Token,
        new_member_id: str,
        *,
        client_id: str,
        now_ms: int,
    ) -> Effects:
        """Take a JoinGroup; a group comes to be with its first member."""
        effects = Effects()
        group = self.groups.get(request.group)
        if group is None:
            code = ErrorCode.NONE
            if request.member_id:
                code = ErrorCode.UNKNOWN_MEMBER_ID
            elif len(self.groups) >= self._config.groups_max:
                code = ErrorCode.POLICY_VIOLATION
            if code:
                effects.answers.append((token, JoinGroupResponse(int(code), request.member_id)))
                return effects
            group = Group(request.group, self._config)
        age_ms = self.age_ms(now_ms)
        group.join(
            request,
            metadata,
            token,
            new_member_id,
            client_id=client_id,
            now_ms=now_ms,
            age_ms=age_ms,
            effects=effects,
            room_bytes=self._room_bytes,
        )
        if group.members or group.pending:
            self.groups[group.name] = group
        self._schedule(group)
        return effects

    def sync(
        self, request: SyncGroupRequest, assignments: Mapping[str, bytes], token: Token, *, now_ms: int
    ) -> Effects:
        """Take a SyncGroup."""
        effects = Effects()
        group = self.groups.get(request.group)
        if group is None:
            effects.answers.append((token, SyncGroupResponse(int(ErrorCode.UNKNOWN_MEMBER_ID))))
        else:
            group.sync(request, assignments, token, now_ms=now_ms, effects=effects, room_bytes=self._room_bytes)
            self._schedule(group)
        return effects

    def heartbeat(self, request: HeartbeatRequest, token: Token, now_ms: int) -> Effects:
        """Take a Heartbeat."""
        effects = Effects()
        group = self.groups.get(request.group)
        if group is None:
            effects.answers.append((token, HeartbeatResponse(int(ErrorCode.UNKNOWN_MEMBER_ID))))
        else:
            group.heartbeat(request, token, now_ms=now_ms, effects=effects)
            if not effects.answers or effects.answers[-1][0] != token:  # it waits
                self._schedule_at(group.name, now_ms + request.max_wait_ms)
        return effects

    def leave(self, request: LeaveGroupRequest, token: Token, now_ms: int) -> Effects:
        """Take a LeaveGroup."""
        effects = Effects()
        group = self.groups.get(request.group)
        codes = [ErrorCode.UNKNOWN_MEMBER_ID] * len(request.members)
        if group is not None:
            age_ms = self.age_ms(now_ms)
            codes = [group.leave(one, now_ms=now_ms, age_ms=age_ms, effects=effects) for one in request.members]
            self._schedule(group)
        effects.answers.append((token, LeaveGroupResponse(0, [int(code) for code in codes])))
        return effects

    def process_ended(self, group_name: str, member_id: str, now_ms: int) -> Effects:
        """A member's process is no more."""
        effects = Effects()
        group = self.groups.get(group_name)
        if group is not None:
            group.process_ended(member_id, now_ms=now_ms, age_ms=self.age_ms(now_ms), effects=effects)
            self._schedule(group)
        return effects

    def watched(self, group_name: str, member_id: str) -> None:
        """A member's process is seen to live: its end will be told."""
        group = self.groups.get(group_name)
        if group is not None and member_id in group.members:
            group.members[member_id].watched = True

    # ---- offsets -----------------------------------------------------------------------------------------------------

    def commit(
        self,
        request: OffsetCommitRequest,
        unknown_topics: Collection[bytes],
        token: Token,
        *,
        wall_ms: int,
        now_ms: int,
        unknown_places: Collection[Place] = (),
    ) -> Effects:
        """Take an OffsetCommit: of a member under its generation, or of nobody while there are no members.

        Args:
            unknown_places: Partitions that their topics do not have.
        """
        effects = Effects()
        code = self._check_commit(request, now_ms)
        if code:
            codes = [int(code)] * len(request.offsets)
            effects.answers.append((token, OffsetCommitResponse(int(code), codes)))
            return effects
        age_ms = self.age_ms(now_ms)
        known = self.offsets.of(request.group)
        codes = []
        text = ""
        for item in request.offsets:
            before = known.get((item.topic_id, item.partition))
            more_text = len(item.metadata.encode()) - text_bytes(before)
            if item.topic_id in unknown_topics:
                codes.append(int(ErrorCode.UNKNOWN_TOPIC_ID))
            elif (item.topic_id, item.partition) in unknown_places:
                codes.append(int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
            elif too_large := self._why_too_large(item.metadata, more_text):
                codes.append(int(ErrorCode.OFFSET_METADATA_TOO_LARGE))
                text = text or too_large
            elif not 0 <= item.offset <= OFFSET_MAX:
                codes.append(int(ErrorCode.INVALID_COMMIT_OFFSET_SIZE))
            elif before is None and self.offsets.count + len(effects.facts) >= self._config.offsets_max:
                codes.append(int(ErrorCode.POLICY_VIOLATION))
            else:
                codes.append(0)
                value = OffsetValue(item.offset, item.leader_epoch, item.metadata, wall_ms, age_ms)
                effects.facts.append(Fact(OffsetKey(request.group, item.topic_id, item.partition), value))
        for fact in effects.facts:
            self._apply(fact)
        effects.answers.append((token, OffsetCommitResponse(0, codes, text)))
        return effects

    def _why_too_large(self, metadata: str, more_bytes: int) -> str:
        """Return why a text can't stand beside an offset, or an empty string."""
        chars_max, bytes_max = self._config.metadata_chars_max, self._config.texts_bytes_max
        if len(metadata) > chars_max:
            return f"metadata of {len(metadata)} characters: at most {chars_max} are taken (offset.metadata.max.bytes)"
        if more_bytes > 0 and self.offsets.texts_bytes + more_bytes > bytes_max:
            return f"the coordinator holds {self.offsets.texts_bytes} bytes of metadata already, of at most {bytes_max}"
        return ""

    def _check_commit(self, request: OffsetCommitRequest, now_ms: int) -> ErrorCode:
        group = self.groups.get(request.group)
        if request.generation < 0 and (group is None or group.is_empty):
            full = len(self.offsets.groups()) >= self._config.groups_max and not self.knows(request.group)
            return ErrorCode.POLICY_VIOLATION if full else ErrorCode.NONE
        if group is None:
            return ErrorCode.ILLEGAL_GENERATION
        code = group.check(request.member_id, request.instance_id, request.generation)
        if not code and group.state is GroupState.COMPLETING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        if not code:
            group.members[request.member_id].hear(now_ms)
        return code

    def fetch(self, request: OffsetFetchRequest) -> OffsetFetchResponse:
        """Answer an OffsetFetch; one for all that a group has with some of it at a time."""
        group = self.groups.get(request.group)
        if request.member_id:
            code = ErrorCode.UNKNOWN_MEMBER_ID
            if group is not None:
                code = group.check(request.member_id, None, request.generation)
            if code:
                return OffsetFetchResponse(int(code))
        if request.partitions is not None:
            return OffsetFetchResponse(0, self.offsets.fetch(request.group, request.partitions))
        found, more = self.offsets.page(request.group, request.after, FETCH_BYTES)
        return OffsetFetchResponse(0, found, more=more)

    def delete_offsets(
        self,
        request: OffsetDeleteRequest,
        subscribed: Collection[bytes],
        token: Token,
        *,
        unknown_topics: Collection[bytes] = (),
    ) -> Effects:
        """Take an OffsetDelete.

        Args:
            subscribed: Ids of the topics that members of the group read: their offsets stay.
            unknown_topics: Ids of topics that there are not; what was committed to them all the same can be deleted.
        """
        effects = Effects()
        if not self.knows(request.group):
            effects.answers.append((token, OffsetDeleteResponse(int(ErrorCode.GROUP_ID_NOT_FOUND))))
            return effects
        group = self.groups.get(request.group)
        if group is not None and group.members and group.protocol_type != CONSUMER_PROTOCOL:
            text = f"its members speak {group.protocol_type!r}, so nobody can tell which offsets they use"
            effects.answers.append((token, OffsetDeleteResponse(int(ErrorCode.NON_EMPTY_GROUP), message=text)))
            return effects
        offsets = self.offsets.of(request.group)
        codes = []
        for place in request.partitions:
            if place[0] in subscribed:
                codes.append(int(ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC))
            elif place[0] in unknown_topics and place not in offsets:
                codes.append(int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
            else:
                codes.append(int(ErrorCode.NONE))
        gone = {place for place, code in zip(request.partitions, codes, strict=True) if not code}
        self._decide(self.offsets.forget(request.group, gone), effects)
        effects.answers.append((token, OffsetDeleteResponse(0, codes)))
        return effects

    def topics_deleted(self, topic_ids: Collection[bytes]) -> Effects:
        """Forget what was committed to topics that are no more; `tick` goes on where that is much."""
        effects = Effects()
        self._deleted_topics = topic_ids
        self._forget_topics(effects)
        return effects

    def _forget_topics(self, effects: Effects) -> None:
        before = len(effects.facts)
        self._decide(islice(self.offsets.of_topics(self._deleted_topics), FACTS_AT_ONCE), effects)
        self._forgets_topics = len(effects.facts) - before == FACTS_AT_ONCE

    # ---- groups ------------------------------------------------------------------------------------------------------

    def knows(self, group: str) -> bool:
        """Whether there is such a group: one with members, or with offsets alone."""
        return group in self.groups or group in self.offsets.groups()

    def names(self) -> Collection[str]:
        """Return the names of all groups."""
        return self.groups.keys() | self.offsets.groups()

    def listed(self, name: str) -> ListedGroup:
        """Return what a listing says of a group."""
        group = self.groups.get(name)
        if group is None:
            return ListedGroup(name, "", GroupState.EMPTY.value)
        return ListedGroup(name, group.protocol_type, group.state.value, len(group.members))

    def describe(self, name: str, now_ms: int) -> DescribedGroup:
        """Return what is known of one group."""
        group = self.groups.get(name)
        if group is not None:
            return group.described(now_ms)
        if self.knows(name):
            return DescribedGroup(0, name, GroupState.EMPTY.value)
        return DescribedGroup(int(ErrorCode.GROUP_ID_NOT_FOUND), name)

    def delete(self, names: Sequence[str]) -> tuple[Sequence[ErrorCode], Effects]:
        """Forget groups that have no members, with their offsets."""
        effects = Effects()
        codes = []
        for name in names:
            group = self.groups.get(name)
            if not self.knows(name):
                codes.append(ErrorCode.GROUP_ID_NOT_FOUND)
            elif group is not None and not group.is_empty:
                codes.append(ErrorCode.NON_EMPTY_GROUP)
            else:
                codes.append(ErrorCode.NONE)
                self._decide(self.offsets.forget(name), effects)
                if group is not None:
                    self._decide([Fact(GroupKey(name), None)], effects)
        return codes, effects

    def _decide(self, facts: Iterable[Fact], effects: Effects) -> None:
        for fact in list(facts):
            effects.facts.append(fact)
            self._apply(fact)

    # ---- time --------------------------------------------------------------------------------------------------------

    def next_ms(self) -> int:
        """Return when `tick` is due."""
        if self._forgets_topics:
            return 0
        return min(self._due[0][0] if self._due else self._expire_at_ms, self._expire_at_ms)

    def tick(self, now_ms: int) -> Effects:
        """Do what time demands: members not heard of, rebalances that take too long, offsets too old."""
        effects = Effects()
        age_ms = self.age_ms(now_ms)
        while self._due and self._due[0][0] <= now_ms:
            at_ms, name = heapq.heappop(self._due)
            group = self.groups.get(name)
            if self._due_at.get(name) != at_ms:
                continue
            del self._due_at[name]
            if group is not None:
                group.tick(now_ms=now_ms, age_ms=age_ms, effects=effects)
                self._schedule(group)
        if self._forgets_topics:
            self._forget_topics(effects)
        if now_ms >= self._expire_at_ms:
            self._expire(age_ms, effects)
            self._expire_at_ms = now_ms if self._to_expire else now_ms + EXPIRE_EVERY_MS
        return effects

    def _schedule(self, group: Group) -> None:
        at_ms = group.next_ms()
        if at_ms is not None:
            self._schedule_at(group.name, at_ms)
        if group.is_empty and group.generation == 0:  # nobody ever joined
            self.groups.pop(group.name, None)
        self._measure(group.name)

    @property
    def _room_bytes(self) -> int:
        return max(0, self._config.held_bytes_max - self._held_bytes)

    def _measure(self, name: str) -> None:
        """Note what a group takes in memory. Cost: a look at its members."""
        group = self.groups.get(name)
        held_bytes = 0 if group is None else group.held_bytes
        self._held_bytes += held_bytes - self._held.pop(name, 0)
        if held_bytes:
            self._held[name] = held_bytes

    def _schedule_at(self, name: str, at_ms: int) -> None:
        known_ms = self._due_at.get(name)
        if known_ms is None or at_ms < known_ms:
            self._due_at[name] = at_ms
            heapq.heappush(self._due, (at_ms, name))
            if len(self._due) > 2 * len(self._due_at) + DUE_SPARE:  # what was due later stands there still
                self._due = [(due_ms, due) for due, due_ms in self._due_at.items()]
                heapq.heapify(self._due)

    def _expire(self, age_ms: int, effects: Effects) -> None:
        """Forget what is too old of the next groups; of all, once those that are to be looked at have run out."""
        retention_ms = self._config.offsets_retention_ms
        if retention_ms < 0:
            self._to_expire.clear()
        elif not self._to_expire:
            self._to_expire.extend([*self.groups, *(self.offsets.groups() - self.groups.keys())])
        for _ in range(min(GROUPS_AT_ONCE, len(self._to_expire))):
            name = self._to_expire.popleft()
            group = self.groups.get(name)
            if group is not None and not group.is_empty:
                continue
            since_ms = None if group is None else group.changed_age_ms
            expired = self.offsets.expired(name, since_ms, age_ms - retention_ms)
            self._decide(islice(expired, FACTS_AT_ONCE), effects)
            if len(effects.facts) >= FACTS_AT_ONCE:
                self._to_expire.appendleft(name)  # there may be more
                break
            if group is not None and not self.offsets.of(name) and group.changed_age_ms < age_ms - retention_ms:
                self._decide([Fact(GroupKey(name), None)], effects)
        if effects.facts or (self.knows_any and age_ms - self._age_stored_ms >= AGE_EVERY_MS):
            self._age_stored_ms = age_ms
            effects.facts.append(Fact(AgeKey(), AgeValue(age_ms)))

    def waiting(self) -> Iterator[Token]:
        """Return who waits for a rebalance to go on."""
        for group in self.groups.values():
            for member in group.members.values():
                yield from (token for token in (member.joining, member.syncing, member.beating) if token is not None)

    @property
    def knows_any(self) -> bool:
        """Whether there is anything whose age matters."""
        return bool(self.groups) or self.offsets.count > 0
