"""A shard and its members, without sockets and clocks: what is decided is stored at once, or kept back for a crash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from brokerd.groups.config import GroupConfig
from brokerd.groups.member import Effects, Watch
from brokerd.groups.records import Fact
from brokerd.groups.shard import Shard
from ingest.wire.group_messages import (
    CommittedOffset,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    LeavingMember,
    MemberProcess,
    OffsetCommitRequest,
    OffsetFetchRequest,
    SyncGroupRequest,
)

GROUP = "readers"
TOPIC = b"t" * 16
SESSION_MS = 10_000
REBALANCE_MS = 60_000


class Driver:
    """Drive one shard.

    Attributes:
        stored: Every fact decided so far, in order.
        answers: By token, what was answered.
        rebalances, lost: How many have begun, and why members were given up.
    """

    def __init__(self, config: GroupConfig | None = None) -> None:
        self.config = config or GroupConfig(initial_rebalance_delay_ms=0)
        self.now_ms = 1_000
        self.stored: list[Fact] = []
        self.answers: dict[Any, Any] = {}
        self.watches: list[Watch] = []
        self.rebalances = 0
        self.lost: list[str] = []
        self._tokens = 0
        self._ids = 0
        self.shard = Shard(self.config)
        self.take(self.shard.loaded(self.now_ms))

    def take(self, effects: Effects) -> None:
        self.stored += effects.facts
        self.watches += effects.watches
        self.rebalances += effects.rebalances
        self.lost += [loss.value for loss in effects.lost]
        for token, message in effects.answers:
            assert token not in self.answers, "answered twice"
            self.answers[token] = message

    def fail_over(self) -> None:
        """Another broker coordinates: it knows what is stored."""
        self.shard = Shard(self.config)
        latest = {fact.key: fact for fact in self.stored}
        for fact in latest.values():
            self.shard.replay(fact, self.now_ms)
        self.take(self.shard.loaded(self.now_ms))

    def token(self) -> int:
        self._tokens += 1
        return self._tokens

    def pass_time(self, ms: int) -> None:
        """Let time pass, with a tick whenever one is due."""
        end_ms = self.now_ms + ms
        while (due_ms := self.shard.next_ms()) <= end_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.take(self.shard.tick(self.now_ms))
        self.now_ms = end_ms

    # ---- requests; each returns its token ----------------------------------------------------------------------------

    def join(
        self,
        member_id: str = "",
        protocols: Sequence[tuple[str, bytes]] = (("range", b"a"),),
        *,
        instance_id: str | None = None,
        known: bool = False,
        process: MemberProcess | None = None,
        **more: Any,
    ) -> int:
        token = self.token()
        self._ids += 1
        request = JoinGroupRequest(
            GROUP,
            member_id,
            SESSION_MS,
            REBALANCE_MS,
            "consumer",
            [name for name, _ in protocols],
            instance_id,
            require_known_member_id=known,
            process=process,
        )
        request = msgspec.structs.replace(request, **more)
        metadata = [data for _, data in protocols]
        new_id = f"m{self._ids}"
        self.take(self.shard.join(request, metadata, token, new_id, client_id="c", now_ms=self.now_ms))
        return token

    def sync(self, member_id: str, generation: int, assignments: dict[str, bytes] | None = None, **more: Any) -> int:
        token = self.token()
        request = SyncGroupRequest(GROUP, generation, member_id, **more)
        self.take(self.shard.sync(request, assignments or {}, token, now_ms=self.now_ms))
        return token

    def heartbeat(self, member_id: str, generation: int, wait_ms: int = 0, instance_id: str | None = None) -> int:
        token = self.token()
        request = HeartbeatRequest(GROUP, generation, member_id, instance_id, wait_ms)
        self.take(self.shard.heartbeat(request, token, self.now_ms))
        return token

    def leave(self, member_id: str = "", instance_id: str | None = None) -> int:
        token = self.token()
        request = LeaveGroupRequest(GROUP, [LeavingMember(member_id, instance_id)])
        self.take(self.shard.leave(request, token, self.now_ms))
        return token

    def commit(self, offset: int, member_id: str = "", generation: int = -1, partition: int = 0, **more: Any) -> int:
        token = self.token()
        item = CommittedOffset(TOPIC, partition, offset, **more)
        request = OffsetCommitRequest(GROUP, [item], generation, member_id)
        self.take(self.shard.commit(request, (), token, wall_ms=0, now_ms=self.now_ms))
        return token

    def committed(self, partition: int = 0) -> int:
        (found,) = self.shard.fetch(OffsetFetchRequest(GROUP, [(TOPIC, partition)])).offsets
        return found.offset

    # ---- several at once ---------------------------------------------------------------------------------------------

    def code(self, token: int) -> int | None:
        """Return the code of an answer, None: there is none yet."""
        answer = self.answers.get(token)
        return None if answer is None else answer.error_code

    def stable(self, count: int) -> tuple[list[str], int]:
        """Have `count` members join and sync; return their ids, the leader first, and the generation."""
        first = self.join()
        tokens = [first]
        ids = [self.answers[first].member_id]
        for _ in range(count - 1):
            tokens = [self.join(), *(self.join(member_id) for member_id in ids)]
            ids = [self.answers[token].member_id for token in tokens]
        generation = self.answers[tokens[0]].generation
        leader = self.answers[tokens[0]].leader
        shares = {member_id: member_id.encode() for member_id in ids}
        syncs = [self.sync(one, generation, shares if one == leader else None) for one in ids]
        assert [self.answers[token].assignment for token in syncs] == [one.encode() for one in ids]
        return sorted(ids, key=lambda one: one != leader), generation
