"""One group: who its members are, and the two steps by which they agree on who reads what. Pure.

    Empty ──join──▶ PreparingRebalance ──all have joined, or the time is over──▶ CompletingRebalance
      ▲                ▲         ▲                                                     │
      │                │         └── join, leave, a member has gone ───────────────────┤ the leader's assignment
      └── nobody left ─┴──────────────── join, leave, a member has gone ──── Stable ◀──┘

A generation is stored when it begins and again with its assignment, and nobody hears of either before that is
committed: two coordinators never give out the same generation. Source: org.apache.kafka.coordinator.group.classic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from brokerd.groups.config import GroupConfig
from brokerd.groups.member import HELD_BYTES, Effects, Loss, Member, Token, Watch, loaded
from brokerd.groups.records import Fact, GroupKey, GroupValue, StoredState
from brokerd.groups.roster import Roster
from ingest.client.groups.consumer_protocol import decode_subscription
from ingest.errors import ProtocolError
from ingest.limits import LIMITS
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import (
    CONSUMER_PROTOCOL,
    DescribedGroup,
    HeartbeatRequest,
    HeartbeatResponse,
    JoinedMember,
    JoinGroupRequest,
    JoinGroupResponse,
    LeavingMember,
    SyncGroupRequest,
    SyncGroupResponse,
)


class GroupState(Enum):
    """Kafka's names, as tools show them."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"


_STORED = {
    GroupState.EMPTY: StoredState.EMPTY,
    GroupState.COMPLETING: StoredState.COMPLETING,
    GroupState.STABLE: StoredState.STABLE,
}
_LOADED = {stored: state for state, stored in _STORED.items()}


class Group:
    """One group. Each call adds what is to be done to the `Effects` it is given.

    Attributes:
        changed_age_ms: The partition's age when the generation came to be.
    """

    def __init__(self, name: str, config: GroupConfig) -> None:
        self.name = name
        self.config = config
        self.state = GroupState.EMPTY
        self.generation = 0
        self.protocol_type = ""
        self.protocol = ""
        self.leader = ""
        self.changed_age_ms = 0
        self._roster = Roster()
        self._complete_at_ms: int | None = None
        self._complete_max_ms = 0
        self._gathers = False  # a first generation waits a little for more members than the first
        self._sync_by_ms: int | None = None

    @property
    def members(self) -> dict[str, Member]:
        """By member id."""
        return self._roster.members

    @property
    def statics(self) -> dict[str, str]:
        """The member id of each static member, by its instance id."""
        return self._roster.statics

    @property
    def pending(self) -> dict[str, int]:
        """Member ids given out whose owners have not joined yet, and until when they may."""
        return self._roster.pending

    # ---- what is stored ----------------------------------------------------------------------------------------------

    def load(self, value: GroupValue, now_ms: int) -> None:
        """Become what a record says."""
        self.state = _LOADED[value.state]
        self.generation, self.changed_age_ms = value.generation, value.age_ms
        self.protocol_type, self.protocol, self.leader = value.protocol_type, value.protocol, value.leader
        self._roster = Roster(loaded(stored, value.protocol, now_ms) for stored in value.members)
        if self.state is GroupState.COMPLETING:
            self._sync_by_ms = now_ms + self._roster.rebalance_timeout_ms()

    def watch_all(self, effects: Effects) -> None:
        """Have the processes of all members watched, as a new coordinator does."""
        for member in self.members.values():
            if member.process is not None:
                effects.watches.append(Watch(self.name, member.member_id, member.process))

    def value(self) -> GroupValue:
        members = [member.stored(self.protocol) for member in self.members.values()]
        return GroupValue(
            self.generation,
            self.protocol_type,
            self.protocol,
            self.leader,
            _STORED[self.state],
            members,
            self.changed_age_ms,
        )

    def _store(self, effects: Effects) -> None:
        effects.facts.append(Fact(GroupKey(self.name), self.value()))

    # ---- joining -----------------------------------------------------------------------------------------------------

    def join(
        self,
        request: JoinGroupRequest,
        metadata: Sequence[bytes],
        token: Token,
        new_member_id: str,
        *,
        client_id: str,
        now_ms: int,
        age_ms: int,
        effects: Effects,
        room_bytes: int = LIMITS.member_metadata_bytes_max,
    ) -> None:
        """Take a JoinGroup; its answer comes when the generation it is part of begins.

        Args:
            new_member_id: For a member that has none yet.
            room_bytes: How much more memory groups may take.
        """
        protocols = list(zip(request.protocols, metadata, strict=True))
        code = self._roster.check_join(request, self.protocol_type, self.config)
        if code:
            text = self._session_rule(request) if code is ErrorCode.INVALID_SESSION_TIMEOUT else ""
            effects.answers.append((token, JoinGroupResponse(int(code), request.member_id, message=text)))
            return
        asking = self._member(request.member_id or new_member_id, request, protocols, client_id, now_ms)
        if self._stored_bytes(asking, request.protocol_type) > self.config.group_bytes_max:
            code, text = ErrorCode.GROUP_MAX_SIZE_REACHED, self._too_large("this member's metadata")
            effects.answers.append((token, JoinGroupResponse(int(code), request.member_id, message=text)))
            return
        if self._grown_bytes(asking) > room_bytes:
            code, text = ErrorCode.POLICY_VIOLATION, "what members say of themselves takes too much memory already"
            effects.answers.append((token, JoinGroupResponse(int(code), request.member_id, message=text)))
            return
        member = self.members.get(request.member_id)
        if member is None and request.instance_id is not None and not request.member_id:
            self._join_static(request, protocols, token, new_member_id, client_id, now_ms, age_ms, effects)
        elif member is None and not request.member_id and request.require_known_member_id:
            self.pending[new_member_id] = now_ms + request.session_timeout_ms
            response = JoinGroupResponse(int(ErrorCode.MEMBER_ID_REQUIRED), new_member_id)
            effects.answers.append((token, response))
        elif member is None:
            member_id = request.member_id or new_member_id
            self.pending.pop(member_id, None)
            self._add(self._member(member_id, request, protocols, client_id, now_ms), request, token, effects)
            self._joined(now_ms, age_ms, effects, anew=True)
        else:
            self._rejoin(member, request, protocols, token, now_ms, age_ms, effects)

    def _stored_bytes(self, asking: Member, protocol_type: str) -> int:
        """Return the most that the group's record takes with a member in it, in the place of the one it was before."""
        known_id = asking.member_id if asking.instance_id is None else self.statics.get(asking.instance_id)
        others = [member.stored_bytes for member in self.members.values() if member.member_id != known_id]
        assigned = sum(len(member.assignment) for member in self.members.values())
        return asking.stored_bytes + sum(others) + assigned + len(protocol_type.encode())

    def _grown_bytes(self, asking: Member) -> int:
        """Return how much more memory the group takes with a member in it, in the place of the one it was before."""
        known_id = asking.member_id if asking.instance_id is None else self.statics.get(asking.instance_id, "")
        known = self.members.get(known_id)
        return asking.told_bytes - (0 if known is None else known.told_bytes)

    @property
    def held_bytes(self) -> int:
        """Return about how many bytes of memory it takes, beside what every group does."""
        members = sum(member.held_bytes for member in self.members.values())
        pending = sum(HELD_BYTES + len(member_id.encode()) for member_id in self.pending)
        return members + pending + len(self.protocol_type.encode())

    def _session_rule(self, request: JoinGroupRequest) -> str:
        low, high = self.config.session_timeout_ms_min, self.config.session_timeout_ms_max
        return (
            f"session.timeout.ms={request.session_timeout_ms}: this cluster takes {low} to {high} "
            "(group.min.session.timeout.ms, group.max.session.timeout.ms)"
        )

    def _too_large(self, what: str) -> str:
        return f"with {what} group {self.name} would not fit a record, {self.config.group_bytes_max} bytes"

    def _member(
        self,
        member_id: str,
        request: JoinGroupRequest,
        protocols: Sequence[tuple[str, bytes]],
        client_id: str,
        now_ms: int,
    ) -> Member:
        return Member(
            member_id,
            request.instance_id,
            client_id,
            request.client_host,
            request.session_timeout_ms,
            request.rebalance_timeout_ms,
            protocols,
            request.process,
            now_ms,
            request.attempt,
        )

    def _add(self, member: Member, request: JoinGroupRequest, token: Token, effects: Effects) -> None:
        if not self.members:
            self.protocol_type = request.protocol_type
        self._roster.add(member)
        member.joining = token
        if member.process is not None:
            effects.watches.append(Watch(self.name, member.member_id, member.process))

    def _join_static(
        self,
        request: JoinGroupRequest,
        protocols: Sequence[tuple[str, bytes]],
        token: Token,
        new_member_id: str,
        client_id: str,
        now_ms: int,
        age_ms: int,
        effects: Effects,
    ) -> None:
        """Take a static member that has started anew: it gets the place of the one before (KIP-345).

        All stays, as long as it wants the same topics and the protocol that would be chosen now is the chosen one. A
        leader is told not to assign anew (KIP-814).
        """
        assert request.instance_id is not None
        old = self._roster.static(request.instance_id)
        member = self._member(new_member_id, request, protocols, client_id, now_ms)
        if old is None:
            self._add(member, request, token, effects)
            self._joined(now_ms, age_ms, effects, anew=True)
            return
        self._take_out(old, ErrorCode.FENCED_INSTANCE_ID, effects)
        member.assignment = old.assignment
        same = self._wants_the_same(old.metadata(self.protocol), member.metadata(self.protocol))
        was_leader = self.leader == old.member_id
        if was_leader:
            self.leader = new_member_id
        self._add(member, request, token, effects)
        if self.state is GroupState.STABLE and same and self._roster.choose_protocol() == self.protocol:
            self._store(effects)
            self._answer_join(member, effects, skip_assignment=was_leader)
        else:
            self._joined(now_ms, age_ms, effects, anew=False)

    def _wants_the_same(self, before: bytes, now: bytes) -> bool:
        """Whether metadata asks for what it asked for before; a consumer's tells also what it had when it joined."""
        if before == now or self.protocol_type != CONSUMER_PROTOCOL:
            return before == now
        try:
            return set(decode_subscription(before).topics) == set(decode_subscription(now).topics)
        except ProtocolError:
            return False

    def _rejoin(
        self,
        member: Member,
        request: JoinGroupRequest,
        protocols: Sequence[tuple[str, bytes]],
        token: Token,
        now_ms: int,
        age_ms: int,
        effects: Effects,
    ) -> None:
        if 0 < request.attempt <= member.attempt:
            response = JoinGroupResponse(int(ErrorCode.REBALANCE_IN_PROGRESS), member.member_id)
            effects.answers.append((token, response))
            return
        same = list(member.protocols) == protocols
        chosen_is_same = member.metadata(self.protocol) == dict(protocols).get(self.protocol)
        member.hear(now_ms)
        member.protocols, member.attempt = protocols, request.attempt
        member.measure()
        member.session_timeout_ms = request.session_timeout_ms
        member.rebalance_timeout_ms = request.rebalance_timeout_ms
        is_leader = member.member_id == self.leader
        asks_again = (self.state is GroupState.COMPLETING and (same or chosen_is_same)) or (
            self.state is GroupState.STABLE and chosen_is_same and not is_leader
        )
        if member.joining is not None:  # asked before, by another connection maybe: every request has its answer
            response = JoinGroupResponse(int(ErrorCode.REBALANCE_IN_PROGRESS), member.member_id)
            effects.answers.append((member.joining, response))
        member.joining = token
        if asks_again:
            self._answer_join(member, effects)
        else:
            self._joined(now_ms, age_ms, effects, anew=False)

    def _joined(self, now_ms: int, age_ms: int, effects: Effects, *, anew: bool) -> None:
        """Begin or go on with a rebalance now that one more has joined."""
        if self.state is not GroupState.PREPARING:
            self._prepare(now_ms, age_ms, effects)
            return
        if anew and self._gathers:
            self._complete_at_ms = min(now_ms + self.config.initial_rebalance_delay_ms, self._complete_max_ms)
        self._complete_if_all_joined(now_ms, age_ms, effects)

    def _prepare(self, now_ms: int, age_ms: int, effects: Effects) -> None:
        """Begin a rebalance: everyone is to join again."""
        self._gathers = self.state is GroupState.EMPTY and self.config.initial_rebalance_delay_ms > 0
        for member in self.members.values():
            if member.syncing is not None:
                response = SyncGroupResponse(int(ErrorCode.REBALANCE_IN_PROGRESS))
                effects.answers.append((member.syncing, response))
                member.syncing = None
            self._answer_heartbeat(member, ErrorCode.REBALANCE_IN_PROGRESS, effects)
        self._sync_by_ms = None
        effects.rebalances += 1
        self.state = GroupState.PREPARING
        self._complete_max_ms = now_ms + self._roster.rebalance_timeout_ms()
        self._complete_at_ms = self._complete_max_ms
        if self._gathers:
            self._complete_at_ms = min(now_ms + self.config.initial_rebalance_delay_ms, self._complete_max_ms)
        self._complete_if_all_joined(now_ms, age_ms, effects)

    def _complete_if_all_joined(self, now_ms: int, age_ms: int, effects: Effects) -> None:
        if self._roster.all_joined and not self._gathers:
            self._complete(now_ms, age_ms, effects)

    def _complete(self, now_ms: int, age_ms: int, effects: Effects) -> None:
        """Begin the next generation with those who have joined, and static members."""
        for member in list(self.members.values()):
            if member.joining is None and member.instance_id is None:
                effects.lost.append(Loss.REBALANCE_TIMEOUT)
                self._take_out(member, ErrorCode.UNKNOWN_MEMBER_ID, effects)
        self._gathers = False
        joined = [member for member in self.members.values() if member.joining is not None]
        if self.members and not joined:
            self._complete_at_ms = now_ms + self._roster.rebalance_timeout_ms()
            return
        self._complete_at_ms = None
        self.generation += 1
        self.changed_age_ms = age_ms
        if not self.members:
            self.state = GroupState.EMPTY
            self.protocol = self.leader = ""
            self._store(effects)
            return
        if self.leader not in {member.member_id for member in joined}:
            self.leader = joined[0].member_id
        self.protocol = self._roster.choose_protocol()
        self.state = GroupState.COMPLETING
        self._sync_by_ms = now_ms + self._roster.rebalance_timeout_ms()
        for member in self.members.values():
            member.assignment = b""
        self._store(effects)
        for member in joined:
            member.hear(now_ms)
            self._answer_join(member, effects)

    def _answer_join(self, member: Member, effects: Effects, *, skip_assignment: bool = False) -> None:
        members = []
        if member.member_id == self.leader:
            members = [
                JoinedMember(other.member_id, other.instance_id, other.metadata(self.protocol))
                for other in self.members.values()
            ]
        response = JoinGroupResponse(
            int(ErrorCode.NONE),
            member.member_id,
            self.generation,
            self.protocol_type,
            self.protocol,
            self.leader,
            members,
            skip_assignment,
        )
        effects.answers.append((member.joining, response))
        member.joining = None

    # ---- assigning ---------------------------------------------------------------------------------------------------

    def sync(
        self,
        request: SyncGroupRequest,
        assignments: Mapping[str, bytes],
        token: Token,
        *,
        now_ms: int,
        effects: Effects,
        room_bytes: int = LIMITS.member_metadata_bytes_max,
    ) -> None:
        """Take a SyncGroup: the leader's brings the assignment, everybody's is answered with its part.

        Args:
            room_bytes: How much more memory groups may take.
        """
        code = self.check(request.member_id, request.instance_id, request.generation)
        if not code and request.protocol_type not in ("", self.protocol_type):
            code = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if not code and request.protocol not in ("", self.protocol):
            code = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if not code and self.state is GroupState.PREPARING:
            code = ErrorCode.REBALANCE_IN_PROGRESS
        if code:
            effects.answers.append((token, SyncGroupResponse(int(code))))
            return
        member = self.members[request.member_id]
        member.hear(now_ms)
        assigns = self.state is GroupState.COMPLETING and member.member_id == self.leader
        if assigns:
            assigned = sum(len(assignments.get(one.member_id, b"")) for one in self.members.values())
            size = assigned + sum(one.stored_bytes for one in self.members.values())
            if size + len(self.protocol_type.encode()) > self.config.group_bytes_max or assigned > room_bytes:
                text = self._too_large("this assignment")
                effects.answers.append((token, SyncGroupResponse(int(ErrorCode.UNKNOWN_SERVER_ERROR), message=text)))
                return
        if member.syncing is not None:
            effects.answers.append((member.syncing, SyncGroupResponse(int(ErrorCode.REBALANCE_IN_PROGRESS))))
        member.syncing = token
        if assigns:
            for other in self.members.values():
                other.assignment = assignments.get(other.member_id, b"")
            self.state = GroupState.STABLE
            self._sync_by_ms = None
            self._store(effects)
        if self.state is GroupState.STABLE:
            for other in self.members.values():
                self._answer_sync(other, effects)

    def _answer_sync(self, member: Member, effects: Effects) -> None:
        if member.syncing is not None:
            response = SyncGroupResponse(0, member.assignment, self.protocol_type, self.protocol)
            effects.answers.append((member.syncing, response))
            member.syncing = None

    # ---- living and leaving ------------------------------------------------------------------------------------------

    def check(self, member_id: str, instance_id: str | None, generation: int) -> ErrorCode:
        """Tell why a member of a generation is not heard, NONE if it is."""
        code = self._roster.check(member_id, instance_id)
        return code or (ErrorCode.NONE if generation == self.generation else ErrorCode.ILLEGAL_GENERATION)

    def heartbeat(self, request: HeartbeatRequest, token: Token, *, now_ms: int, effects: Effects) -> None:
        """Note that a member lives; REBALANCE_IN_PROGRESS, at once or when it begins, asks it to join again."""
        code = self.check(request.member_id, request.instance_id, request.generation)
        if not code:
            member = self.members[request.member_id]
            member.hear(now_ms)
            if self.state is GroupState.PREPARING:
                code = ErrorCode.REBALANCE_IN_PROGRESS
            elif request.max_wait_ms > 0:
                self._answer_heartbeat(member, ErrorCode.NONE, effects)
                member.beating, member.beat_by_ms = token, now_ms + request.max_wait_ms
                return
        effects.answers.append((token, HeartbeatResponse(int(code))))

    def _answer_heartbeat(self, member: Member, code: ErrorCode, effects: Effects) -> None:
        if member.beating is not None:
            effects.answers.append((member.beating, HeartbeatResponse(int(code))))
            member.beating = None

    def leave(self, leaving: LeavingMember, *, now_ms: int, age_ms: int, effects: Effects) -> ErrorCode:
        """Take a member out at its own or an administrator's wish."""
        member_id = self._roster.leaving(leaving)
        if isinstance(member_id, ErrorCode):
            return member_id
        if self.pending.pop(member_id, None) is not None:
            if self.state is GroupState.PREPARING:
                self._complete_if_all_joined(now_ms, age_ms, effects)
            return ErrorCode.NONE
        member = self.members.get(member_id)
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        self._remove([member], now_ms, age_ms, effects)
        return ErrorCode.NONE

    def process_ended(self, member_id: str, *, now_ms: int, age_ms: int, effects: Effects) -> None:
        """A member's process is no more; a static one has its session to come back."""
        member = self.members.get(member_id)
        if member is None:
            return
        member.watched, member.ended = False, True
        member.heard_ms = now_ms  # it was seen to live until now, however long it had said nothing
        if member.instance_id is None:
            effects.lost.append(Loss.PROCESS_ENDED)
            self._remove([member], now_ms, age_ms, effects)

    def _remove(self, members: Sequence[Member], now_ms: int, age_ms: int, effects: Effects) -> None:
        for member in members:
            self._take_out(member, ErrorCode.UNKNOWN_MEMBER_ID, effects)
        if self.state in (GroupState.STABLE, GroupState.COMPLETING):
            self._prepare(now_ms, age_ms, effects)
        elif self.state is GroupState.PREPARING:
            if not self.members and not self.pending:
                self._gathers = False
            self._complete_if_all_joined(now_ms, age_ms, effects)

    def _take_out(self, member: Member, code: ErrorCode, effects: Effects) -> None:
        self._roster.remove(member)
        if member.joining is not None:
            effects.answers.append((member.joining, JoinGroupResponse(int(code), member.member_id)))
        if member.syncing is not None:
            effects.answers.append((member.syncing, SyncGroupResponse(int(code))))
        self._answer_heartbeat(member, code, effects)
        if member.process is not None:
            effects.watches.append(Watch(self.name, member.member_id, None))

    # ---- time --------------------------------------------------------------------------------------------------------

    def next_ms(self) -> int | None:
        """Return when `tick` is due, None for never."""
        times = [member.gone_at_ms() for member in self.members.values()]
        times.extend(member.beat_by_ms for member in self.members.values() if member.beating is not None)
        times.extend(self.pending.values())
        times.extend(at_ms for at_ms in (self._complete_at_ms, self._sync_by_ms) if at_ms is not None)
        return min(times, default=None)

    def tick(self, *, now_ms: int, age_ms: int, effects: Effects) -> None:
        """Do without those that were not heard in time."""
        for member_id in [member_id for member_id, until_ms in self.pending.items() if until_ms <= now_ms]:
            del self.pending[member_id]
        for member in self.members.values():
            if member.beating is not None and member.beat_by_ms <= now_ms:
                self._answer_heartbeat(member, ErrorCode.NONE, effects)
        gone = [member for member in self.members.values() if member.gone_at_ms() <= now_ms]
        if gone:
            effects.lost += [Loss.SESSION_TIMEOUT] * len(gone)
            self._remove(gone, now_ms, age_ms, effects)
        if self._sync_by_ms is not None and self._sync_by_ms <= now_ms:
            silent = [member for member in self.members.values() if member.syncing is None]
            self._sync_by_ms = None
            effects.lost += [Loss.REBALANCE_TIMEOUT] * len(silent)
            self._remove(silent, now_ms, age_ms, effects)
        if self.state is GroupState.PREPARING:
            if self._complete_at_ms is not None and self._complete_at_ms <= now_ms:
                self._complete(now_ms, age_ms, effects)
            else:
                self._complete_if_all_joined(now_ms, age_ms, effects)

    # ---- looking -----------------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether it has no members and nobody is about to join."""
        return self.state is GroupState.EMPTY and not self.pending

    def described(self, now_ms: int) -> DescribedGroup:
        protocol = self.protocol if self.state in (GroupState.STABLE, GroupState.COMPLETING) else ""
        return DescribedGroup(
            int(ErrorCode.NONE),
            self.name,
            self.state.value,
            self.protocol_type,
            protocol,
            self.generation,
            self.leader,
            [member.described(self.protocol, now_ms, awaited=self._awaits(member)) for member in self.members.values()],
        )

    def _awaits(self, member: Member) -> bool:
        """Whether a rebalance goes on once this member has done its part."""
        if self.state is GroupState.COMPLETING:
            return member.member_id == self.leader
        return self.state is GroupState.PREPARING and member.joining is None
