"""The controller's core: decides who leads what, and answers only what is durable; pure.

`step(event, now_ms)` gives effects. A request that changes something becomes `Commit(changes)`; its answer, and the
news for everyone who waits for a newer version, follow when `Committed` comes back. Until then the image is as it was,
so a commit that failed leaves nothing to undo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from brokerd.control import configs
from brokerd.control.administration import administer
from brokerd.control.events import (
    Commit,
    CommitFailed,
    Committed,
    ConnectionLost,
    Effect,
    Event,
    Note,
    PeerGone,
    Received,
    Respond,
    Tick,
)
from brokerd.control.image import ClusterImage
from brokerd.control.limits import CONTROL_LIMITS, ControlLimits
from brokerd.control.metadata import MetadataView
from brokerd.control.records import Change, ProducerIdsRecord, Put, Remove, VersionRecord
from brokerd.control.registration import RegistrationDecision, decide_registration
from brokerd.control.sessions import ParkedHeartbeat, Sessions
from brokerd.control.topics import Cluster, Refused
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    VERSION_MAX,
    VERSION_MIN,
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
    ApiKey,
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    BrokerHeartbeatRequest,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    Message,
    MetadataRequest,
)

APPLY_WAIT_MS = 1000  # how long an answer waits until every live broker acts by the change
STALL_MS = 2000  # the loop gives an event twice a second; after a longer gap heartbeats wait unread in its socket
COMMIT_RETRY_MS = 1000  # a full disk does not get better at once
PRODUCER_IDS_COUNT = 1000
SERVED = (
    ApiKey.METADATA,
    ApiKey.API_VERSIONS,
    ApiKey.CREATE_TOPICS,
    ApiKey.DELETE_TOPICS,
    ApiKey.DESCRIBE_CONFIGS,
    ApiKey.ALTER_CONFIGS,
    ApiKey.CREATE_PARTITIONS,
    ApiKey.BROKER_REGISTRATION,
    ApiKey.BROKER_HEARTBEAT,
    ApiKey.ALLOCATE_PRODUCER_IDS,
)


@dataclass(frozen=True, slots=True)
class _Pending:
    """The commit under way, and what follows it."""

    changes: list[Change]
    done: Callable[[int], list[Effect]]
    failed: Callable[[str], list[Effect]]


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


class Controller:
    """Decide; touch no socket, file, clock or dice. Thread: the controller's loop."""

    def __init__(
        self,
        image: ClusterImage,
        *,
        cluster_id: str,
        controller_epoch: int,
        now_ms: int,
        broker_configs: dict[str, str],
        session_timeout_ms: int,
        limits: ControlLimits = CONTROL_LIMITS,
    ) -> None:
        self.image = image
        self._cluster_id = cluster_id
        self._controller_epoch = controller_epoch
        self._limits = limits
        self._view = MetadataView(image, cluster_id, controller_epoch, broker_configs)
        self._sessions = Sessions(image.brokers, now_ms, session_timeout_ms)
        self._pending: _Pending | None = None
        self._answers: list[_ParkedAnswer] = []
        self._metadata: list[_ParkedMetadata] = []
        self._retry_ms = now_ms  # no commit of our own accord before
        self._stepped_ms = now_ms

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """Take one event and return what to do, in order; a `Commit` comes last and its outcome is the next event."""
        stalled_ms, self._stepped_ms = now_ms - self._stepped_ms, now_ms
        if stalled_ms >= STALL_MS:
            self._sessions.forgive(stalled_ms)
        if isinstance(event, Committed | CommitFailed):
            return self._on_commit(event, now_ms)
        assert self._pending is None, "a commit is under way: its outcome comes first"
        match event:
            case Received():
                return self._on_request(event, now_ms)
            case PeerGone(peer=peer):
                broker_id = self._sessions.by_peer(peer)
                return [] if broker_id is None else self._mark_dead([broker_id], "its connection ended")
            case ConnectionLost():
                return self._answer_heartbeats()
            case Tick():
                return self._tick(now_ms)

    def next_deadline_ms(self) -> int | None:
        """Return when the next `Tick` is due, None for no time soon."""
        times = [answer.deadline_ms for answer in self._answers]
        times += [parked.deadline_ms for parked in self._metadata]
        times += [s.parked.deadline_ms for _, s in self._sessions.all() if s.parked is not None]
        expiry = self._sessions.next_expiry_ms(self.image.alive_brokers())
        if expiry is not None:
            times.append(max(expiry, self._retry_ms))
        return min(times, default=None)

    @property
    def parked_count(self) -> int:
        return len(self._answers) + len(self._metadata)

    # ---- commits -----------------------------------------------------------------------------------------------------

    def _commit(
        self,
        changes: list[Change],
        done: Callable[[int], list[Effect]],
        failed: Callable[[str], list[Effect]] = lambda _: [],
    ) -> list[Effect]:
        assert changes
        self._pending = _Pending(changes, done, failed)
        return [Commit(changes)]

    def _on_commit(self, event: Committed | CommitFailed, now_ms: int) -> list[Effect]:
        pending, self._pending = self._pending, None
        assert pending is not None, "nothing was to be committed"
        if isinstance(event, CommitFailed):
            self._retry_ms = now_ms + COMMIT_RETRY_MS
            return [
                Note("error", "a change could not be kept", {"reason": event.reason}),
                *pending.failed(event.reason),
            ]
        version = self.image.version
        self.image.apply(pending.changes)
        effects = pending.done(now_ms)
        if self.image.version > version:
            effects += self._answer_heartbeats()
            effects += self._answer_metadata(lambda parked: True)
        return effects

    def _mark_dead(self, broker_ids: list[int], reason: str) -> list[Effect]:
        """Say in the metadata that these are not alive; with one replica the leader stays the leader."""
        dead = [b for b in broker_ids if self.image.brokers[b].alive]
        if not dead:
            return []
        changes: list[Change] = [Put(msgspec.structs.replace(self.image.brokers[b], alive=False)) for b in dead]
        changes.append(self._next_version())

        def done(now_ms: int) -> list[Effect]:
            notes: list[Effect] = [Note("warning", "broker is dead", {"broker": b, "reason": reason}) for b in dead]
            return notes + self._answer_applied(now_ms)

        return self._commit(changes, done)

    def _next_version(self) -> Put:
        return Put(VersionRecord(self.image.version + 1))

    # ---- time and waiting --------------------------------------------------------------------------------------------

    def _tick(self, now_ms: int) -> list[Effect]:
        effects = self._answer_applied(now_ms)
        effects += self._answer_metadata(lambda parked: parked.deadline_ms <= now_ms)
        effects += self._answer_heartbeats(now_ms)
        if now_ms < self._retry_ms:
            return effects
        expired = self._sessions.expired(self.image.alive_brokers(), now_ms)
        return effects + self._mark_dead(expired, "nothing heard of it for the session time")

    def _answer_applied(self, now_ms: int) -> list[Effect]:
        """Answer the changes that every live broker acts by, and those that waited long enough."""
        if not self._answers:
            return []
        alive = self.image.alive_brokers()
        waiting, effects = [], list[Effect]()
        for answer in self._answers:
            if answer.deadline_ms <= now_ms or self._sessions.have_applied(alive, answer.version):
                effects.append(answer.respond)
            else:
                waiting.append(answer)
        self._answers = waiting
        return effects

    def _answer_metadata(self, due: Callable[[_ParkedMetadata], bool]) -> list[Effect]:
        answered = [parked for parked in self._metadata if due(parked)]
        if answered:
            self._metadata = [parked for parked in self._metadata if not due(parked)]
        return [Respond(p.peer, p.correlation_id, self._view.for_clients(p.topics)) for p in answered]

    def _answer_heartbeats(self, now_ms: int | None = None) -> list[Effect]:
        """Answer all parked heartbeats, or those whose time is over at `now_ms`."""
        effects: list[Effect] = []
        for _, session in self._sessions.all():
            parked = session.parked
            if parked is not None and (now_ms is None or parked.deadline_ms <= now_ms):
                session.parked = None
                effects.append(Respond(parked.peer, parked.correlation_id, self._view.for_brokers()))
        return effects

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _on_request(self, event: Received, now_ms: int) -> list[Effect]:
        try:
            match event.body:
                case BrokerHeartbeatRequest() as body:
                    return self._heartbeat(event, body, now_ms)
                case BrokerRegistrationRequest() as body:
                    return self._register(event, body)
                case AllocateProducerIdsRequest() as body:
                    return self._allocate_producer_ids(event, body)
                case MetadataRequest() as body:
                    return self._describe_cluster(event, body, now_ms)
                case ApiVersionsRequest():
                    versions = [ApiVersion(int(key), VERSION_MIN, VERSION_MAX) for key in SERVED]
                    return [_answer(event, ApiVersionsResponse(versions, -1, self._cluster_id))]
                case DescribeConfigsRequest() as body:
                    return [_answer(event, DescribeConfigsResponse(configs.describe(self._cluster(), body)))]
                case _:
                    return self._change(event)
        except Refused as refused:
            return [Respond(event.peer, event.correlation_id, None, refused.code, str(refused))]

    def _cluster(self) -> Cluster:
        return Cluster(self.image, self._view.configs, self._limits)

    def _change(self, event: Received) -> list[Effect]:
        """Answer an administrator's request once what it changes is durable and in force."""
        self._check_room()
        changes, answer = administer(self._cluster(), event)
        if not changes:
            return [_answer(event, answer)]

        def done(now_ms: int) -> list[Effect]:
            deadline_ms = now_ms + min(APPLY_WAIT_MS, event.timeout_ms)
            self._answers.append(_ParkedAnswer(_answer(event, answer), self.image.version, deadline_ms))
            return self._answer_applied(now_ms)

        return self._commit([*changes, self._next_version()], done, _refuse_for_space(event))

    def _register(self, event: Received, body: BrokerRegistrationRequest) -> list[Effect]:
        decision = decide_registration(self.image, body, self._cluster_id, self._limits)
        broker_id = body.broker.broker_id

        def done(now_ms: int) -> list[Effect]:
            self._sessions.begin(broker_id, event.peer, now_ms)
            answer = BrokerRegistrationResponse(decision.broker_epoch, self.image.version, self._controller_epoch)
            return [*_registration_notes(broker_id, decision), _answer(event, answer)]

        if not decision.changes:
            session = self._sessions.of(broker_id)
            answer = BrokerRegistrationResponse(decision.broker_epoch, self.image.version, self._controller_epoch)
            session.peer = event.peer
            return [_answer(event, answer)]
        return self._commit(decision.changes, done, _refuse_for_space(event))

    def _heartbeat(self, event: Received, body: BrokerHeartbeatRequest, now_ms: int) -> list[Effect]:
        self._check_broker_epoch(body.broker_id, body.broker_epoch)
        if body.applied_version > self.image.version:
            raise Refused(
                ErrorCode.STALE_BROKER_EPOCH,
                f"broker {body.broker_id} acts by version {body.applied_version}, but the store holds "
                f"{self.image.version}: it was set back; register again",
            )
        session = self._sessions.of(body.broker_id)
        session.heard_ms, session.peer = now_ms, event.peer
        session.applied_version = max(session.applied_version, body.applied_version)
        effects: list[Effect] = []
        if session.parked is not None:  # it asks anew, so the answer to what it asked before frees its slot
            effects.append(Respond(session.parked.peer, session.parked.correlation_id, self._view.for_brokers()))
            session.parked = None
        if body.applied_version < self.image.version:
            effects.append(_answer(event, self._view.for_brokers()))
        else:
            wait_ms = max(0, min(body.max_wait_ms, event.timeout_ms))
            session.parked = ParkedHeartbeat(event.peer, event.correlation_id, now_ms + wait_ms)
        effects += self._answer_applied(now_ms)
        broker = self.image.brokers[body.broker_id]
        if not broker.alive:
            alive = Put(msgspec.structs.replace(broker, alive=True))
            note = Note("info", "broker is back", {"broker": body.broker_id})
            return effects + self._commit([alive, self._next_version()], lambda _: [note])
        return effects + self._forget_deleted()

    def _forget_deleted(self) -> list[Effect]:
        """Drop the marks of deleted topics that every registered broker has erased."""
        erased: list[Change] = [
            Remove(deleted)
            for deleted in self.image.deleted_topics.values()
            if self._sessions.have_applied(self.image.brokers, deleted.version)
        ]
        return self._commit(erased, lambda _: []) if erased else []

    def _allocate_producer_ids(self, event: Received, body: AllocateProducerIdsRequest) -> list[Effect]:
        self._check_broker_epoch(body.broker_id, body.broker_epoch)
        start = self.image.next_producer_id
        answer = _answer(event, AllocateProducerIdsResponse(start, PRODUCER_IDS_COUNT))
        changes: list[Change] = [Put(ProducerIdsRecord(start + PRODUCER_IDS_COUNT))]
        return self._commit(changes, lambda _: [answer], _refuse_for_space(event))

    def _describe_cluster(self, event: Received, body: MetadataRequest, now_ms: int) -> list[Effect]:
        wait_ms = min(body.max_wait_ms, event.timeout_ms)
        if body.known_version < self.image.version or wait_ms <= 0:
            return [_answer(event, self._view.for_clients(body.topics))]
        self._check_room()
        self._metadata.append(_ParkedMetadata(event.peer, event.correlation_id, body.topics, now_ms + wait_ms))
        return []

    def _check_broker_epoch(self, broker_id: int, broker_epoch: int) -> None:
        broker = self.image.brokers.get(broker_id)
        if broker is None or broker.broker_epoch != broker_epoch:
            known = "is not registered" if broker is None else f"has broker epoch {broker.broker_epoch}"
            raise Refused(
                ErrorCode.STALE_BROKER_EPOCH, f"broker {broker_id} {known}, not {broker_epoch}; register again"
            )

    def _check_room(self) -> None:
        if self.parked_count >= self._limits.parked_max:
            raise Refused(ErrorCode.THROTTLING_QUOTA_EXCEEDED, "too many requests wait for an answer; try again")


def _answer(event: Received, body: Message) -> Respond:
    return Respond(event.peer, event.correlation_id, body)


def _refuse_for_space(event: Received) -> Callable[[str], list[Effect]]:
    def refuse(reason: str) -> list[Effect]:
        return [Respond(event.peer, event.correlation_id, None, ErrorCode.KAFKA_STORAGE_ERROR, reason)]

    return refuse


def _registration_notes(broker_id: int, decision: RegistrationDecision) -> list[Effect]:
    notes: list[Effect] = [Note("info", "broker registered", {"broker": broker_id, "epoch": decision.broker_epoch})]
    if decision.replaced_directory:
        fields: dict[str, object] = {
            "broker": broker_id,
            "directory_before": decision.replaced_directory,
            "partitions_lost": decision.lost,
        }
        notes.append(Note("error", "broker came with another log directory: what it held alone is lost", fields))
    if decision.stray:
        notes.append(Note("warning", "broker holds partitions of unknown topics", {"count": decision.stray}))
    return notes
