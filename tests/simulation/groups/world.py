"""A group from one seed: its coordinators and their log, a network, its members and what befalls them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from brokerd.groups.config import GroupConfig
from brokerd.groups.member import Effects
from brokerd.groups.records import GroupKey, GroupValue, StoredState
from ingest.client.groups.assignors import assignors_named
from ingest.client.groups.consumer_protocol import NO_GENERATION
from ingest.client.groups.member import Ask, Member, MemberConfig
from ingest.errors import ForebayError
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.group_messages import (
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    MemberProcess,
    SyncGroupRequest,
    decode_assignments,
)
from ingest.wire.message import Message
from tests.brokerd.groups.coordinator import Coordinator
from tests.simulation.groups.member import SimMember
from tests.simulation.history import Violation
from tests.simulation.schedule import Schedule

GROUP = "readers"
FAULTS_MS = 60_000
HEAL_MS = 120_000
CALM_MS = 20_000  # for so long nothing changes any more
STRATEGIES = ["range", "roundrobin", "sticky", "cooperative-sticky", "cooperative-sticky", "range,sticky"]
PROCESS = MemberProcess("boot", 1, 4711, 99)


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What a seed makes of a run.

    Attributes:
        members: How many consumers; the first `statics` of them have instance ids.
        local: The part of the members whose processes the coordinator watches.
        lost, late, twice: The part of messages that vanish, that take up to twelve seconds, that come twice.
        commit_ms: How long a fact takes to be committed, at most.
        faults: How likely each misfortune is, a second.
    """

    strategy: str
    members: int
    statics: int
    local: float
    session_ms: int
    max_poll_ms: int
    heartbeat_ms: int
    initial_delay_ms: int
    slow_ms: int
    lost: float
    late: float
    twice: float
    commit_ms: int
    faults: dict[str, float]


def plan_of(seed: int) -> GroupPlan:
    """Draw a plan."""
    dice = Schedule(seed).dice
    members = dice.choice([1, 2, 3, 5])
    return GroupPlan(
        strategy=dice.choice(STRATEGIES),
        members=members,
        statics=dice.choice([0, 0, 1, members]),
        local=dice.choice([0.0, 0.5, 1.0]),
        session_ms=dice.choice([6_000, 10_000]),
        max_poll_ms=dice.choice([5_000, 15_000]),
        heartbeat_ms=dice.choice([500, 3_000]),
        initial_delay_ms=dice.choice([0, 100, 1_000]),
        slow_ms=dice.choice([2, 10, 100]),
        lost=dice.choice([0.0, 0.02, 0.1]),
        late=dice.choice([0.0, 0.01, 0.05]),
        twice=dice.choice([0.0, 0.02, 0.2]),
        commit_ms=dice.choice([1, 10, 300]),
        faults={
            name: dice.choice([0.0, 0.03, 0.15])
            for name in ("kill", "close", "stop", "fail_over", "subscribe", "grow", "new_topic")
        },
    )


class GroupWorld:
    """One run.

    Attributes:
        topics: How many partitions each has.
        members: By name, the present process of each consumer.
    """

    def __init__(self, seed: int, plan: GroupPlan | None = None) -> None:
        self.plan = plan or plan_of(seed)
        self.schedule = Schedule(seed * 2 + 1)
        self.dice = self.schedule.dice
        self.events: Counter[str] = Counter()
        self.log: list[str] = []
        self.faulty = True
        self.topics = {"t0": self.dice.randrange(1, 7), "t1": self.dice.randrange(1, 4)}
        self._away_until_ms = 0
        self._ids = 0
        self._given: dict[int, set[str]] = {}  # the members of each generation, by what leaders were told
        self._left_in: dict[str, int] = {}  # the last generation that a member is in without having joined it
        config = GroupConfig(initial_rebalance_delay_ms=self.plan.initial_delay_ms)
        self.coordinator = Coordinator(config, self.now_ms, self._deliver)
        self.members: dict[str, SimMember] = {}
        for index in range(self.plan.members):
            self.schedule.after(self.dice.randrange(3_000), lambda name=f"c{index}": self.start(name))  # type: ignore[misc]
        self._coordinate()

    @property
    def now_ms(self) -> int:
        return self.schedule.now_ms

    def tell(self, who: str, what: str) -> None:
        self.log.append(f"{self.now_ms:>7} {who}: {what}")

    # ---- members -----------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a consumer's next process, if none runs."""
        known = self.members.get(name)
        if known is not None and known.alive:
            return
        plan, dice = self.plan, self.dice
        index = int(name[1:])
        assignors = list(assignors_named(plan.strategy))
        dice.shuffle(assignors)
        config = MemberConfig(
            GROUP,
            tuple(assignors),
            f"i{index}" if index < plan.statics else None,
            plan.session_ms,
            plan.heartbeat_ms,
            plan.max_poll_ms,
            process=PROCESS if dice.random() < plan.local else None,
        )
        self.tell(name, "starts")
        self.members[name] = SimMember(self, name, config, self._some_topics(), dice.choice([20, 300, 2_000]))

    def _some_topics(self) -> list[str]:
        names = sorted(self.topics)
        return sorted(self.dice.sample(names, self.dice.randrange(1, len(names) + 1)))

    # ---- the network -------------------------------------------------------------------------------------------------

    def _delays(self, *, once: bool) -> list[int]:
        """Return after how long each copy of a message arrives; none: it is lost."""
        plan, dice = self.plan, self.dice
        if self.faulty and dice.random() < plan.lost:
            return []
        delays = [dice.randrange(1, plan.slow_ms + 1)]
        if self.faulty and not once and dice.random() < plan.twice:
            delays.append(dice.randrange(1, 50 * plan.slow_ms))
        if self.faulty and not once and dice.random() < plan.late:
            delays[-1] = dice.randrange(12_000)
        return delays

    def send(self, sender: SimMember, ask: Ask) -> None:
        """Have the coordinator take a request, some time."""
        body = ask.body
        # whose first join comes twice has taken its own place: nobody could tell it from another's of that instance
        first = isinstance(body, JoinGroupRequest) and body.instance_id is not None and not body.member_id
        for delay_ms in self._delays(once=first):
            self.schedule.after(delay_ms, lambda: self._take((sender, ask.number), body, ask.payload))

    def _take(self, token: Any, body: Any, payload: tuple[bytes, ...]) -> None:
        if self.now_ms < self._away_until_ms:
            self._deliver(token, None)
            return
        shard, now_ms = self.coordinator.shard, self.now_ms
        match body:
            case JoinGroupRequest():
                self._ids += 1
                effects = shard.join(
                    body, payload, token, f"m{self._ids}-{token[0].name}", client_id=token[0].name, now_ms=now_ms
                )
            case SyncGroupRequest():
                assignments = dict(decode_assignments(payload[0])) if payload else {}
                effects = shard.sync(body, assignments, token, now_ms=now_ms)
            case HeartbeatRequest():
                effects = shard.heartbeat(body, token, now_ms)
            case LeaveGroupRequest():
                effects = shard.leave(body, token, now_ms)
            case _:
                raise AssertionError(f"a member asked {body}")
        self._decided(effects)

    def _deliver(self, token: Any, message: Message | None) -> None:
        if isinstance(message, JoinGroupResponse) and message.members:
            seats = {member.instance_id or member.member_id for member in message.members}
            if self._given.setdefault(message.generation, seats) != seats:
                raise Violation(f"C19: generation {message.generation} is given to two sets of members")
        target, number = token
        if target is None:
            return
        error: ForebayError | None = None
        if message is None:
            error = error_from_code(self.dice.choice([ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE]))
        for delay_ms in self._delays(once=False):
            target.after(delay_ms, lambda: target.answered(number, message, error))

    # ---- the coordinator ---------------------------------------------------------------------------------------------

    def _decided(self, effects: Effects) -> None:
        self.coordinator.take(effects)
        answers = [answer for _, answer in effects.answers if isinstance(answer, JoinGroupResponse)]
        for fact in effects.facts:
            if isinstance(fact.value, GroupValue) and fact.value.state == StoredState.COMPLETING:
                joined = {answer.member_id for answer in answers if not answer.error_code}
                absent = {stored.member_id for stored in fact.value.members} - joined
                self._left_in.update(dict.fromkeys(absent, fact.value.generation))
        for watch in effects.watches:
            if watch.process is not None:
                self.coordinator.shard.watched(watch.group, watch.member_id)
        term = self.coordinator.terms
        end = len(self.coordinator.log)

        def committed() -> None:
            if self.coordinator.terms == term:
                self.coordinator.commit(max(0, end - self.coordinator.mark))

        self.schedule.after(self.dice.randrange(self.plan.commit_ms), committed)

    def _coordinate(self) -> None:
        """Let time pass at the coordinator."""
        if self.now_ms >= self._away_until_ms and self.coordinator.shard.next_ms() <= self.now_ms:
            self._decided(self.coordinator.shard.tick(self.now_ms))
        self.schedule.after(20, self._coordinate)

    def _fail_over(self) -> None:
        lost = len(self.coordinator.log) - self.coordinator.mark
        kept = self.dice.randrange(lost + 1)
        self.tell("coordinator", f"dies with {lost} facts not committed, {kept} of them are kept")
        self._away_until_ms = self.now_ms + self.dice.choice([5, 200, 3_000])
        self.coordinator.fail_over(kept, self.now_ms)
        self._decided(Effects())

    def in_force(self) -> GroupValue | None:
        """Return the group's last committed generation."""
        for fact in reversed(self.coordinator.log[: self.coordinator.mark]):
            if fact.key == GroupKey(GROUP):
                assert fact.value is None or isinstance(fact.value, GroupValue)
                return fact.value
        return None

    # ---- what goes wrong ---------------------------------------------------------------------------------------------

    def _befall(self, name: str) -> None:
        dice = self.dice
        running = [member for member in self.members.values() if member.alive]
        if name == "fail_over":
            self._fail_over()
        elif name == "grow":
            topic = dice.choice(sorted(self.topics))
            self.topics[topic] = min(12, self.topics[topic] + dice.randrange(1, 3))
            self.tell(topic, f"has {self.topics[topic]} partitions")
        elif name == "new_topic" and len(self.topics) < 4:
            self.topics[f"t{len(self.topics)}"] = dice.randrange(1, 4)
        elif running:
            self._befall_member(name, dice.choice(running))

    def _befall_member(self, name: str, victim: SimMember) -> None:
        dice = self.dice
        if name == "subscribe":
            victim.subscribe(self._some_topics())
            self.tell(victim.name, f"wants {victim.topics}")
        elif name == "stop":
            ms = dice.choice([500, 4_000, 15_000])
            victim.stopped_until_ms = self.now_ms + ms
            self.tell(victim.name, f"stands still for {ms} ms")
        elif name in ("kill", "close"):
            goodbye = victim.close()
            self.tell(victim.name, f"{name}ed")
            if name == "close" and goodbye is not None:
                for delay_ms in self._delays(once=False):
                    self.schedule.after(delay_ms, lambda: self._take((None, 0), goodbye, ()))
            elif victim.config.process is not None:
                self.schedule.after(dice.randrange(1, 100), lambda: self._process_ended(victim))
            self.schedule.after(dice.choice([10, 2_000, 20_000]), lambda: self.start(victim.name))

    def _process_ended(self, victim: SimMember) -> None:
        shard = self.coordinator.shard
        group = shard.groups.get(GROUP)
        for member_id in list(group.members) if group is not None else ():
            if member_id == victim.member.member_id:
                self._decided(shard.process_ended(GROUP, member_id, self.now_ms))

    # ---- running -----------------------------------------------------------------------------------------------------

    def _run_until(self, until_ms: int) -> None:
        while self.schedule.run_next(until_ms):
            pass

    def run(self) -> None:
        """Let misfortune reign, then heal everything, then the group must come to rest."""
        end_ms = self.now_ms + FAULTS_MS
        while self.now_ms < end_ms:
            for name, chance in self.plan.faults.items():
                if chance and self.dice.random() < chance / 5:
                    self.events[name] += 1
                    self._befall(name)
            self._run_until(self.now_ms + 200)
        self.tell("world", "heals")
        self.faulty = False
        for index in range(self.plan.members):
            self.start(f"c{index}")
        end_ms, calm_ms = self.now_ms + HEAL_MS, 0
        while calm_ms < CALM_MS:
            self._run_until(self.now_ms + 200)
            why = self._unrest()
            calm_ms = 0 if why else calm_ms + 200
            if self.now_ms > end_ms:
                raise Violation(f"after {HEAL_MS} ms: {why}")

    def _unrest(self) -> str:
        """Return what is not as it should be, empty if all is."""
        state = self.coordinator.shard.describe(GROUP, self.now_ms).state
        if state != "Stable":
            return f"the group is {state}"
        members = [member for member in self.members.values() if member.alive]
        for member in members:
            if member.member.failure is not None:
                raise Violation(f"{member.name} has given up: {member.member.failure}")
        wanted = {topic for member in members for topic in member.topics}
        partitions = {(topic, number) for topic in wanted for number in range(self.topics[topic])}
        owned = Counter(tuple(name) for member in members for name in member.member.owned)
        if owned != Counter(partitions):
            return f"owned: {sorted(owned.items())}, wanted: {sorted(partitions)}"
        for member in members:
            if not {topic for topic, _ in member.member.owned} <= set(member.topics):
                return f"{member.name} has what it does not want"
        return ""

    def check(self, who: SimMember) -> None:
        """Hold what a member has against what others have that the coordinator counts on.

        A static member that has not joined a generation in time is left in it all the same, and has what it is given
        there. What it holds of an earlier one it can't commit any more, and lets go of once it hears of that.
        """
        for other in self.members.values():
            both = who.member.owned & other.member.owned if other is not who and other.alive else None
            value = self.in_force() if both else None
            if value is None:
                continue
            counted = {stored.member_id for stored in value.members}
            if all(one.member_id in counted and not self._is_left_in(one) for one in (who.member, other.member)):
                raise Violation(f"{who.name} and {other.name} both have {both}")

    def _is_left_in(self, member: Member) -> bool:
        return member.generation < self._left_in.get(member.member_id, NO_GENERATION)


def plan_for(seed: int, **focus: Any) -> GroupPlan:
    """Return a seed's plan with other values for some fields."""
    return replace(plan_of(seed), **focus)
