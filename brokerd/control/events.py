"""What the controller's core is told, and what it wants done: values only.

Effects are carried out in order. `Commit` is always the last of its list: the core hears `Committed` or `CommitFailed`
before anything else, and only then answers: persist, then reply.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from brokerd.control.records import Change
from ingest.wire.codes import ErrorCode
from ingest.wire.message import Message


@dataclass(frozen=True, slots=True)
class Received:
    """A request came.

    Attributes:
        peer: Whom to answer; opaque.
        timeout_ms: What is left until the sender's deadline.
        topic_ids: Fresh random ids, one for each topic the request may create: the core has no dice.
        placement_start: A random number; where a round over brokers begins if all are equal.
    """

    peer: bytes
    correlation_id: int
    timeout_ms: int
    body: Message
    topic_ids: tuple[bytes, ...] = ()
    placement_start: int = 0


@dataclass(frozen=True, slots=True)
class Committed:
    """The last `Commit` is durable."""


@dataclass(frozen=True, slots=True)
class CommitFailed:
    """The last `Commit` changed nothing: there was no room."""

    reason: str


@dataclass(frozen=True, slots=True)
class PeerGone:
    """An answer could not be delivered: that connection has ended."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """Some peer's connection has ended, unknown whose."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = Received | Committed | CommitFailed | PeerGone | ConnectionLost | Tick


@dataclass(frozen=True, slots=True)
class Commit:
    """Make these changes durable, all or none."""

    changes: list[Change]


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer one request; with a code other than NONE there is no body."""

    peer: bytes
    correlation_id: int
    body: Message | None
    code: ErrorCode = ErrorCode.NONE
    message: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Tell the operator."""

    level: str
    what: str
    fields: dict[str, object] = field(default_factory=dict)


Effect = Commit | Respond | Note
