"""The shard against a small model: any order of requests, silence, deaths, time, and coordinators that die with part of
what they had decided. The model knows what left the coordinators, and what of their log is committed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from brokerd.groups.config import GroupConfig
from brokerd.groups.group import Group, GroupState
from brokerd.groups.records import Fact, GroupKey, GroupValue, StoredState
from ingest.limits import LIMITS
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import (
    CommittedOffset,
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    LeavingMember,
    MemberProcess,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
    OffsetFetchResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)
from ingest.wire.message import Message
from tests.brokerd.groups.coordinator import Coordinator, replayed

GROUPS = ("readers", "others")
TOPICS = (b"a" * 16, b"b" * 16)
PARTITIONS = 4
SESSION_MS = 10_000
REBALANCE_MS = 30_000
GONE_MS = REBALANCE_MS + LIMITS.request_timeout_ms_max  # so long after it was last heard a member is out
PROTOCOLS = (
    (("range", b"1"), ("sticky", b"1")),
    (("range", b"2"), ("sticky", b"1")),
    (("sticky", b"1"), ("range", b"1")),
    (("sticky", b"3"),),
)
PROCESS = MemberProcess("boot", 1, 4711, 99)
REFUSED_COMMIT = {
    ErrorCode.ILLEGAL_GENERATION,
    ErrorCode.UNKNOWN_MEMBER_ID,
    ErrorCode.REBALANCE_IN_PROGRESS,
    ErrorCode.FENCED_INSTANCE_ID,
}


@dataclass
class Client:
    """A member as it knows itself, by the answers that reached it."""

    instance_id: str | None = None
    member_id: str = ""
    generation: int = -1
    members: list[str] = field(default_factory=list)  # filled for the leader


@dataclass
class Asked:
    """A request under way.

    Attributes:
        decided_at: How much log there was once it was decided, for those that are decided at once.
    """

    client: Client | None
    request: Any
    asked_ms: int
    decided_at: int = -1


class GroupMachine(RuleBasedStateMachine):
    """Promises: a generation has one set of members and one assignment, whoever coordinates; a stale commit moves
    nothing; what was answered is in the committed log; every request is answered; replay gives what is in force."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000
        self.asked: dict[int, Asked] = {}
        self.tokens = 0
        self.ids = 0
        config = GroupConfig(initial_rebalance_delay_ms=50, members_max=5, offsets_retention_ms=3_600_000)
        self.coordinator = Coordinator(config, self.now_ms, self.leaves)
        self.clients = [Client(instance_id) for instance_id in (None, None, None, "i", "j", "i")]
        # what is committed, by (group, how often it was deleted before, generation)
        self.seats: dict[tuple[str, int, int], frozenset[str]] = {}
        self.assigned: dict[tuple[str, int, int], dict[str, bytes]] = {}
        self.seat_of: dict[str, str] = {}  # by member id; a static member that comes back has the same seat
        self.told: dict[tuple[str, int], int] = {}  # the greatest generation that anybody has heard of
        self.checked = 0  # facts of the committed log that were looked at
        self.completing_since: dict[tuple[str, int], int] = {}
        self.lives: dict[str, int] = dict.fromkeys(GROUPS, 0)
        self.gone: set[str] = set()  # member ids that the present coordinator has called unknown

    # ---- requests ----------------------------------------------------------------------------------------------------

    def token(self, client: Client | None, request: Any) -> int:
        self.tokens += 1
        self.asked[self.tokens] = Asked(client, request, self.now_ms)
        return self.tokens

    @rule(
        who=st.integers(0, 5),
        anew=st.booleans(),
        known=st.booleans(),
        protocols=st.sampled_from(PROTOCOLS),
        watched=st.booleans(),
    )
    def join(self, who: int, anew: bool, known: bool, protocols: Any, watched: bool) -> None:
        client = self.clients[who]
        request = JoinGroupRequest(
            GROUPS[0],
            "" if anew else client.member_id,
            SESSION_MS,
            REBALANCE_MS,
            "consumer",
            [name for name, _ in protocols],
            client.instance_id,
            require_known_member_id=known,
            process=PROCESS if watched else None,
        )
        self.send_join(client, request, [metadata for _, metadata in protocols])

    @rule(who=st.integers(0, 5), other=st.integers(0, 5))
    def join_under_anothers_id(self, who: int, other: int) -> None:
        thief, member_id = self.clients[who], self.clients[other].member_id
        request = JoinGroupRequest(
            GROUPS[0], member_id, SESSION_MS, REBALANCE_MS, "consumer", ["range"], thief.instance_id
        )
        self.send_join(thief, request, [b"x"])

    def send_join(self, client: Client, request: JoinGroupRequest, metadata: list[bytes]) -> None:
        self.ids += 1
        token = self.token(client, request)
        shard = self.coordinator.shard
        self.take(shard.join(request, metadata, token, f"m{self.ids}", client_id="c", now_ms=self.now_ms))

    @rule(who=st.integers(0, 5), skew=st.sampled_from([0, 0, 0, -1]), turn=st.integers(0, 3))
    def sync(self, who: int, skew: int, turn: int) -> None:
        client = self.clients[who]
        request = SyncGroupRequest(GROUPS[0], client.generation + skew, client.member_id, client.instance_id)
        shares: dict[str, list[bytes]] = {member_id: [] for member_id in client.members}
        for partition in range(PARTITIONS if client.members else 0):
            shares[client.members[(partition + turn) % len(client.members)]].append(b"%d" % partition)
        packed = {member_id: b",".join(share) for member_id, share in shares.items()}
        token = self.token(client, request)
        self.take(self.coordinator.shard.sync(request, packed, token, now_ms=self.now_ms))

    @rule(who=st.integers(0, 5), skew=st.sampled_from([0, 0, -1]), wait_ms=st.sampled_from([0, 3_000, 2**31, -5]))
    def heartbeat(self, who: int, skew: int, wait_ms: int) -> None:
        client = self.clients[who]
        generation = client.generation + skew
        request = HeartbeatRequest(GROUPS[0], generation, client.member_id, client.instance_id, wait_ms)
        self.take(self.coordinator.shard.heartbeat(request, self.token(client, request), self.now_ms))

    @rule(who=st.integers(0, 5), by_instance=st.booleans())
    def leave(self, who: int, by_instance: bool) -> None:
        client = self.clients[who]
        member_id = "" if by_instance and client.instance_id else client.member_id
        request = LeaveGroupRequest(GROUPS[0], [LeavingMember(member_id, client.instance_id)])
        self.take(self.coordinator.shard.leave(request, self.token(client, request), self.now_ms))

    @rule(who=st.integers(0, 5), lives=st.booleans())
    def look_at_process(self, who: int, lives: bool) -> None:
        shard, member_id = self.coordinator.shard, self.clients[who].member_id
        if lives:
            shard.watched(GROUPS[0], member_id)
        else:
            self.take(shard.process_ended(GROUPS[0], member_id, self.now_ms))

    # ---- offsets -----------------------------------------------------------------------------------------------------

    @rule(
        who=st.sampled_from([0, 1, 2, 3, 4, 5, "stranger", "nobody"]),
        skew=st.sampled_from([0, 0, 0, -1, 1]),
        group=st.sampled_from(GROUPS),
        topic=st.sampled_from(TOPICS),
        offset=st.integers(-1, 50),
    )
    def commit(self, who: int | str, skew: int, group: str, topic: bytes, offset: int) -> None:
        shard = self.coordinator.shard
        client = self.clients[who] if isinstance(who, int) else None
        generation, member_id, instance_id = -1, "", None
        if client is not None:
            generation, member_id, instance_id = client.generation + skew, client.member_id, client.instance_id
        elif who == "stranger":
            generation, member_id = self.told.get((group, self.lives[group]), 0), "stranger"
        items = [CommittedOffset(topic, 0, offset), CommittedOffset(topic, 1, 7)]
        request = OffsetCommitRequest(group, items, generation, member_id, instance_id)
        expected = self.why_not_commit(shard.groups.get(group), request)
        before = dict(shard.offsets.of(group))
        token = self.token(client, request)
        effects = shard.commit(request, (), token, wall_ms=0, now_ms=self.now_ms)
        ((_, answer),) = effects.answers
        assert answer.error_code == expected  # type: ignore[attr-defined]
        if expected or offset < 0:
            place = (topic, 0)
            assert shard.offsets.of(group).get(place) == before.get(place), "a refused commit moved an offset"
        if not expected and generation >= 0:
            stale = self.told.get((group, self.lives[group]), 0) > generation
            assert not stale, "a generation was committed in that others have left behind"
            assert member_id not in self.gone, "one that was told that it is out has committed"
        self.take(effects)
        self.asked[token].decided_at = len(self.coordinator.log)

    def why_not_commit(self, group: Group | None, request: OffsetCommitRequest) -> ErrorCode:
        """Kafka's GroupMetadataManager and ClassicGroup.validateOffsetCommit."""
        empty = group is None or (group.state is GroupState.EMPTY and not group.pending)
        if request.generation < 0 and empty:
            return ErrorCode.NONE
        if group is None:
            return ErrorCode.ILLEGAL_GENERATION
        if request.generation < 0 and not request.member_id and request.instance_id is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if request.instance_id is not None:
            known = group.statics.get(request.instance_id)
            if known is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if known != request.member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        if request.member_id not in group.members:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if request.generation != group.generation:
            return ErrorCode.ILLEGAL_GENERATION
        return ErrorCode.REBALANCE_IN_PROGRESS if group.state is GroupState.COMPLETING else ErrorCode.NONE

    @rule(group=st.sampled_from(GROUPS))
    def fetch_offsets(self, group: str) -> None:
        request = OffsetFetchRequest(group, [(topic, partition) for topic in TOPICS for partition in (0, 1)])
        token = self.token(None, request)
        self.asked[token].decided_at = len(self.coordinator.log)
        self.coordinator.answer(token, self.coordinator.shard.fetch(request))

    @rule(group=st.sampled_from(GROUPS), topic=st.sampled_from(TOPICS), in_use=st.booleans())
    def delete_offsets(self, group: str, topic: bytes, in_use: bool) -> None:
        request = OffsetDeleteRequest(group, [(topic, 0), (topic, 5)])
        shard, token = self.coordinator.shard, self.token(None, request)
        expected = dict(shard.offsets.of(group))
        self.take(shard.delete_offsets(request, {topic} if in_use else (), token))
        if not in_use:
            expected.pop((topic, 0), None)
        assert shard.offsets.of(group) == expected

    @rule(topic=st.sampled_from(TOPICS))
    def delete_topic(self, topic: bytes) -> None:
        self.take(self.coordinator.shard.topics_deleted({topic}))
        places = [place for group in GROUPS for place in self.coordinator.shard.offsets.of(group)]
        assert all(topic != topic_id for topic_id, _ in places)

    @rule(group=st.sampled_from([*GROUPS, "never"]))
    def delete_group(self, group: str) -> None:
        shard = self.coordinator.shard
        found = shard.groups.get(group)
        (code,), effects = shard.delete([group])
        self.take(effects)
        if code == ErrorCode.NONE:
            assert found is None or not found.members
            assert not shard.knows(group)
        else:
            assert code == (ErrorCode.GROUP_ID_NOT_FOUND if found is None else ErrorCode.NON_EMPTY_GROUP)

    # ---- what happens by itself --------------------------------------------------------------------------------------

    @rule(count=st.sampled_from([1, 2, 100, 100]))
    def facts_are_committed(self, count: int) -> None:
        self.coordinator.commit(count)

    @rule(kept=st.integers(0, 3))
    def coordinator_dies(self, kept: int) -> None:
        self.gone.clear()
        self.completing_since.clear()
        self.coordinator.fail_over(kept, self.now_ms)

    @rule(ms=st.sampled_from([10, 60, 2_000, SESSION_MS, REBALANCE_MS, 3_600_000]))
    def time_passes(self, ms: int) -> None:
        end_ms = self.now_ms + ms
        while (due_ms := self.coordinator.shard.next_ms()) <= end_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.coordinator.tick(self.now_ms)
        self.now_ms = end_ms

    @precondition(lambda self: self.clients[0].generation < 0)
    @rule()
    def three_members_agree(self) -> None:
        """What chance seldom gets to."""
        for _ in range(2):
            for who in (0, 1, 3):
                self.join(who, False, False, PROTOCOLS[0], False)
            self.time_passes(60)
            self.coordinator.commit()
        for who in (0, 1, 3):
            self.sync(who, 0, 0)
        self.coordinator.commit()

    def take(self, effects: Any) -> None:
        self.coordinator.take(effects)

    # ---- what leaves the coordinator ---------------------------------------------------------------------------------

    def leaves(self, token: int, message: Message | None) -> None:
        asked = self.asked.pop(token, None)
        assert asked is not None, "answered twice"
        self.look_at_committed()
        client, request = asked.client, asked.request
        match message:
            case JoinGroupResponse(error_code=ErrorCode.MEMBER_ID_REQUIRED):
                assert client is not None
                client.member_id = message.member_id
            case JoinGroupResponse(error_code=ErrorCode.NONE):
                assert client is not None
                self.joined(client, message)
            case SyncGroupResponse(error_code=ErrorCode.NONE):
                assert client is not None
                self.synced(request, message)
            case OffsetFetchResponse():
                offsets = replayed(self.coordinator.log[: asked.decided_at], self.coordinator.config, 0).offsets
                assert message.offsets == offsets.fetch(request.group, request.partitions)
        if asked.decided_at >= 0 and message is not None:
            assert asked.decided_at <= self.coordinator.mark
        own = client is not None and getattr(request, "member_id", "") == client.member_id != ""
        code = getattr(message, "error_code", None)
        if client is not None and own and code in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            self.gone.add(client.member_id)
            client.member_id, client.generation, client.members = "", -1, []

    def joined(self, client: Client, answer: JoinGroupResponse) -> None:
        """A member hears of a generation: that is committed, and the same whoever hears of it."""
        place = (GROUPS[0], self.lives[GROUPS[0]], answer.generation)
        seats = self.seats.get(place)
        assert seats is not None, "a generation left that is not committed"
        client.member_id, client.generation = answer.member_id, answer.generation
        client.members = [member.member_id for member in answer.members]
        assert self.seat_of[answer.member_id] in seats
        if answer.members:
            assert {self.seat_of[member.member_id] for member in answer.members} == seats
        self.told[place[:2]] = max(self.told.get(place[:2], 0), answer.generation)

    def synced(self, request: SyncGroupRequest, answer: SyncGroupResponse) -> None:
        place = (GROUPS[0], self.lives[GROUPS[0]], request.generation)
        share = self.assigned[place].get(self.seat_of[request.member_id])
        assert share == answer.assignment, "an assignment left that is not committed"

    def look_at_committed(self) -> None:
        """Hold what came to be committed against what was before: it does not contradict it, ever."""
        log, mark = self.coordinator.log, self.coordinator.mark
        for fact in log[self.checked : mark]:
            match fact:
                case Fact(key=GroupKey(group=name), value=None):
                    self.lives[name] += 1
                case Fact(key=GroupKey(group=name), value=GroupValue() as value):
                    self.generation_committed(name, value)
        self.checked = mark

    def generation_committed(self, name: str, value: GroupValue) -> None:
        place = (name, self.lives[name], value.generation)
        self.seat_of.update({stored.member_id: stored.instance_id or stored.member_id for stored in value.members})
        seats = frozenset(self.seat_of[stored.member_id] for stored in value.members)
        assert self.seats.setdefault(place, seats) == seats, "two sets of members in one generation"
        assert len(seats) == len(value.members)
        if value.state == StoredState.STABLE:
            shares = {self.seat_of[stored.member_id]: stored.assignment for stored in value.members}
            assert self.assigned.setdefault(place, shares) == shares, "two assignments in one generation"
            owned = [partition for share in shares.values() for partition in share.split(b",") if partition]
            assert len(owned) == len(set(owned)), "two owners of a partition"
            assert len(owned) == PARTITIONS, "somebody else than the leader assigned"

    # ---- always ------------------------------------------------------------------------------------------------------

    @invariant()
    def replay_gives_what_is_in_force(self) -> None:
        live, config = self.coordinator.shard, self.coordinator.config
        again = replayed(self.coordinator.log, config, self.now_ms)
        for name in GROUPS:
            assert again.offsets.of(name) == live.offsets.of(name)
            mine, other = live.groups.get(name), again.groups.get(name)
            if mine is None or mine.generation == 0:
                assert other is None
                continue
            assert other is not None
            assert (other.generation, other.protocol) == (mine.generation, mine.protocol)
            if mine.state is GroupState.PREPARING:
                continue
            assert other.state is mine.state
            assert {i: _stored(m) for i, m in other.members.items()} == {i: _stored(m) for i, m in mine.members.items()}
            assert (other.leader, other.statics) == (mine.leader, mine.statics)

    @invariant()
    def nobody_waits_for_longer_than_a_rebalance_may_take(self) -> None:
        for token in self.asked.keys() - self.coordinator.decided():
            asked = self.asked[token]
            assert self.now_ms <= asked.asked_ms + REBALANCE_MS, f"nobody answers to {asked.request}"

    @invariant()
    def a_rebalance_goes_on(self) -> None:
        groups = self.coordinator.shard.groups.values()
        completing = {(g.name, g.generation) for g in groups if g.state is GroupState.COMPLETING}
        self.completing_since = {place: self.completing_since.get(place, self.now_ms) for place in completing}
        for since_ms in self.completing_since.values():
            assert self.now_ms <= since_ms + REBALANCE_MS, "the leader may take its time for ever"
        for group in groups:
            waiting = [member for member in group.members.values() if member.beating or member.syncing]
            assert not waiting or group.state is not GroupState.PREPARING, "members are not told of a rebalance"

    def teardown(self) -> None:
        """All fall silent, and everything gets committed."""
        if sys.exc_info()[0] is not None:
            return
        for _ in range(4):
            self.time_passes(GONE_MS)
            self.coordinator.commit()
        assert self.asked == {}
        for group in self.coordinator.shard.groups.values():
            assert group.state is GroupState.EMPTY
        assert self.coordinator.shard._due == [] == list(self.coordinator.shard._due_at)


def _stored(member: Any) -> Any:
    return member.instance_id, member.assignment, member.process


TestGroup = GroupMachine.TestCase
TestGroup.settings = settings(max_examples=200, stateful_step_count=60)
