"""A member of a consumer group: what it asks its coordinator, and what its user is to give up and to take. Pure.

Membership goes on by itself while the user works; only what the user holds waits for the user:

    join ──▶ (the leader assigns) sync ──▶ stable: a Heartbeat waits at the coordinator until something changes
     ▲                                       │ rebalance
     └──── eager: the user gives up all ─────┤
           cooperative: at once, keeping what it has; what it is to give up goes in a second round

Source: KIP-62, KIP-345, KIP-394, KIP-429.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from ingest.client.groups.assignors import Assignor
from ingest.client.groups.consumer_protocol import (
    NO_GENERATION,
    PROTOCOL_TYPE,
    Assignment,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from ingest.client.positions import TopicPartition
from ingest.errors import ConfigError, ForebayError, ProtocolError, RemoteError
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.group_messages import (
    HeartbeatRequest,
    HeartbeatResponse,
    JoinedMember,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    LeavingMember,
    MemberProcess,
    SyncGroupRequest,
    SyncGroupResponse,
    encode_assignments,
)
from ingest.wire.message import Message

ASK_AGAIN_MS = 10_000  # a JoinGroup or SyncGroup that waits is sent again after so long
RETRY_MS = 20
IDLE_MS = 1_000
_MOVED = frozenset({ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE})
_OUT = frozenset({ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION})


class Phase(Enum):
    """What the member does next. GIVING_UP: the user has to let go of everything before it joins again."""

    OUT = "out"
    JOINING = "joining"
    ASSIGNING = "assigning"
    SYNCING = "syncing"
    STABLE = "stable"
    GIVING_UP = "giving up"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Revoke:
    """The user is to let go of these: commit what was done with them, then say so by `settled`."""

    partitions: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class Lose:
    """These are somebody else's already: nothing can be committed any more."""

    partitions: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class Assign:
    """The user may read these as well; empty: what it has is all it gets."""

    partitions: frozenset[TopicPartition]


Change: TypeAlias = Revoke | Lose | Assign


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the coordinator. Its outcome comes back by `answered` with the same number."""

    number: int
    body: Message
    payload: tuple[bytes, ...] = ()
    timeout_ms: int = ASK_AGAIN_MS


@dataclass(frozen=True, slots=True)
class MemberConfig:
    """A member's settings, Kafka's under the same names."""

    group: str
    assignors: tuple[Assignor, ...]
    instance_id: str | None = None
    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 3_000
    max_poll_interval_ms: int = 1_800_000
    rack: str = ""
    host: str = ""
    process: MemberProcess | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.group, str) or not self.group:
            raise ConfigError(f"group_id={self.group!r} is no name")
        if self.instance_id is not None and (not isinstance(self.instance_id, str) or not self.instance_id):
            raise ConfigError(f"group_instance_id={self.instance_id!r} is no name")
        for key, least in (("session_timeout_ms", 1), ("heartbeat_interval_ms", 1), ("max_poll_interval_ms", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"{key}={getattr(self, key)} is less than {least}")


class Member:
    """Decide what a member does. Thread: the membership's.

    Attributes:
        owned: What the user has taken and not let go of.
        generation, member_id: Under which it commits.
        failure: Why it has given up; the user is told.
        left: It has left the group for want of polls; the next one brings it back.
        asks_for: Topics of all members, which a leader needs to know of to assign.
    """

    def __init__(self, config: MemberConfig) -> None:
        assert config.assignors
        self._config = config
        self._cooperative = all(assignor.cooperative for assignor in config.assignors)
        self.phase = Phase.OUT
        self.member_id = ""
        self.generation = NO_GENERATION
        self.protocol = ""
        self.owned: frozenset[TopicPartition] = frozenset()
        self.failure: Exception | None = None
        self._topics: tuple[str, ...] | None = None
        self._joined_topics: tuple[str, ...] = ()
        self._assigned: frozenset[TopicPartition] | None = None  # what the user has not taken up yet
        self._last_assigned: tuple[frozenset[TopicPartition], int] = (frozenset(), NO_GENERATION)
        self._lost: frozenset[TopicPartition] = frozenset()
        self._members: Sequence[JoinedMember] = ()
        self._subscriptions: Mapping[str, Subscription] = {}
        self._partitions: Mapping[str, int] = {}
        self._assigned_for: Mapping[str, int] | None = (
            None  # as the leader; None: another one did it, or an earlier life
        )
        self._is_leader = False
        self._packed: tuple[bytes, ...] = ()
        self._claimed: frozenset[TopicPartition] = frozenset()  # when it joined: others have to wait for these
        self._asked: Message | None = None  # what is under way, and its number
        self._number = 0
        self._joins = 0
        self._not_before_ms = 0
        self.left = False
        self._polled_ms = 0

    # ---- the user ----------------------------------------------------------------------------------------------------

    def subscribe(self, topics: Collection[str]) -> None:
        """Read these topics from now on."""
        self._topics = tuple(sorted(topics))

    def polled(self, now_ms: int) -> bool:
        """The user asks for records: it makes progress. Tell whether `step` has something to do for it at once."""
        self._polled_ms = now_ms
        is_back, self.left = self.left, False
        return is_back

    def change(self) -> Change | None:
        """Return what the user is to do next, None for nothing; it says `settled` when it is done."""
        if self._lost:
            return Lose(self._lost)
        if self.phase is Phase.GIVING_UP:
            return Revoke(self.owned)
        if self._assigned is None:
            return None
        if self.owned - self._assigned:
            return Revoke(self.owned - self._assigned)
        return Assign(self._assigned - self.owned)

    def settled(self, change: Change) -> bool:
        """Take note that the user has done what `change` told; False: it does not hold any more, ask `change` again.

        What is to be read is taken up only after this said so: meanwhile the group may have gone on.
        """
        match change:
            case Lose(partitions):
                self._lost -= partitions
            case Revoke(partitions) if partitions <= self.owned:
                self.owned -= partitions
                if self.phase is Phase.GIVING_UP and not self.owned:
                    self._join_again()
            case Assign(partitions) if change == self.change():
                self.owned |= partitions
                self._assigned = None
                if self._claimed - self.owned:
                    self._join_again()  # others wait for what was let go of
            case _:
                return False
        return True

    def _join_again(self) -> None:
        self.phase = Phase.JOINING
        self._asked, self._not_before_ms = None, 0

    @property
    def awaits_user(self) -> bool:
        """Whether the user has to do something before the group can go on."""
        return self.change() is not None

    # ---- the topics --------------------------------------------------------------------------------------------------

    @property
    def topics_to_know(self) -> set[str]:
        """Return the topics whose partitions have to be known: a leader's are those of all members."""
        names = set(self._topics or ())
        if self._is_leader:
            for subscription in self._subscriptions.values():
                names.update(subscription.topics)
        return names

    def know(self, partitions: Mapping[str, int]) -> None:
        """Take how many partitions topics have, of those that exist. A leader has new ones assigned."""
        self._partitions = dict(partitions)
        if self._is_leader and self.phase is Phase.STABLE and self._assigned_for not in (None, self._relevant()):
            self._leave_phase()

    def _relevant(self) -> dict[str, int]:
        needed = self.topics_to_know
        return {name: count for name, count in self._partitions.items() if name in needed}

    # ---- the coordinator ---------------------------------------------------------------------------------------------

    def step(self, now_ms: int, known: Collection[str] = ()) -> Ask | None:
        """Return what to ask the coordinator now; one request is under way at a time.

        Args:
            known: The topics of `topics_to_know` of which it is known whether they exist.
        """
        if self._topics is None or self.failure is not None or self.left:
            return None
        if self.phase is Phase.STABLE and self._topics != self._joined_topics:
            self._leave_phase()
        if self._is_leader and self._assigned_for is None and self.topics_to_know <= set(known):
            self._assigned_for = self._relevant()  # what holds for the assignment that it came back to (KIP-814)
        if self._asked is not None or now_ms < self._not_before_ms:
            return None
        if self._overdue(now_ms):
            return self._leave_for_now()
        match self.phase:
            case Phase.OUT:
                self.phase = Phase.JOINING
                return self._join()
            case Phase.JOINING:
                return self._join()
            case Phase.ASSIGNING:
                return self._assign() if self.topics_to_know <= set(known) else None
            case Phase.SYNCING:
                return self._sync()
            case Phase.STABLE | Phase.GIVING_UP:
                return self._heartbeat(now_ms)
        return None

    def _ask(self, body: Message, payload: Sequence[bytes] = (), timeout_ms: int = ASK_AGAIN_MS) -> Ask:
        self._asked = body
        self._number += 1
        return Ask(self._number, body, tuple(payload), timeout_ms)

    def _overdue(self, now_ms: int) -> bool:
        interval_ms = self._config.max_poll_interval_ms
        joined = self.phase in (Phase.STABLE, Phase.GIVING_UP)
        return interval_ms > 0 and joined and now_ms - self._polled_ms >= interval_ms

    def _join(self) -> Ask:
        config = self._config
        assert self._topics is not None
        self._joined_topics = self._topics
        self._joins += 1
        self._claimed = self.owned if self._cooperative else frozenset()
        claimed = tuple(sorted(self._claimed))
        last, last_generation = self._last_assigned
        metadata = []
        for assignor in config.assignors:
            user_data = assignor.user_data(sorted(last), last_generation)
            told = Subscription(self._topics, claimed, self.generation, config.rack or None, user_data)
            metadata.append(encode_subscription(told))
        body = JoinGroupRequest(
            config.group,
            self.member_id,
            config.session_timeout_ms,
            self._rebalance_timeout_ms(),
            PROTOCOL_TYPE,
            [assignor.name for assignor in config.assignors],
            config.instance_id,
            client_host=config.host,
            process=config.process,
            attempt=self._joins,
        )
        return self._ask(body, metadata)

    def _rebalance_timeout_ms(self) -> int:
        """Return how long others wait for this member to join again: a cooperative one does not wait for its user."""
        config = self._config
        progress_ms = config.max_poll_interval_ms or _FOR_EVER_MS
        return min(progress_ms, config.session_timeout_ms) if self._cooperative else progress_ms

    def _assign(self) -> Ask:
        """As the leader: share out what there is, and sync."""
        assignor = next(one for one in self._config.assignors if one.name == self.protocol)
        self._assigned_for = self._relevant()
        instances = {one.member_id: one.instance_id for one in self._members if one.instance_id is not None}
        shares = assignor.assign(self._assigned_for, self._subscriptions, instances)
        packed = encode_assignments(
            [(member, encode_assignment(Assignment(tuple(partitions)))) for member, partitions in shares.items()]
        )
        self._packed = (packed,)
        self.phase = Phase.SYNCING
        return self._sync()

    def _sync(self) -> Ask:
        config = self._config
        body = SyncGroupRequest(
            config.group, self.generation, self.member_id, config.instance_id, PROTOCOL_TYPE, self.protocol
        )
        return self._ask(body, self._packed)

    def _heartbeat(self, now_ms: int) -> Ask:
        config = self._config
        wait_ms = config.heartbeat_interval_ms
        if config.max_poll_interval_ms:
            wait_ms = min(wait_ms, max(1, self._polled_ms + config.max_poll_interval_ms - now_ms))
        body = HeartbeatRequest(config.group, self.generation, self.member_id, config.instance_id, wait_ms)
        return self._ask(body, timeout_ms=wait_ms + min(wait_ms, 1_000))

    def leave(self) -> LeaveGroupRequest | None:
        """Return how to say goodbye, None for a static member, who is expected back, and for one who never joined."""
        if not self.member_id or self._config.instance_id is not None:
            return None
        return LeaveGroupRequest(self._config.group, [LeavingMember(self.member_id, None, "the consumer is closed")])

    def _leave_for_now(self) -> Ask:
        """Let others have what the user makes no progress with; it joins again at its next poll."""
        reason = f"no poll for {self._config.max_poll_interval_ms} ms (max_poll_interval_ms)"
        body = LeaveGroupRequest(self._config.group, [LeavingMember(self.member_id, self._config.instance_id, reason)])
        return self._ask(body)

    def unsent(self, ask: Ask, now_ms: int) -> None:
        """There was no connection to send a request by."""
        if ask.number == self._number:
            self._asked, self._not_before_ms = None, now_ms + RETRY_MS

    # ---- answers -----------------------------------------------------------------------------------------------------

    def answered(self, number: int, body: Message | None, error: ForebayError | None, now_ms: int) -> bool:
        """Take the outcome of an `Ask`; tell whether the coordinator is to be looked for anew."""
        asked = self._asked
        if number != self._number or asked is None:
            return False  # asked before something else happened
        self._asked, self._not_before_ms = None, 0
        if error is not None:
            return self._failed(error, now_ms)
        match body:
            case JoinGroupResponse(error_code=ErrorCode.NONE):
                self._joined(body)
            case JoinGroupResponse(error_code=ErrorCode.MEMBER_ID_REQUIRED):
                self.member_id = body.member_id
            case SyncGroupResponse(error_code=ErrorCode.NONE):
                self._synced(body)
            case JoinGroupResponse() | SyncGroupResponse():
                return self._refused(ErrorCode(body.error_code), body.message, now_ms)
            case HeartbeatResponse():
                return bool(body.error_code) and self._refused(ErrorCode(body.error_code), "", now_ms)
            case _:
                assert isinstance(asked, LeaveGroupRequest)
                self._lose()
                self.member_id = ""
                self.left = True  # until the user polls
        return False

    def _joined(self, body: JoinGroupResponse) -> None:
        if self._config.instance_id is not None and body.generation > self.generation + 1 > 0:
            self._lose()  # it was kept without having joined, and what it had may have gone to others
        self.member_id, self.generation, self.protocol = body.member_id, body.generation, body.protocol
        self._is_leader = body.leader == body.member_id
        self._members = body.members
        self._subscriptions = {member.member_id: _subscription(member.metadata) for member in body.members}
        self._assigned = None
        self._packed = ()
        self._assigned_for = None
        leads = self._is_leader and not body.skip_assignment
        self.phase = Phase.ASSIGNING if leads else Phase.SYNCING

    def _synced(self, body: SyncGroupResponse) -> None:
        try:
            assignment = decode_assignment(body.assignment) if body.assignment else Assignment(())
        except ProtocolError as error:
            self._give_up(error)
            return
        self._assigned = frozenset(assignment.partitions)
        self._last_assigned = (self._assigned, self.generation)
        self.phase = Phase.STABLE

    def _failed(self, error: ForebayError, now_ms: int) -> bool:
        """No answer, or a refusal of the whole request."""
        code = error.code if isinstance(error, RemoteError) else None
        if code is None:
            self._not_before_ms = now_ms + RETRY_MS
            return True
        return self._refused(ErrorCode(code), str(error), now_ms)

    def _refused(self, code: ErrorCode, message: str, now_ms: int) -> bool:
        if code == ErrorCode.REBALANCE_IN_PROGRESS:
            self._leave_phase()
            if self.phase is Phase.GIVING_UP:
                self._not_before_ms = now_ms + self._config.heartbeat_interval_ms
            return False
        if code in _OUT:
            if code == ErrorCode.UNKNOWN_MEMBER_ID:
                self.member_id = ""
            self._lose()
            return False
        if code in _MOVED or code.retriable:
            self._not_before_ms = now_ms + RETRY_MS
            return code in _MOVED
        self._give_up(error_from_code(code, message or self._why(code)))
        return False

    def _why(self, code: ErrorCode) -> str:
        config = self._config
        match code:
            case ErrorCode.INCONSISTENT_GROUP_PROTOCOL:
                mine = ", ".join(assignor.name for assignor in config.assignors)
                return (
                    f"members of group {config.group} have no assignor in common with this one's {mine}; "
                    "set partition_assignment_strategy alike"
                )
            case ErrorCode.FENCED_INSTANCE_ID:
                return f"another member has taken over group_instance_id={config.instance_id!r}"
            case ErrorCode.INVALID_SESSION_TIMEOUT:
                return f"session_timeout_ms={config.session_timeout_ms} is not in group.{{min,max}}.session.timeout.ms"
            case _:
                return f"group {config.group}"

    def _give_up(self, error: ForebayError) -> None:
        self._lose()
        self.phase = Phase.FAILED
        self.failure = error

    def _leave_phase(self) -> None:
        """Join again: at once where the user keeps what it has, else when it has let go."""
        self._assigned = None
        self._join_again()
        if self.owned and not self._cooperative:
            self.phase = Phase.GIVING_UP

    def _lose(self) -> None:
        """The group goes on without this member: what the user has is not its own any more."""
        self._lost |= self.owned
        self.owned = frozenset()
        self._assigned = None
        self._is_leader = False
        self.generation = NO_GENERATION
        self.phase = Phase.OUT

    # ---- time --------------------------------------------------------------------------------------------------------

    def next_ms(self, now_ms: int) -> int:
        """Return when `step` may have something to do without anything having happened; it was called before."""
        if self._not_before_ms > now_ms and self._asked is None:
            return min(self._not_before_ms, now_ms + IDLE_MS)
        return now_ms + IDLE_MS


def _subscription(metadata: bytes) -> Subscription:
    try:
        return decode_subscription(metadata)
    except ProtocolError:  # it gets nothing, and the others what there is
        return Subscription(())


_FOR_EVER_MS = 2**31 - 1
