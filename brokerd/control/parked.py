"""Requests that wait for their answer: until every live broker acts by a change, or there is newer metadata; pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from brokerd.control.events import Effect, Received, Respond
from brokerd.control.metadata import MetadataView
from brokerd.control.topics import Refused
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import MetadataRequest


@dataclass(frozen=True, slots=True)
class _ParkedAnswer:
    """A durable change that the live brokers don't all act by yet."""

    respond: Respond
    version: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class _ParkedMetadata:
    peer: bytes
    correlation_id: int
    topics: list[str] | None
    deadline_ms: int


class ParkedRequests:
    """What waits at the controller, heartbeats apart. Thread: the controller's loop."""

    def __init__(self, view: MetadataView, count_max: int) -> None:
        self._view = view
        self._count_max = count_max
        self._answers: list[_ParkedAnswer] = []
        self._metadata: list[_ParkedMetadata] = []

    def __len__(self) -> int:
        return len(self._answers) + len(self._metadata)

    def next_deadline_ms(self) -> int | None:
        times = [answer.deadline_ms for answer in self._answers] + [poll.deadline_ms for poll in self._metadata]
        return min(times, default=None)

    def check_room(self) -> None:
        """Make sure that one more may wait.

        Raises:
            Refused: too many do.
        """
        if len(self) >= self._count_max:
            raise Refused(ErrorCode.THROTTLING_QUOTA_EXCEEDED, "too many requests wait for an answer; try again")

    def add_answer(self, respond: Respond, version: int, deadline_ms: int) -> None:
        """Keep the answer to a change until all act by `version`."""
        self._answers.append(_ParkedAnswer(respond, version, deadline_ms))

    def add_metadata(self, event: Received, body: MetadataRequest, deadline_ms: int) -> None:
        """Keep a client's long poll."""
        self._metadata.append(_ParkedMetadata(event.peer, event.correlation_id, body.topics, deadline_ms))

    def answer_applied(self, all_act_by: Callable[[int], bool], now_ms: int) -> list[Effect]:
        """Answer the changes that every live broker acts by, and those that waited long enough."""
        waiting, effects = [], list[Effect]()
        for answer in self._answers:
            if answer.deadline_ms <= now_ms or all_act_by(answer.version):
                effects.append(answer.respond)
            else:
                waiting.append(answer)
        self._answers = waiting
        return effects

    def answer_metadata(self, until_ms: int | None = None) -> list[Effect]:
        """Answer the polls whose time is over by `until_ms`, None: all, for there is a newer version."""
        due, waiting = list[_ParkedMetadata](), list[_ParkedMetadata]()
        for poll in self._metadata:
            (due if until_ms is None or poll.deadline_ms <= until_ms else waiting).append(poll)
        self._metadata = waiting
        return [Respond(p.peer, p.correlation_id, self._view.for_clients(p.topics)) for p in due]
