"""One member of a group, and what the core asks of the world around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from brokerd.groups.records import Fact, StoredMember
from ingest.limits import LIMITS
from ingest.wire.group_messages import DescribedMember, MemberProcess
from ingest.wire.message import Message

STORED_BYTES = 100  # the most a member takes in the record of its group beside its texts and bytes
HELD_BYTES = 2_000  # about what the objects of a member take in memory beside its texts and bytes
WATCHED_PATIENCE_MS = 300_000  # a computation may keep all threads of a process from saying anything

Token: TypeAlias = Any  # whom to answer; the core only hands it back


@dataclass(frozen=True, slots=True)
class Watch:
    """Tell when a member's process has ended; `process` None: that is of no interest any more."""

    group: str
    member_id: str
    process: MemberProcess | None


class Loss(Enum):
    """Why a group does without a member that did not take its leave."""

    PROCESS_ENDED = "process_ended"
    SESSION_TIMEOUT = "session_timeout"
    REBALANCE_TIMEOUT = "rebalance_timeout"  # it did not join, or the leader did not assign, in time


@dataclass(slots=True)
class Effects:
    """What is to be done, in this order: store the facts, answer once they are committed, watch processes.

    Attributes:
        rebalances: How many have begun.
        lost: A reason for each member that was given up.
    """

    facts: list[Fact] = field(default_factory=list)
    answers: list[tuple[Token, Message]] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    rebalances: int = 0
    lost: list[Loss] = field(default_factory=list)


@dataclass(slots=True)
class Member:
    """A member as its coordinator knows it.

    Attributes:
        protocols: (name, metadata), the one liked best first.
        attempt: Which of its JoinGroups said so.
        heard_ms: When it last said something.
        joining, syncing, beating: Who waits for the answer to its JoinGroup, SyncGroup or Heartbeat; None: nobody.
        beat_by_ms: When its Heartbeat is answered at the latest.
        stored_bytes: The most it takes in the record of its group, its assignment left out.
        told_bytes: What it takes in memory, its assignment left out: the metadata of all its protocols.
        watched: Its process is watched: silence alone does not mean that it has gone.
        ended: Its process is no more; a static member may still come back.
        silent: Nothing was heard of it under this coordinator. It may have left under the one before, whose rebalance
            was not stored: that its process lives says nothing then.
    """

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: Sequence[tuple[str, bytes]]
    process: MemberProcess | None
    heard_ms: int
    attempt: int = 0
    assignment: bytes = b""
    joining: Token = None
    syncing: Token = None
    beating: Token = None
    beat_by_ms: int = 0
    watched: bool = False
    ended: bool = False
    silent: bool = False
    stored_bytes: int = field(init=False)
    told_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.measure()

    def measure(self) -> None:
        """Note how large it is; due when `protocols` are others."""
        machine = "" if self.process is None else self.process.machine
        texts = (self.member_id, self.member_id, self.instance_id or "", self.client_id, self.client_host, machine)
        text_bytes = sum(len(text.encode()) for text in texts)
        protocol_bytes = [len(name.encode()) + len(data) for name, data in self.protocols]
        self.stored_bytes = STORED_BYTES + text_bytes + max(protocol_bytes, default=0)
        self.told_bytes = HELD_BYTES + text_bytes + sum(protocol_bytes)

    @property
    def held_bytes(self) -> int:
        """Return about how many bytes of memory it takes."""
        return self.told_bytes + len(self.assignment)

    def metadata(self, protocol: str) -> bytes:
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")

    def hear(self, now_ms: int) -> None:
        """Note that it said something."""
        self.heard_ms, self.silent, self.ended = now_ms, False, False

    def gone_at_ms(self) -> int:
        """Return when it counts as gone if nothing is heard of it until then.

        A request that waits is asked again before it is this old; who can be seen to live may be silent for longer.
        """
        patience_ms = self.session_timeout_ms
        if self.watched and not self.silent:
            patience_ms = max(patience_ms, self.rebalance_timeout_ms, WATCHED_PATIENCE_MS)
        if self.joining is not None or self.syncing is not None:
            patience_ms += LIMITS.request_timeout_ms_max
        return self.heard_ms + patience_ms

    def stored(self, protocol: str) -> StoredMember:
        return StoredMember(
            self.member_id,
            self.instance_id,
            self.client_id,
            self.client_host,
            self.session_timeout_ms,
            self.rebalance_timeout_ms,
            self.metadata(protocol),
            self.assignment,
            self.process,
            self.attempt,
        )

    def described(self, protocol: str, now_ms: int, *, awaited: bool) -> DescribedMember:
        return DescribedMember(
            self.member_id,
            self.instance_id,
            self.client_id,
            self.client_host,
            self.metadata(protocol),
            self.assignment,
            self.process,
            self.ended,
            max(0, now_ms - self.heard_ms),
            max(0, self.gone_at_ms() - now_ms),
            awaited,
        )


def loaded(stored: StoredMember, protocol: str, now_ms: int) -> Member:
    """Return a member found in the log: a new coordinator gives everyone a whole session."""
    return Member(
        stored.member_id,
        stored.instance_id,
        stored.client_id,
        stored.client_host,
        stored.session_timeout_ms,
        stored.rebalance_timeout_ms,
        [(protocol, stored.metadata)],
        stored.process,
        now_ms,
        stored.attempt,
        stored.assignment,
        silent=True,
    )
