"""A shard over a log of which a part is committed, as a broker hosts one: an answer leaves once that part holds all
that was decided before it. Other brokers take over with what the log holds then."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from brokerd.groups.config import GroupConfig
from brokerd.groups.member import Effects, Watch
from brokerd.groups.records import Fact, decode, encode
from brokerd.groups.shard import Shard
from ingest.wire.message import Message

Deliver = Callable[[Any, Message | None], None]


def replayed(facts: Sequence[Fact], config: GroupConfig, now_ms: int) -> Shard:
    """Return what a coordinator makes of the records of these facts; it has not begun yet."""
    latest = {encode(fact.key): None if fact.value is None else encode(fact.value) for fact in facts}
    shard = Shard(config)
    for key, value in latest.items():
        shard.replay(decode(key, value), now_ms)
    return shard


class Coordinator:
    """The groups of one partition, whoever coordinates them.

    Args:
        deliver: Is given each answer that leaves, None for one whose outcome nobody will tell.

    Attributes:
        log: All facts that were decided and not lost.
        mark: How many of them are committed.
        terms: How many coordinators there have been.
    """

    def __init__(self, config: GroupConfig, now_ms: int, deliver: Deliver) -> None:
        self.config = config
        self.log: list[Fact] = []
        self.mark = 0
        self.terms = 0
        self.watches: list[Watch] = []
        self._deliver = deliver
        self._waiting: deque[tuple[int, Any, Message]] = deque()
        self._begin(now_ms)

    def _begin(self, now_ms: int) -> None:
        self.terms += 1
        self.shard = replayed(self.log, self.config, now_ms)
        self.take(self.shard.loaded(now_ms))

    def take(self, effects: Effects) -> None:
        """Append what was decided, and let its answers wait."""
        self.log += effects.facts
        self.watches += effects.watches
        for token, message in effects.answers:
            self.answer(token, message)

    def answer(self, token: Any, message: Message) -> None:
        """Answer once all that was decided until now is committed."""
        self._waiting.append((len(self.log), token, message))

    def decided(self) -> set[Any]:
        """Return whose answers wait for a commit."""
        return {token for _, token, _ in self._waiting}

    def commit(self, count: int | None = None) -> None:
        """Have so many facts more be committed, all without `count`, one by one, and let answers leave."""
        end = len(self.log) if count is None else min(len(self.log), self.mark + count)
        self._let_go()
        while self.mark < end:
            self.mark += 1
            self._let_go()

    def _let_go(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.mark:
            _, token, message = self._waiting.popleft()
            self._deliver(token, message)

    def fail_over(self, kept: int, now_ms: int) -> None:
        """Have another coordinate, which holds `kept` of the facts that are not committed."""
        unanswered = [token for _, token, _ in self._waiting] + list(self.shard.waiting())
        self._waiting.clear()
        self.log = self.log[: self.mark + kept]
        for token in unanswered:
            self._deliver(token, None)
        self._begin(now_ms)

    def tick(self, now_ms: int) -> None:
        """Let time pass; `next_ms` of the shard has come."""
        self.take(self.shard.tick(now_ms))
