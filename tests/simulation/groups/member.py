"""A consumer in a group: the client's core with a thread's and a user's habits, without sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingest.client.groups.member import Ask, Assign, Change, Lose, Member, MemberConfig, Revoke
from ingest.errors import ForebayError, RequestTimedOut
from ingest.wire.group_messages import LeaveGroupRequest
from ingest.wire.message import Message

if TYPE_CHECKING:
    from tests.simulation.groups.world import GroupWorld

LOOK_MS = 30  # finding the coordinator anew
METADATA_MS = 400


class SimMember:
    """One consumer's process.

    Attributes:
        name: Of the consumer; the next process of it has the same.
        user_ms: How long its user takes between two polls, at most.
    """

    def __init__(self, world: GroupWorld, name: str, config: MemberConfig, topics: list[str], user_ms: int) -> None:
        self.world = world
        self.name = name
        self.config = config
        self.member = Member(config)
        self.user_ms = user_ms
        self.alive = True
        self.stopped_until_ms = 0
        self.busy_until_ms = 0
        self.topics = topics
        self._known = dict(world.topics)
        self._under_way: int | None = None
        self._look_until_ms = 0
        self._run_at_ms = 0
        self.member.polled(world.now_ms)
        self.member.subscribe(topics)
        self.after(0, self._learn)
        self.after(1, self._poll)

    def after(self, ms: int, act: Any) -> None:
        """Do something later, if the process lives then; what a stopped one has to do waits until it goes on."""

        def happen() -> None:
            wait_ms = self.stopped_until_ms - self.world.now_ms
            if not self.alive:
                return
            if wait_ms > 0:
                self.after(wait_ms, act)
                return
            act()
            self.world.check(self)

        self.world.schedule.after(ms, happen)

    # ---- its thread --------------------------------------------------------------------------------------------------

    def _learn(self) -> None:
        self._known = dict(self.world.topics)
        self.run()
        self.after(self.world.dice.randrange(METADATA_MS // 2, METADATA_MS), self._learn)

    def run(self) -> None:
        """Do what the thread does in one round."""
        now_ms = self.world.now_ms
        self.member.know(self._known)
        if now_ms >= self._look_until_ms:
            ask = self.member.step(now_ms, set(self._known))
            if ask is not None:
                self._send(ask)
        due_ms = max(self.member.next_ms(now_ms), self._look_until_ms)
        if not now_ms < self._run_at_ms <= due_ms:
            self._run_at_ms = max(due_ms, now_ms + 1)
            self.after(self._run_at_ms - now_ms, self.run)

    def _send(self, ask: Ask) -> None:
        self._under_way = ask.number
        self.world.send(self, ask)
        self.after(ask.timeout_ms, lambda: self.answered(ask.number, None, RequestTimedOut("no answer in time")))

    def answered(self, number: int, body: Message | None, error: ForebayError | None) -> None:
        """Take the outcome of a request, the first that comes."""
        if number == self._under_way:
            self._under_way = None
            if self.member.answered(number, body, error, self.world.now_ms):
                self._look_until_ms = self.world.now_ms + self.world.dice.randrange(1, LOOK_MS)
            self.run()

    # ---- its user ----------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        dice, now_ms = self.world.dice, self.world.now_ms
        if self.member.polled(now_ms):
            self.run()
        while (change := self.member.change()) is not None:
            if dice.random() < 0.2:  # what a listener does takes time, and the thread may be faster in between
                self.after(dice.randrange(self.user_ms), lambda: self._done(change))
                return
            self._settle(change)
        self.run()
        pause_ms = dice.randrange(1, self.user_ms)
        if self.world.faulty and dice.random() < 0.01:
            pause_ms = dice.randrange(self.config.max_poll_interval_ms * 3 // 2)
        self.after(pause_ms, self._poll)

    def _done(self, change: Change) -> None:
        self._settle(change)
        self._poll()

    def _settle(self, change: Change) -> None:
        if self.member.settled(change):
            self.world.events[type(change).__name__] += bool(change.partitions)
            match change:
                case Assign() | Revoke():
                    self.world.tell(self.name, f"{change}")
                case Lose():
                    self.world.tell(self.name, f"has lost {set(change.partitions)}")

    def subscribe(self, topics: list[str]) -> None:
        """Read other topics from now on."""
        self.topics = topics
        self.member.subscribe(topics)
        self.run()

    # ---- its end -----------------------------------------------------------------------------------------------------

    def close(self) -> LeaveGroupRequest | None:
        """Leave in good order; return what it says, which may get lost."""
        self.alive = False
        return self.member.leave()
