"""The controller process: a thin loop that gives the core its events and does what it says."""

from __future__ import annotations

import os
import random
import time
from collections import Counter, deque
from typing import Any

import structlog
import zmq

from brokerd.control.broker_settings import EffectiveConfigs
from brokerd.control.candidacy import candidacy
from brokerd.control.config import ControllerConfig
from brokerd.control.configs import check_broker_configs
from brokerd.control.controller import Controller
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
from brokerd.control.limits import CONTROL_LIMITS, REQUEST_LIMITS
from brokerd.control.stats import ControllerStats
from brokerd.control.store import MetadataStore
from brokerd.sockets import BoundPaths, bind_router
from ingest.errors import DiskFull, ProtocolError, StorageError
from ingest.lifeline import Lifeline
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import BadRequest, Request, decode_request, encode_response
from ingest.wire.messages import ApiKey, CreateTopicsRequest

log = structlog.get_logger()

POLL_MS_MAX = 500  # the progress stamp is due at least once a second
MESSAGES_A_ROUND = 64
DROPPED_TELL_MS = 1000  # a hostile peer must not fill the log
HWM = 256  # a broker forwards its clients' requests over one connection
# libzmq tells of a lost connection before the socket has let go of the peer, so an answer would still vanish in silence
LOST_SETTLE_MS = 5


def run(config: ControllerConfig, lifeline: Lifeline) -> None:
    """Be a candidate, then the controller, until told to stop; returns after a clean resignation.

    Raises:
        ConfigError: the endpoint can't be bound, or a broker config can't be used.
        StorageError: the store can't be used, or a commit's outcome is unknown: start again.
        Fenced: another controller has won.
    """
    check_broker_configs(EffectiveConfigs(config.broker_configs, {}), CONTROL_LIMITS)
    loop = ControllerLoop(config, lifeline)
    lifeline.serve_stats(loop.stats)
    with candidacy(config, lifeline, loop.wait_for) as won:
        if won is not None:
            loop.run(*won)


class ControllerLoop:
    """The socket, store and clock around a `Controller`. Thread: its own, but for `stats`."""

    def __init__(self, config: ControllerConfig, lifeline: Lifeline) -> None:
        self._config = config
        self._lifeline = lifeline
        self._stats = ControllerStats(role="standby")
        self._requests: Counter[str] = Counter()
        self._errors = self._dropped = self._unroutable = 0
        self._commits = self._commits_failed = 0
        self._commit_seconds_total = self._commit_seconds_max = 0.0
        self._dropped_told_ms = -DROPPED_TELL_MS
        self._gone: deque[bytes] = deque()

    def stats(self) -> ControllerStats:
        """Return the last snapshot. Thread: any."""
        return self._stats

    def wait_for(self, what: str) -> None:
        """Take note of what a standby lacks, "" for nothing."""
        self._stats = ControllerStats(role="standby", waits_for=what)

    def run(self, store: MetadataStore, controller_epoch: int) -> None:
        """Serve as the controller of this epoch; the caller holds the lock, so binding steals no one's endpoint."""
        self._store = store
        self._controller_epoch = controller_epoch
        image = store.load()
        absent = self._absent(image)
        self._core = Controller(
            image,
            cluster_id=self._config.cluster_id,
            controller_epoch=controller_epoch,
            now_ms=_now_ms(),
            broker_configs=self._config.broker_configs,
            session_timeout_ms=self._config.session_timeout_ms,
            absent=absent,
        )
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = bind_router(
            context,
            self._config.endpoint,
            self._config.tcp_endpoint,
            message_bytes_max=REQUEST_LIMITS.request_header_bytes_max,
            hwm=HWM,
        )
        self._bound = BoundPaths(self._config.endpoint)
        monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            log.info("controller is active", epoch=controller_epoch, version=self._core.image.version)
            self._serve(monitor)
        finally:
            self._socket.disable_monitor()
            monitor.close(linger=0)
            self._socket.close(linger=0)
            context.term()

    def _absent(self, image: ClusterImage) -> set[int]:
        """Return the brokers whose machine does not reach the store, as far as that is known."""
        try:
            return self._store.absent(image.alive_brokers())
        except StorageError as error:
            log.warning("which machines are there is not known", reason=str(error))
            return set()

    def _serve(self, monitor: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        poller.register(self._lifeline.stop_fd, zmq.POLLIN)
        lost_at_ms: int | None = None
        self._publish()
        self._lifeline.ready()
        while True:
            self._lifeline.beat()
            ready = dict(poller.poll(self._wait_ms(lost_at_ms)))
            self._store.check()
            self._bound.check()
            if self._lifeline.stop_fd in ready:
                return
            if monitor in ready:
                _drain(monitor)
                lost_at_ms = _now_ms()
            if self._socket in ready:
                self._receive()
            if lost_at_ms is not None and _now_ms() >= lost_at_ms + LOST_SETTLE_MS:
                lost_at_ms = None
                self._step(ConnectionLost())
            deadline_ms = self._core.next_deadline_ms()
            if deadline_ms is not None and deadline_ms <= _now_ms():
                self._step(Tick())
            self._publish()

    def _wait_ms(self, lost_at_ms: int | None) -> int:
        now_ms = _now_ms()
        due = [now_ms + POLL_MS_MAX]
        deadline_ms = self._core.next_deadline_ms()
        if deadline_ms is not None:
            due.append(deadline_ms)
        if lost_at_ms is not None:
            due.append(lost_at_ms + LOST_SETTLE_MS)
        return max(0, min(due) - now_ms)

    def _receive(self) -> None:
        for _ in range(MESSAGES_A_ROUND):
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                request = decode_request(frames, REQUEST_LIMITS)
            except BadRequest as error:
                self._dropped += 1
                self._send(Respond(peer, error.correlation_id, None, error.code, str(error)))
                continue
            except ProtocolError as error:
                self._dropped += 1
                if self._dropped_told_ms + DROPPED_TELL_MS <= _now_ms():
                    self._dropped_told_ms = _now_ms()
                    log.warning("dropped a message", reason=str(error)[:200], dropped=self._dropped)
                continue
            self._requests[ApiKey(request.api_key).name] += 1
            self._step(_received(peer, request))
            self._lifeline.beat()

    def _step(self, event: Event) -> None:
        """Give the core one event and carry out what follows from it, to the end."""
        self._carry_out(self._core.step(event, _now_ms()))
        while self._gone:
            self._carry_out(self._core.step(PeerGone(self._gone.popleft()), _now_ms()))

    def _carry_out(self, effects: list[Effect]) -> None:
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            match effect:
                case Respond():
                    self._send(effect)
                case Note(level=level, what=what, fields=fields):
                    getattr(log, level)(what, **fields)
                case Commit():
                    assert not todo, "a commit is the last effect"
                    todo.extend(self._core.step(self._commit(effect), _now_ms()))

    def _commit(self, effect: Commit) -> Committed | CommitFailed:
        started = time.perf_counter()
        try:
            self._store.commit(effect.changes, controller_epoch=self._controller_epoch)
        except DiskFull as error:
            self._commits_failed += 1
            return CommitFailed(str(error))
        seconds = time.perf_counter() - started
        self._commits += 1
        self._commit_seconds_total += seconds
        self._commit_seconds_max = max(self._commit_seconds_max, seconds)
        return Committed()

    def _send(self, answer: Respond) -> None:
        if answer.code != ErrorCode.NONE:
            self._errors += 1
        header = encode_response(answer.correlation_id, answer.body, answer.code, answer.message)
        try:
            self._socket.send_multipart([answer.peer, header], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            self._unroutable += 1
            if error.errno == zmq.EHOSTUNREACH:
                self._gone.append(answer.peer)
            # else the peer reads nothing and its queue is full: it asks again or it does not

    def _publish(self) -> None:
        image = self._core.image
        self._stats = ControllerStats(
            role="active",
            controller_epoch=self._controller_epoch,
            version=image.version,
            topics=len(image.topics),
            partitions=image.partition_count(),
            deleted_topics=len(image.deleted_topics),
            brokers=len(image.brokers),
            brokers_alive=len(image.alive_brokers()),
            requests=dict(self._requests),
            errors=self._errors,
            dropped=self._dropped,
            unroutable=self._unroutable,
            parked=self._core.parked_count,
            commits=self._commits,
            commits_failed=self._commits_failed,
            commit_seconds_total=self._commit_seconds_total,
            commit_seconds_max=self._commit_seconds_max,
            elections=dict(self._core.elections),
            election_seconds=self._core.election_seconds.snapshot(),
            leaderless=self._core.leaderless,
            not_preferred=self._core.not_preferred,
        )


def _received(peer: bytes, request: Request) -> Received:
    """Return the event of a request, with the chance that the core may not take for itself."""
    body = request.body
    count = len(body.topics) if isinstance(body, CreateTopicsRequest) else 0
    return Received(
        peer,
        request.correlation_id,
        request.timeout_ms,
        body,
        topic_ids=tuple(_random_topic_id() for _ in range(count)),
        placement_start=random.getrandbits(16),
    )


def _random_topic_id() -> bytes:
    """Return the 16 bytes of a uuid4."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def _drain(monitor: zmq.Socket[Any]) -> None:
    while True:
        try:
            monitor.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
