"""The controller's core with a store that is a dictionary: what a process around it does, without the process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from brokerd.control.controller import Controller
from brokerd.control.events import Commit, CommitFailed, Committed, Effect, Event, Note, Received, Respond, Tick
from brokerd.control.image import ClusterImage
from brokerd.control.limits import CONTROL_LIMITS, ControlLimits
from brokerd.control.records import Put, Record, decode_record, encode_record
from ingest.wire.codes import ErrorCode
from ingest.wire.message import Message
from ingest.wire.messages import (
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerRegistrationResponse,
    CreateTopicsRequest,
    LocalPartition,
    MetadataResponse,
    NewTopic,
)
from tests.brokerd.control.harness import CLUSTER_ID, registration

SESSION_MS = 9000


class Driver:
    """Drive one core after the other over the same durable records.

    Attributes:
        disk_full: Commits fail while it is set.
        epochs: The last broker epoch granted, by broker.
    """

    def __init__(self, *, broker_configs: dict[str, str] | None = None, limits: ControlLimits = CONTROL_LIMITS) -> None:
        self.durable: dict[str, bytes] = {}
        self.now_ms = 1000
        self.disk_full = False
        self.commits = 0
        self.notes: list[Note] = []
        self.epochs: dict[int, int] = {}
        self._broker_configs = broker_configs or {}
        self._limits = limits
        self._controller_epoch = 0
        self._next_correlation_id = 0
        self._next_topic_id = 0
        self.restart()

    def restart(self, absent: Sequence[int] = ()) -> None:
        """A new controller wins, with nothing but what is durable and what the store says of machines."""
        self._controller_epoch += 1
        self.core = Controller(
            ClusterImage(self.records()),
            cluster_id=CLUSTER_ID,
            controller_epoch=self._controller_epoch,
            now_ms=self.now_ms,
            broker_configs=self._broker_configs,
            session_timeout_ms=SESSION_MS,
            limits=self._limits,
            absent=absent,
        )

    def records(self) -> list[Record]:
        return [decode_record(value) for value in self.durable.values()]

    def step(self, event: Event) -> list[Respond]:
        """Give the core one event, carry out what follows, and return the answers."""
        answers: list[Respond] = []
        todo: list[Effect] = self.core.step(event, self.now_ms)
        while todo:
            effect = todo.pop(0)
            match effect:
                case Respond():
                    answers.append(effect)
                case Note():
                    self.notes.append(effect)
                case Commit():
                    assert not todo, "a commit comes last"
                    outcome: Event = CommitFailed("the disk is full") if self.disk_full else Committed()
                    if not self.disk_full:
                        self._write(effect)
                    todo = self.core.step(outcome, self.now_ms)
        self.core.image.check()
        return answers

    def _write(self, commit: Commit) -> None:
        self.commits += 1
        for change in commit.changes:
            if isinstance(change, Put):
                self.durable[change.record.path] = encode_record(change.record)
            else:
                del self.durable[change.record.path]

    def later(self, ms: int) -> list[Respond]:
        """Let time pass as a loop does that looks at the clock twice a second."""
        answers: list[Respond] = []
        for _ in range(ms // 500):
            self.now_ms += 500
            answers += self.step(Tick())
        self.now_ms += ms % 500
        return answers + self.step(Tick())

    def send(self, body: Message, peer: bytes = b"client", timeout_ms: int = 5000, start: int = 0) -> list[Respond]:
        self._next_correlation_id += 1
        ids = tuple(self.fresh_topic_id() for _ in getattr(body, "topics", None) or ())
        return self.step(Received(peer, self._next_correlation_id, timeout_ms, body, ids, start))

    def fresh_topic_id(self) -> bytes:
        self._next_topic_id += 1
        return self._next_topic_id.to_bytes(16, "big")

    def ask(self, body: Message, peer: bytes = b"client", **options: Any) -> Any:
        """Send and return the body of the one answer that came at once."""
        (answer,) = [a for a in self.send(body, peer, **options) if a.peer == peer]
        assert answer.code == ErrorCode.NONE, answer
        return answer.body

    def refusal(self, body: Message, peer: bytes = b"client") -> ErrorCode:
        (answer,) = self.send(body, peer)
        assert answer.body is None
        assert answer.message
        return answer.code

    # ---- brokers -----------------------------------------------------------------------------------------------------

    def register(
        self, broker_id: int = 1, incarnation: int = 1, found: Sequence[LocalPartition] = (), **options: Any
    ) -> BrokerRegistrationResponse:
        request = registration(broker_id, incarnation=incarnation, partitions=list(found), **options)
        answer: BrokerRegistrationResponse = self.ask(request, _peer(broker_id))
        self.epochs[broker_id] = answer.broker_epoch
        return answer

    def heartbeat(self, broker_id: int = 1, applied: int | None = None, wait_ms: int = 1000) -> list[Respond]:
        applied = self.core.image.version if applied is None else applied
        return self.send(
            BrokerHeartbeatRequest(broker_id, self.epochs[broker_id], applied, wait_ms), _peer(broker_id), wait_ms
        )

    def metadata(self, broker_id: int = 1) -> MetadataResponse:
        """Return what a broker that knows nothing is told."""
        answers = self.heartbeat(broker_id, applied=-1)
        (answer,) = [a for a in answers if a.correlation_id == self._next_correlation_id]
        assert isinstance(answer.body, BrokerHeartbeatResponse)
        assert answer.body.metadata is not None
        return answer.body.metadata

    def create(self, *topics: NewTopic, start: int = 0) -> Any:
        """Create topics and let every live broker apply the change."""
        answers = self.send(CreateTopicsRequest(list(topics)), start=start)
        return self._result(answers)

    def change(self, body: Message) -> Any:
        """Change something and let every live broker apply it; returns what each topic got."""
        return self._result(self.send(body))

    def _result(self, answers: list[Respond]) -> Any:
        for broker_id in self.core.image.alive_brokers():
            answers += self.heartbeat(broker_id)
        (answer,) = [answer for answer in answers if answer.peer == b"client"]
        assert answer.code == ErrorCode.NONE, answer
        body: Any = answer.body
        return next((getattr(body, name) for name in ("topics", "resources") if hasattr(body, name)), body)


def _peer(broker_id: int) -> bytes:
    return b"broker-%d" % broker_id
