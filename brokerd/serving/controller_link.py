"""The broker's talk with the controller: register, heartbeat, hear of every change, forward what is its to decide.

A pure core: `step` takes an event and the time and gives back effects; the broker's loop owns the socket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from brokerd.serving.outbox import Peer
from ingest.errors import ProtocolError, RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Response, api_key_of, decode_body, encode_request
from ingest.wire.message import Message
from ingest.wire.messages import (
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
    AlterPartition,
    AlterPartitionRequest,
    AlterPartitionResponse,
    ApiKey,
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    ControlledShutdownRequest,
    ControlledShutdownResponse,
    DamagedReplica,
    LeaderlessEnd,
    MetadataResponse,
)

REGISTRATION_TIMEOUT_MS = 1000  # the controller restarts in tens of milliseconds; asking again is cheap
HEARTBEAT_WAIT_MS = 1000
HEARTBEAT_GRACE_MS = 1000
RETRY_MS = 50
# A deposed controller falls silent within its lease, 2/3 of zookeeper.session.timeout.ms. If a lower epoch is all that
# is heard for longer, the store was set back, to a backup say, and it is the only controller there is.
DEPOSED_MS = 20_000
# After an answered heartbeat was sent, while the connection lasts: the controller counts the session time from its
# arrival, ControllerConfig.session_timeout_ms, and declares nobody dead before but who is disconnected.
CONFIRMED_MS = 2500


@dataclass(frozen=True, slots=True)
class Send:
    """Send one header frame to the controller."""

    header: bytes


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Close the socket and open another: what was sent on the old one is lost or answered too late.

    Attributes:
        endpoint: Of the controller, as this machine's candidate says; "" where that one listens.
    """

    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Registered:
    """This incarnation is registered; its leader epochs are in metadata of `version` or newer."""

    broker_epoch: int
    version: int


@dataclass(frozen=True, slots=True)
class NewMetadata:
    """The cluster has changed."""

    snapshot: MetadataResponse


@dataclass(frozen=True, slots=True)
class ProducerIds:
    """A block of producer ids that no one else was or will be given."""

    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The controller's answer to what was forwarded for `peer`."""

    peer: Peer
    correlation_id: int
    response: Response


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The controller gave no answer in time."""

    peer: Peer
    correlation_id: int


@dataclass(frozen=True, slots=True)
class AlteredInSync:
    """The controller's word on the in-sync sets proposed; None: there is none, they may be accepted or not."""

    response: AlterPartitionResponse | None


@dataclass(frozen=True, slots=True)
class ShutdownAnswered:
    """Others lead what this broker led, but for `remaining` partitions."""

    remaining: int


@dataclass(frozen=True, slots=True)
class FencedOut:
    """A newer incarnation of this broker is registered: this process must end."""


Effect = (
    FencedOut
    | Send
    | Reconnect
    | Registered
    | NewMetadata
    | ProducerIds
    | Forwarded
    | Unanswered
    | AlteredInSync
    | ShutdownAnswered
)


@dataclass(frozen=True, slots=True)
class Complaints:
    """What a heartbeat says that is not as it should be; see `BrokerHeartbeatRequest`."""

    leaderless: list[LeaderlessEnd] = field(default_factory=list)
    damaged: list[DamagedReplica] = field(default_factory=list)
    disk_full: bool = False


@dataclass(slots=True)
class _Waiting:
    api_key: int
    sent_ms: int
    deadline_ms: int
    peer: Peer | None = None
    correlation_id: int = -1


class ControllerLink:
    """Decide what to say to the controller next; touch no socket and no clock.

    Attributes:
        refusal: Why the controller does not register this broker, empty if it does.
        confirmed_until_ms: So long the controller counts this broker among the living.
    """

    def __init__(
        self,
        broker_id: int,
        registration: Callable[[], BrokerRegistrationRequest],
        complaints: Callable[[], Complaints] = Complaints,
    ) -> None:
        self._broker_id = broker_id
        self._complaints = complaints
        self._registration = registration
        self._waiting: dict[int, _Waiting] = {}
        self._next_id = 0
        self._retry_at_ms = 0
        self.broker_epoch = -1
        self.controller_epoch = -1
        self._deposed_since_ms: int | None = None
        self.received_version = -1
        self.applied_version = -1
        self._next_heartbeat_ms = 0
        self.confirmed_until_ms = 0
        self.refusal = ""

    @property
    def registered(self) -> bool:
        return self.broker_epoch >= 0

    def tick(self, now_ms: int) -> list[Effect]:
        """Send what is due and give up on what is overdue."""
        effects: list[Effect] = []
        overdue = {number: waiting for number, waiting in self._waiting.items() if waiting.deadline_ms <= now_ms}
        if any(w.api_key in (ApiKey.BROKER_REGISTRATION, ApiKey.BROKER_HEARTBEAT) for w in overdue.values()):
            overdue = dict(self._waiting)  # nobody listens: the other answers won't come by this connection either
            self.confirmed_until_ms = min(self.confirmed_until_ms, now_ms)
            effects.append(Reconnect())
        for number in overdue:
            effects += self._given_up(self._waiting.pop(number))
        if now_ms < self._retry_at_ms:
            return effects
        if not self.registered:
            if not self._is_waiting(ApiKey.BROKER_REGISTRATION):
                effects.append(self._send(self._registration(), now_ms, REGISTRATION_TIMEOUT_MS))
        elif not self._is_waiting(ApiKey.BROKER_HEARTBEAT) and (
            self.applied_version >= self.received_version or now_ms >= self._next_heartbeat_ms
        ):
            effects.append(self._heartbeat(now_ms))
        return effects

    def report(self, now_ms: int) -> list[Effect]:
        """Say with a heartbeat of its own what has changed here; the one that waits is answered then."""
        return [self._heartbeat(now_ms)] if self.registered and now_ms >= self._retry_at_ms else []

    def _heartbeat(self, now_ms: int) -> Send:
        said = self._complaints()
        leaderless = said.leaderless if self.applied_version >= self.received_version else []
        beat = BrokerHeartbeatRequest(
            self._broker_id,
            self.broker_epoch,
            self.applied_version,
            HEARTBEAT_WAIT_MS,
            leaderless,
            said.damaged,
            said.disk_full,
        )
        return self._send(beat, now_ms, HEARTBEAT_WAIT_MS + HEARTBEAT_GRACE_MS)

    def next_deadline_ms(self) -> int:
        """Return when `tick` wants to be called again at the latest."""
        times = [waiting.deadline_ms for waiting in self._waiting.values()]
        if not self.registered and not self._is_waiting(ApiKey.BROKER_REGISTRATION):
            times.append(self._retry_at_ms)
        if self.registered and not self._is_waiting(ApiKey.BROKER_HEARTBEAT):
            is_current = self.applied_version >= self.received_version
            times.append(self._retry_at_ms if is_current else max(self._retry_at_ms, self._next_heartbeat_ms))
        return min(times)

    def forwarded(self, connection: tuple[int, bytes]) -> tuple[int, int]:
        """Return how many forwarded requests wait: of one connection, and of all."""
        peers = [waiting.peer for waiting in self._waiting.values() if waiting.peer is not None]
        return sum(peer.connection == connection for peer in peers), len(peers)

    def forward(self, peer: Peer, correlation_id: int, body: Message, now_ms: int, timeout_ms: int) -> list[Effect]:
        """Pass a request on in this broker's name."""
        effect = self._send(body, now_ms, timeout_ms)
        waiting = self._waiting[self._next_id]
        waiting.peer, waiting.correlation_id = peer, correlation_id
        return [effect]

    def want_producer_ids(self, now_ms: int) -> list[Effect]:
        """Ask for the next block of producer ids unless that was done already."""
        if not self.registered or self._is_waiting(ApiKey.ALLOCATE_PRODUCER_IDS):
            return []
        request = AllocateProducerIdsRequest(self._broker_id, self.broker_epoch)
        return [self._send(request, now_ms, REGISTRATION_TIMEOUT_MS)]

    def alter_partitions(self, partitions: list[AlterPartition], now_ms: int) -> list[Effect]:
        """Propose in-sync sets; one request is under way at a time, and its outcome comes as `AlteredInSync`."""
        assert self.registered
        assert not self.is_altering
        request = AlterPartitionRequest(self._broker_id, self.broker_epoch, partitions)
        return [self._send(request, now_ms, REGISTRATION_TIMEOUT_MS)]

    @property
    def is_altering(self) -> bool:
        return self._is_waiting(ApiKey.ALTER_PARTITION)

    def shut_down(self, now_ms: int) -> list[Effect]:
        """Tell the controller that this broker is about to end."""
        if not self.registered or self._is_waiting(ApiKey.CONTROLLED_SHUTDOWN):
            return []
        request = ControlledShutdownRequest(self._broker_id, self.broker_epoch)
        return [self._send(request, now_ms, REGISTRATION_TIMEOUT_MS)]

    def applied(self, version: int, now_ms: int) -> list[Effect]:
        """Note that metadata of `version` is in force here; the controller hears it with the next heartbeat."""
        self.applied_version = max(self.applied_version, version)
        return self.tick(now_ms)

    def on_response(self, response: Response, now_ms: int) -> list[Effect]:
        """Take one answer of the controller; answers to what was given up are dropped."""
        waiting = self._waiting.pop(response.correlation_id, None)
        if waiting is None:
            return []
        if response.error_code == ErrorCode.NOT_CONTROLLER:
            return self._on_guided(waiting, response.message, now_ms)
        if waiting.peer is not None:
            return [Forwarded(waiting.peer, waiting.correlation_id, response)]
        try:
            body = decode_body(response, waiting.api_key)
        except (RemoteError, ProtocolError) as error:
            if getattr(error, "code", None) == ErrorCode.STALE_BROKER_EPOCH:
                if waiting.api_key == ApiKey.BROKER_REGISTRATION:
                    return [FencedOut()]
                self.broker_epoch = -1
            if waiting.api_key == ApiKey.BROKER_REGISTRATION:
                self.refusal = str(error)
            self._retry_at_ms = now_ms + RETRY_MS
            lost: list[Effect] = [AlteredInSync(None)] if waiting.api_key == ApiKey.ALTER_PARTITION else []
            return [*lost, *self.tick(now_ms)]
        epoch = getattr(body, "controller_epoch", self.controller_epoch)
        if epoch < self.controller_epoch and self._is_deposed(now_ms):
            self._retry_at_ms = now_ms + RETRY_MS
            return [Reconnect(), *self.tick(now_ms)]  # a controller that was deposed is still talking
        self._deposed_since_ms = None
        self.controller_epoch = epoch
        if isinstance(body, BrokerRegistrationResponse | BrokerHeartbeatResponse):
            self.confirmed_until_ms = waiting.sent_ms + CONFIRMED_MS
        if isinstance(body, BrokerRegistrationResponse):
            self.broker_epoch = body.broker_epoch
            self.refusal = ""
            self.applied_version = self.received_version = -1
            return [Registered(body.broker_epoch, body.version), *self.tick(now_ms)]
        if isinstance(body, AllocateProducerIdsResponse):
            return [ProducerIds(body.producer_id_start, body.count)]
        if isinstance(body, AlterPartitionResponse):
            return [AlteredInSync(body)]
        if isinstance(body, ControlledShutdownResponse):
            return [ShutdownAnswered(body.remaining)]
        effects: list[Effect] = []
        if isinstance(body, BrokerHeartbeatResponse):
            self._next_heartbeat_ms = now_ms + HEARTBEAT_WAIT_MS
            if body.metadata is not None and body.version > self.received_version:
                self.received_version = body.version
                effects.append(NewMetadata(body.metadata))
        return [*effects, *self.tick(now_ms)]

    def _is_deposed(self, now_ms: int) -> bool:
        if self._deposed_since_ms is None:
            self._deposed_since_ms = now_ms
        return now_ms - self._deposed_since_ms < DEPOSED_MS

    def on_lost(self, now_ms: int) -> list[Effect]:
        """The controller has gone, and with it every answer that was awaited; ask again what is ours to ask."""
        gone, self._waiting = list(self._waiting.values()), {}
        self.confirmed_until_ms = min(self.confirmed_until_ms, now_ms)
        effects = [effect for waiting in gone for effect in self._given_up(waiting)]
        return [*effects, *self.tick(now_ms)]

    def _given_up(self, waiting: _Waiting) -> list[Effect]:
        """Tell whom it concerns that there is no answer."""
        if waiting.peer is not None:
            return [Unanswered(waiting.peer, waiting.correlation_id)]
        return [AlteredInSync(None)] if waiting.api_key == ApiKey.ALTER_PARTITION else []

    def _on_guided(self, waiting: _Waiting, endpoint: str, now_ms: int) -> list[Effect]:
        """Go where the controller is, or ask again soon if nobody knows; whatever else waits has the same answer."""
        self._waiting[-1] = waiting
        if not endpoint:
            self._retry_at_ms = now_ms + RETRY_MS
            return self.on_lost(now_ms)
        return [Reconnect(endpoint), *self.on_lost(now_ms)]

    def _is_waiting(self, api_key: int) -> bool:
        return any(w.api_key == api_key and w.peer is None for w in self._waiting.values())

    def _send(self, body: Message, now_ms: int, timeout_ms: int) -> Send:
        self._next_id += 1
        api_key = api_key_of(body)
        self._waiting[self._next_id] = _Waiting(api_key, now_ms, now_ms + timeout_ms)
        return Send(encode_request(body, self._next_id, timeout_ms, f"broker-{self._broker_id}"))
