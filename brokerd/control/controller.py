"""The controller's core: decides who leads what, and answers only what is durable; pure.

`step(event, now_ms)` gives effects. A request that changes something becomes `Commit(changes)`; its answer, and the
news for everyone who waits for a newer version, follow when `Committed` comes back. Until then the image is as it was,
so a commit that failed leaves nothing to undo.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from brokerd.control import configs, insync, quotas
from brokerd.control.administration import administer
from brokerd.control.elections import Elected, Electorates, settle_all, touched_by
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
from brokerd.control.parked import ParkedRequests
from brokerd.control.records import Change, PartitionRecord, ProducerIdsRecord, Put, Remove, VersionRecord
from brokerd.control.registration import decide_registration, is_registered
from brokerd.control.relief import relieve
from brokerd.control.sessions import ParkedHeartbeat, Sessions
from brokerd.control.topics import Cluster, Refused
from ingest.latency import LatencyRecorder
from ingest.wire.codes import ErrorCode
from ingest.wire.message import Message
from ingest.wire.messages import (
    VERSION_MAX,
    VERSION_MIN,
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
    AlterConfigsRequest,
    AlterPartitionRequest,
    AlterPartitionResponse,
    ApiKey,
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    ControlledShutdownRequest,
    ControlledShutdownResponse,
    DescribeClientQuotasRequest,
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    MetadataRequest,
)
from replicas.balance import imbalanced, preferred
from replicas.election import Electorate, commit, leave, move
from replicas.state import NO_LEADER

APPLY_WAIT_MS = 1000  # how long an answer waits until every live broker acts by the change
STALL_MS = 2000  # the loop gives an event twice a second; after a longer gap heartbeats wait unread in its socket
LATE_MS = (
    500  # a heartbeat answered so late: its broker may have given up, which it does after 1000, and connected anew
)
RECONNECT_MS = 1000  # its next heartbeat is read by then
COMMIT_RETRY_MS = 1000  # a full disk does not get better at once
PRODUCER_IDS_COUNT = 1000
NO_QUESTION = 0  # brokers count their questions from 1, and drop answers to what they do not ask
Key = tuple[bytes, int]
PATIENCE_MS = 30_000  # how long a partition waits for a replica that may know more than those that came back
SERVED = (
    ApiKey.METADATA,
    ApiKey.API_VERSIONS,
    ApiKey.CREATE_TOPICS,
    ApiKey.DELETE_TOPICS,
    ApiKey.DESCRIBE_CONFIGS,
    ApiKey.ALTER_CONFIGS,
    ApiKey.DESCRIBE_CLIENT_QUOTAS,
    ApiKey.ALTER_CLIENT_QUOTAS,
    ApiKey.CREATE_PARTITIONS,
    ApiKey.ELECT_LEADERS,
    ApiKey.ALTER_PARTITION_REASSIGNMENTS,
    ApiKey.DRAIN_BROKER,
    ApiKey.ALTER_PARTITION,
    ApiKey.CONTROLLED_SHUTDOWN,
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


class Controller:
    """Decide; touch no socket, file, clock or dice. Thread: the controller's loop.

    Attributes:
        elections: Leaders elected, by reason.
        election_seconds: From what made an election necessary to the moment it is durable; one for all of an event.
        leaderless, not_preferred: Partitions that nobody leads, and that another than the first replica leads.
    """

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
        absent: Collection[int] = (),
    ) -> None:
        """Begin an office.

        Args:
            absent: Brokers that are probably gone, though the records call them alive.
        """
        self.image = image
        self._first_version = image.version or -1  # what was taken from brokers before is not known
        self._cluster_id = cluster_id
        self._controller_epoch = controller_epoch
        self._limits = limits
        self._view = MetadataView(image, cluster_id, controller_epoch, broker_configs)
        self._sessions = Sessions(image.brokers, now_ms, session_timeout_ms, absent)
        self._pending: _Pending | None = None
        self._parked = ParkedRequests(self._view, limits.parked_max)
        self._retry_ms = now_ms  # no commit of our own accord before
        self._stepped_ms = now_ms
        self._doubtful_until_ms = now_ms  # connections may have ended because this controller stood still
        self._resettle = False  # whether partitions may not be as they should be, for want of a commit
        self._look_at_leaders()
        self._came_ms = now_ms  # when a broker was heard for the first time, the last of them
        self._rebalanced_ms = now_ms
        self.elections: Counter[str] = Counter()
        self.election_seconds = LatencyRecorder()
        self._committing_since_ms = now_ms

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """Take one event and return what to do, in order; a `Commit` comes last and its outcome is the next event."""
        stalled_ms, self._stepped_ms = now_ms - self._stepped_ms, now_ms
        if stalled_ms >= STALL_MS:
            self._sessions.forgive(stalled_ms)
            self._doubtful_until_ms = now_ms + RECONNECT_MS
        effects = self._take(event, now_ms)
        if self._resettle and self._pending is None and now_ms >= self._retry_ms:
            self._resettle = False
            effects += self._commit_elected(
                settle_all(self.image.all_partitions(), self._electorates(now_ms)), "return"
            )
        return effects

    def _take(self, event: Event, now_ms: int) -> list[Effect]:
        if isinstance(event, Committed | CommitFailed):
            return self._on_commit(event, now_ms)
        assert self._pending is None, "a commit is under way: its outcome comes first"
        match event:
            case Received():
                return self._on_request(event, now_ms)
            case PeerGone(peer=peer):
                broker_id = self._sessions.by_peer(peer)
                if broker_id is None or now_ms < self._doubtful_until_ms:
                    return []  # in doubt the session time decides
                return self._mark_dead([broker_id], "its connection ended", now_ms)
            case ConnectionLost():
                return self._sound_out(now_ms)
            case Tick():
                return self._tick(now_ms)

    def next_deadline_ms(self) -> int | None:
        """Return when the next `Tick` is due, None for no time soon."""
        times = [s.parked.deadline_ms for _, s in self._sessions.all() if s.parked is not None]
        if (parked_ms := self._parked.next_deadline_ms()) is not None:
            times.append(parked_ms)
        expiry = self._sessions.next_expiry_ms(self.image.alive_brokers())
        if expiry is not None:
            times.append(max(expiry, self._retry_ms))
        if self._resettle:
            times.append(self._retry_ms)
        if self.leaderless and self._stepped_ms < self._came_ms + PATIENCE_MS:
            times.append(self._came_ms + PATIENCE_MS)
        times.append(max(self._rebalance_due_ms(), self._retry_ms))
        return min(times, default=None)

    @property
    def parked_count(self) -> int:
        return len(self._parked)

    # ---- commits -----------------------------------------------------------------------------------------------------

    def _commit(
        self,
        changes: list[Change],
        done: Callable[[int], list[Effect]],
        failed: Callable[[str], list[Effect]] = lambda _: [],
    ) -> list[Effect]:
        assert changes
        self._pending = _Pending(changes, done, failed)
        self._committing_since_ms = self._stepped_ms
        return [Commit(changes)]

    def _on_commit(self, event: Committed | CommitFailed, now_ms: int) -> list[Effect]:
        pending, self._pending = self._pending, None
        assert pending is not None, "nothing was to be committed"
        if isinstance(event, CommitFailed):
            self._retry_ms = now_ms + COMMIT_RETRY_MS
            self._resettle = True  # what was to be elected may have no other occasion
            return [
                Note("error", "a change could not be kept", {"reason": event.reason}),
                *pending.failed(event.reason),
            ]
        version = self.image.version
        self.image.apply(pending.changes)
        effects = pending.done(now_ms)
        if self.image.version > version:
            self._look_at_leaders()
            effects += self._answer_heartbeats(now_ms)
            effects += self._parked.answer_metadata()
        return effects

    def _commit_elected(
        self, elected: Elected, event: str, more: Sequence[Change] = (), notes: Sequence[Effect] = ()
    ) -> list[Effect]:
        """Commit what an event changes, if it changes anything.

        Args:
            event: Why leaders are elected, for the metrics.
            more: Changes beside those of partitions.
        """
        changes = [*more, *elected.changes]
        if not changes:
            return []

        def done(now_ms: int) -> list[Effect]:
            return [*notes, *self._count(elected, event), *self._answer_applied(now_ms)]

        return self._commit([*changes, self._next_version()], done)

    def _count(self, elected: Elected, event: str) -> list[Effect]:
        """Count elections that are durable, and tell of those that may have lost something."""
        for how, count in elected.reasons.items():
            self.elections[event if how == "clean" else how] += count
        if elected.reasons:
            self.election_seconds.observe((self._stepped_ms - self._committing_since_ms) / 1000)
        if not elected.lossy:
            return []
        names = [f"{self.image.topics[p.topic_id].name}-{p.partition}" for p in elected.lossy]
        fields: dict[str, object] = {"partitions": len(names), "first": ", ".join(names[:10])}
        return [Note("error", "replicas lead that may lack acknowledged records", fields)]

    def _electorates(
        self,
        now_ms: int,
        *,
        gone: Collection[int] = (),
        come: int | None = None,
        ends: Mapping[Key, tuple[int, int]] | None = None,
    ) -> Electorates:
        """Return who can elect and be elected: without those that are gone, with the one that comes.

        Args:
            ends: Where the logs end of the one that comes.
        """

        def ends_of(topic_id: bytes, partition: int, leader_epoch: int) -> dict[int, tuple[int, int]]:
            known = self._sessions.ends(topic_id, partition, leader_epoch)
            if come is not None and ends is not None:
                known[come] = ends.get((topic_id, partition), (-1, 0))
            return known

        alive = [broker for broker in self.image.alive_brokers() if broker not in gone and broker != come]
        common = Electorate(
            usable=self._sessions.usable(alive) | ({come} if come is not None else set()),
            expected=self._sessions.expected(alive),
            domains=self.image.domains(),
            patience_over=now_ms >= self._came_ms + PATIENCE_MS,
        )
        return Electorates(self.image, self._view.configs, common, ends_of)

    def _mark_dead(self, broker_ids: list[int], reason: str, now_ms: int) -> list[Effect]:
        """Say in the metadata that these are not alive, and have others lead what they led: one commit."""
        dead = [b for b in broker_ids if self.image.brokers[b].alive]
        if not dead:
            return []
        more: list[Change] = [Put(msgspec.structs.replace(self.image.brokers[b], alive=False)) for b in dead]
        elected = settle_all(
            touched_by(self.image, dead), self._electorates(now_ms, gone=dead), lambda record: leave(record, dead)
        )
        notes = [Note("warning", "broker is dead", {"broker": b, "reason": reason}) for b in dead]
        return self._commit_elected(elected, "broker_death", more, notes)

    def _look_at_leaders(self) -> None:
        partitions = list(self.image.all_partitions())
        self.leaderless = sum(p.leader == NO_LEADER for p in partitions)
        self.not_preferred = sum(p.leader != NO_LEADER and p.leader != preferred(p) for p in partitions)

    def _next_version(self) -> Put:
        return Put(VersionRecord(self.image.version + 1))

    # ---- time and waiting --------------------------------------------------------------------------------------------

    def _tick(self, now_ms: int) -> list[Effect]:
        effects = self._answer_applied(now_ms)
        effects += self._parked.answer_metadata(now_ms)
        effects += self._answer_heartbeats(now_ms, overdue=True)
        if now_ms < self._retry_ms:
            return effects
        expired = self._sessions.expired(self.image.alive_brokers(), now_ms)
        if expired:
            return effects + self._mark_dead(expired, "nothing heard of it for the session time", now_ms)
        if self.leaderless and self._came_ms + PATIENCE_MS <= now_ms < self._came_ms + PATIENCE_MS + STALL_MS:
            self._resettle = True
        if now_ms >= self._rebalance_due_ms():
            self._rebalanced_ms = now_ms
            return effects + self._rebalance(now_ms)
        return effects

    def _rebalance_due_ms(self) -> int:
        return self._rebalanced_ms + self._view.configs.number("leader.imbalance.check.interval.seconds") * 1000

    def _rebalance(self, now_ms: int) -> list[Effect]:
        """Give leadership back to preferred leaders that lack too much of it."""
        configs = self._view.configs
        if not configs.flag("auto.leader.rebalance.enable"):
            return []
        draining = {broker.broker_id for broker in self.image.brokers.values() if broker.draining}
        usable = set(self._electorates(now_ms).common.usable) - draining - self._sessions.full()
        percentage = configs.number("leader.imbalance.per.broker.percentage")
        elected = Elected()
        for record in imbalanced(self.image.all_partitions(), usable, percentage):
            elected.changes.append(Put(commit(record, move(record, preferred(record)))))
            elected.reasons["preferred"] += 1
        return self._commit_elected(elected, "preferred")

    def _answer_applied(self, now_ms: int) -> list[Effect]:
        return self._parked.answer_applied(
            lambda version: self._sessions.have_applied(self.image.alive_brokers(), version), now_ms
        )

    def _answer_heartbeats(self, now_ms: int, *, overdue: bool = False) -> list[Effect]:
        """Answer all parked heartbeats, or those whose time is over."""
        effects: list[Effect] = []
        for _, session in self._sessions.all():
            parked = session.parked
            if parked is not None and (not overdue or parked.deadline_ms <= now_ms):
                session.parked = None
                if now_ms >= parked.deadline_ms + LATE_MS:
                    self._doubtful_until_ms = now_ms + RECONNECT_MS
                effects.append(Respond(parked.peer, parked.correlation_id, self._beat(session.applied_version)))
        return effects

    def _sound_out(self, now_ms: int) -> list[Effect]:
        """Answer whoever waits: what can't be delivered tells whose connection has ended.

        One that stops was often answered last, and asks nothing any more: it gets an answer to no question. Of others
        that ask nothing the session time decides, for one that was slow gives up its connection to make it anew.
        """
        asks_nothing = [
            session.peer
            for broker_id, session in self._sessions.all()
            if session.heard and session.stopping and session.parked is None and self.image.brokers[broker_id].alive
        ]
        beat = BrokerHeartbeatResponse(self.image.version, self._controller_epoch, None)
        return self._answer_heartbeats(now_ms) + [Respond(peer, NO_QUESTION, beat) for peer in asks_nothing]

    def _beat(self, applied_version: int) -> BrokerHeartbeatResponse:
        """Return what a broker is told that acts by this version."""
        metadata = self._view.for_brokers() if applied_version < self.image.version else None
        return BrokerHeartbeatResponse(self.image.version, self._controller_epoch, metadata)

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _on_request(self, event: Received, now_ms: int) -> list[Effect]:
        try:
            match event.body:
                case BrokerHeartbeatRequest() as body:
                    return self._heartbeat(event, body, now_ms)
                case BrokerRegistrationRequest() as body:
                    return self._register(event, body, now_ms)
                case AlterPartitionRequest() as body:
                    return self._alter_partitions(event, body, now_ms)
                case ControlledShutdownRequest() as body:
                    return self._controlled_shutdown(event, body, now_ms)
                case AllocateProducerIdsRequest() as body:
                    return self._allocate_producer_ids(event, body)
                case MetadataRequest() as body:
                    return self._describe_cluster(event, body, now_ms)
                case ApiVersionsRequest():
                    versions = [ApiVersion(int(key), VERSION_MIN, VERSION_MAX) for key in SERVED]
                    return [_answer(event, ApiVersionsResponse(versions, -1, self._cluster_id))]
                case DescribeConfigsRequest() as body:
                    return [_answer(event, DescribeConfigsResponse(configs.describe(self._cluster(now_ms), body)))]
                case DescribeClientQuotasRequest():
                    return [_answer(event, quotas.describe(self._cluster(now_ms)))]
                case _:
                    return self._change(event, now_ms)
        except Refused as refused:
            return [Respond(event.peer, event.correlation_id, None, refused.code, str(refused))]

    def _cluster(self, now_ms: int) -> Cluster:
        return Cluster(self.image, self._view.configs, self._limits, self._electorates(now_ms), self._knows_taken)

    def _knows_taken(self, record: PartitionRecord, broker: int) -> bool:
        version = self.image.taken.get((record.topic_id, record.partition, broker), self._first_version)
        return self._sessions.have_applied([broker], version)

    def _change(self, event: Received, now_ms: int) -> list[Effect]:
        """Answer an administrator's request once what it changes is durable and in force."""
        self._parked.check_room()
        changes, answer, elected = administer(self._cluster(now_ms), event)
        if not changes:
            return [_answer(event, answer)]

        def done(now_ms: int) -> list[Effect]:
            # fewer copies may be enough from now on, or another replica may lead
            self._resettle = self._resettle or isinstance(event.body, AlterConfigsRequest)
            notes = self._count(elected, "operator")
            deadline_ms = now_ms + min(APPLY_WAIT_MS, event.timeout_ms)
            self._parked.add_answer(_answer(event, answer), self.image.version, deadline_ms)
            return notes + self._answer_applied(now_ms)

        return self._commit([*changes, self._next_version()], done, _refuse_for_space(event))

    def _register(self, event: Received, body: BrokerRegistrationRequest, now_ms: int) -> list[Effect]:
        broker_id = body.broker.broker_id
        # a process that runs already names leader epochs of which its logs may hold nothing; heartbeats tell the ends
        ends = {(p.topic_id, p.partition): (p.leader_epoch, p.log_end_offset) for p in body.partitions}
        electorates = self._electorates(
            now_ms, come=broker_id, ends=None if is_registered(self.image, body.broker) else ends
        )
        heard = self._sessions.has_heard(broker_id)
        decision = decide_registration(self.image, body, self._cluster_id, self._limits, electorates, heard=heard)

        def done(now_ms: int) -> list[Effect]:
            self._sessions.begin(broker_id, event.peer, now_ms)
            self._came_ms = now_ms
            answer = BrokerRegistrationResponse(decision.broker_epoch, self.image.version, self._controller_epoch)
            notes = self._count(decision.elected, "registration")
            return [*decision.notes(broker_id), *notes, _answer(event, answer)]

        if not decision.changes:
            session = self._sessions.of(broker_id)
            answer = BrokerRegistrationResponse(decision.broker_epoch, self.image.version, self._controller_epoch)
            session.peer = event.peer
            return [_answer(event, answer)]
        return self._commit(decision.changes, done, _refuse_for_space(event))

    def _alter_partitions(self, event: Received, body: AlterPartitionRequest, now_ms: int) -> list[Effect]:
        self._check_broker_epoch(body.broker_id, body.broker_epoch)
        decision = insync.alter_partitions(self.image, body, self._electorates(now_ms))
        answer = _answer(event, AlterPartitionResponse(decision.results))
        if not decision.elected.changes:
            return [answer]
        changes = [*decision.elected.changes, self._next_version()]
        return self._commit(
            changes, lambda _: [*self._count(decision.elected, "reassignment"), answer], _refuse_for_space(event)
        )

    def _controlled_shutdown(self, event: Received, body: ControlledShutdownRequest, now_ms: int) -> list[Effect]:
        """Have others lead what a broker leads that is about to end; what nobody else can lead stays with it."""
        self._check_broker_epoch(body.broker_id, body.broker_epoch)
        self._sessions.of(body.broker_id).stopping = True
        led = [p for p in self.image.all_partitions() if p.leader == body.broker_id]
        elected = settle_all(led, self._electorates(now_ms))
        answer = _answer(event, ControlledShutdownResponse(len(led) - len(elected.changes)))
        if not elected.changes:
            return [answer]
        changes = [*elected.changes, self._next_version()]
        return self._commit(changes, lambda _: [*self._count(elected, "shutdown"), answer], _refuse_for_space(event))

    def _heartbeat(self, event: Received, body: BrokerHeartbeatRequest, now_ms: int) -> list[Effect]:
        self._check_broker_epoch(body.broker_id, body.broker_epoch)
        if body.applied_version > self.image.version:
            raise Refused(
                ErrorCode.STALE_BROKER_EPOCH,
                f"broker {body.broker_id} acts by version {body.applied_version}, but the store holds "
                f"{self.image.version}: it was set back; register again",
            )
        session = self._sessions.of(body.broker_id)
        if not session.heard:
            session.heard, self._resettle, self._came_ms = True, True, now_ms
        session.heard_ms, session.peer = now_ms, event.peer
        session.applied_version = max(session.applied_version, body.applied_version)
        ends = {(e.topic_id, e.partition): (e.leader_epoch, e.last_epoch, e.end_offset) for e in body.leaderless}
        self._resettle = self._resettle or (bool(ends) and ends != session.ends)
        session.ends = ends
        session.disk_full = body.disk_full
        effects: list[Effect] = []
        if session.parked is not None:  # it asks anew, so the answer to what it asked before frees its slot
            parked = session.parked
            effects.append(Respond(parked.peer, parked.correlation_id, self._beat(body.applied_version)))
            session.parked = None
        if body.applied_version < self.image.version:
            effects.append(_answer(event, self._beat(body.applied_version)))
        else:
            wait_ms = max(0, min(body.max_wait_ms, event.timeout_ms))
            session.parked = ParkedHeartbeat(event.peer, event.correlation_id, now_ms + wait_ms)
        effects += self._answer_applied(now_ms)
        broker = self.image.brokers[body.broker_id]
        if not broker.alive:
            alive = Put(msgspec.structs.replace(broker, alive=True))
            note = Note("info", "broker is back", {"broker": body.broker_id})
            elected = settle_all(
                touched_by(self.image, {body.broker_id}), self._electorates(now_ms, come=body.broker_id)
            )
            return effects + self._commit_elected(elected, "return", [alive], [note])
        if body.damaged or body.disk_full:
            relieved = relieve(self.image, body, self._electorates(now_ms), self._sessions.full())
            if relieved.changes:
                return effects + self._commit_elected(relieved, "relief")
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
        self._parked.check_room()
        self._parked.add_metadata(event, body, now_ms + wait_ms)
        return []

    def _check_broker_epoch(self, broker_id: int, broker_epoch: int) -> None:
        broker = self.image.brokers.get(broker_id)
        if broker is None or broker.broker_epoch != broker_epoch:
            known = "is not registered" if broker is None else f"has broker epoch {broker.broker_epoch}"
            raise Refused(
                ErrorCode.STALE_BROKER_EPOCH, f"broker {broker_id} {known}, not {broker_epoch}; register again"
            )


def _answer(event: Received, body: Message) -> Respond:
    return Respond(event.peer, event.correlation_id, body)


def _refuse_for_space(event: Received) -> Callable[[str], list[Effect]]:
    def refuse(reason: str) -> list[Effect]:
        return [Respond(event.peer, event.correlation_id, None, ErrorCode.KAFKA_STORAGE_ERROR, reason)]

    return refuse
