"""The broker process: one loop that owns the logs and the sockets, with a flusher thread beside it."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec
import structlog
import zmq

from brokerd.config import BrokerConfig
from brokerd.serving.controller_connection import ControllerConnection
from brokerd.serving.member_processes import MemberProcesses
from brokerd.serving.outbox import Answer, Peer
from brokerd.serving.peers import PeerConnections
from brokerd.serving.produce import PARKED_MAX
from brokerd.serving.requests import CLIENT_APIS, RequestHandler
from brokerd.serving.stats import BrokerStats, broker_stats
from brokerd.serving.unsent import UnsentAnswers
from brokerd.sockets import BoundPaths, bind_router
from brokerd.storage.compaction.cleaner import Cleaner
from brokerd.storage.compaction.worker_process import WorkerProcess
from brokerd.storage.directory import LogDirectory
from brokerd.storage.flusher import Flusher
from ingest.errors import LogDirOffline, ProtocolError
from ingest.failpoints import failpoint
from ingest.latency import LatencyRecorder
from ingest.lifeline import Lifeline
from ingest.limits import LIMITS, Limits
from ingest.wire.frames import BadRequest, decode_request
from ingest.wire.messages import ApiKey

log = structlog.get_logger()

MESSAGES_A_ROUND = 64  # taken from one socket before the appended is flushed and answered
BYTES_A_ROUND = 131_072  # so that a producer of large batches fills its window while the next one is appended
POLL_MS_MAX = 250  # the progress stamp is due at least once a second
SHARED_BYTES_MIN = 262_144  # smaller answers are copied: a shared buffer costs a wake-up of pyzmq's thread
MAINTAIN_MS = 1000
SCRUB_BYTES = 1 << 20  # verified each second: 80 GiB a day
SCRUB_MS = 100  # at least between two stretches, each far shorter where batches are small
CHECKPOINT_MS = 5000
# A follower names all its partitions when its session begins, some 50 bytes each; it sends no payload.
PEER_LIMITS = Limits(request_header_bytes_max=4 << 20, payload_frames_max=0)
HELD_MAX = PARKED_MAX + 100  # answers kept for one peer that ZeroMQ has no room for
HELD_TOTAL_MAX = 100_000
HELD_BYTES_MAX = 64 << 20  # of all that is kept
HELD_RETRY_MS = 5
SHUTDOWN_MS_MAX = 2000  # how long others have to take over what this broker leads before it ends
TELL_MS = 1000  # between two lines about messages nobody can read: what comes from outside may not fill the disk


def run(config: BrokerConfig, lifeline: Lifeline) -> None:
    """Serve until told to stop; returns after a clean shutdown.

    Raises:
        ForebayError: the directory or the endpoint can't be used, or the directory failed.
    """
    directory = LogDirectory.open(
        config.log_dir,
        cluster_id=config.cluster_id,
        broker_id=config.broker_id,
        page_path=config.page_path,
        failed_dir=config.failed_dir,
        local_read=config.local_read,
        beat=lifeline.beat,
    )
    _Loop(config, lifeline, directory).run()
    directory.close()  # after an error the process ends without: what is known to be wrong is not called clean


class _Loop:
    """The broker's sockets, flusher and clock around a `RequestHandler`."""

    def __init__(self, config: BrokerConfig, lifeline: Lifeline, directory: LogDirectory) -> None:
        self._config = config
        self._lifeline = lifeline
        self._limits = msgspec.structs.replace(LIMITS, request_bytes_max=config.request_bytes_max)
        self._directory = directory
        endpoints, peer_endpoints = [config.endpoint], [config.peer_endpoint]
        if config.tcp_endpoint:
            endpoints.append(config.advertised_tcp_endpoint)
        if config.peer_tcp_endpoint:
            peer_endpoints.append(config.advertised_peer_tcp_endpoint)
        self._unsent = UnsentAnswers(config.unsent_bytes_max)
        self._handler = RequestHandler(config, directory, endpoints, list(filter(None, peer_endpoints)), self._unsent)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._routers: list[zmq.Socket[bytes]] = []
        self._for_clients = 0  # how many of the routers, which come first
        self._poller = zmq.Poller()
        self._peers = PeerConnections(self._context, self._poller, config.machine)
        self._members = MemberProcesses(self._poller, config.machine)
        self._controller = ControllerConnection(self._context, self._poller, config.controller_endpoint)
        self._flushed_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._flusher = Flusher(lambda: os.eventfd_write(self._flushed_fd, 1))
        self._cleaner = Cleaner(WorkerProcess)
        self._maintain_at_ms = 0
        self._scrub_at_ms = 0
        self._checkpoint_at_ms = 0
        self._ready = False
        self._refusal = ""
        self._disk_full = False
        self._latency = {int(api): LatencyRecorder() for api in CLIENT_APIS}
        self.malformed = 0
        self._malformed_told_ms = -TELL_MS
        self._held: dict[tuple[int, bytes], list[Answer]] = {}
        self._held_count = self._held_bytes = 0
        self._stop_at_ms: int | None = None
        self.unroutable = 0

    def run(self) -> None:
        lifeline, handler = self._lifeline, self._handler
        try:
            config, poller = self._config, self._poller
            for endpoint in filter(None, (config.endpoint, config.tcp_endpoint)):
                self._routers.append(
                    bind_router(self._context, endpoint, message_bytes_max=self._limits.request_bytes_max)
                )
            self._for_clients = len(self._routers)
            for endpoint in filter(None, (config.peer_endpoint, config.peer_tcp_endpoint)):
                self._routers.append(
                    bind_router(self._context, endpoint, message_bytes_max=PEER_LIMITS.request_header_bytes_max)
                )
            self._bound = BoundPaths(config.endpoint, config.peer_endpoint)
            for router in self._routers:
                poller.register(router, zmq.POLLIN)
            poller.register(self._flushed_fd, zmq.POLLIN)
            poller.register(lifeline.stop_fd, zmq.POLLIN)
            lifeline.serve_stats(self.stats)
            while True:
                now_ms = time.monotonic_ns() // 1_000_000
                wait_ms = max(0, min(POLL_MS_MAX, handler.next_deadline_ms() - now_ms))
                if handler.partitions.pending:
                    wait_ms = 0
                if self._held:
                    wait_ms = min(wait_ms, HELD_RETRY_MS)
                ready = dict(poller.poll(wait_ms))
                if (lifeline.stop_fd in ready or self._stop_at_ms is not None) and self._is_stopped(now_ms):
                    break
                self._round(ready)
        finally:
            self._cleaner.close()
            self._flusher.close()
            self._peers.close_all()
            self._members.close()
            for router in self._routers:
                router.close(linger=100)
            self._controller.close()
            self._context.term()
            os.close(self._flushed_fd)

    def _is_stopped(self, now_ms: int) -> bool:
        """Tell whether to end now; before that others get the time to lead what this broker leads."""
        handler = self._handler
        if self._stop_at_ms is None:
            if not handler.partitions.led() or not handler.link.registered:
                return True
            self._stop_at_ms = now_ms + SHUTDOWN_MS_MAX
            self._poller.unregister(self._lifeline.stop_fd)
            handler.shut_down(now_ms)
        return now_ms >= self._stop_at_ms or handler.remaining == len(handler.partitions.led())

    def _round(self, ready: dict[Any, int]) -> None:
        """Take what has come, make it durable, answer."""
        handler = self._handler
        now_ms = time.monotonic_ns() // 1_000_000
        self._receive_controller(ready, now_ms)
        self._receive_peers(now_ms)
        if self._flushed_fd in ready:
            os.eventfd_read(self._flushed_fd)
            self._take_flushed(now_ms)
        for index, router in enumerate(self._routers):
            if router in ready:
                self._receive(index, router, now_ms)
        for member in self._members.ended(ready):
            handler.groups.process_ended(*member, now_ms)
        handler.tick(now_ms)
        handler.apply_some(now_ms)
        handler.groups.load_some(now_ms)
        self._watch_members(now_ms)
        handler.compact(self._cleaner, now_ms)
        for unflushed in handler.settle(now_ms, time.time_ns() // 1_000_000):
            self._flusher.request(unflushed)
        self._maintain(now_ms)
        self._scrub(now_ms)
        self._send_answers()
        self._send_peers(now_ms)
        self._lifeline.beat()
        if not self._ready and handler.view.snapshot is not None:
            self._ready = True
            self._lifeline.ready()
        effects, handler.to_controller = handler.to_controller, []
        self._controller.carry_out(effects, now_ms)

    def _receive(self, index: int, router: zmq.Socket[bytes], now_ms: int) -> None:
        from_peers = index >= self._for_clients
        limits = PEER_LIMITS if from_peers else self._limits
        wall_ms = time.time_ns() // 1_000_000
        size = 0
        for _ in range(MESSAGES_A_ROUND):
            if size >= BYTES_A_ROUND:
                return
            try:
                frames = router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            peer = Peer(index, frames[0].bytes)
            try:
                request = decode_request([frame.buffer for frame in frames[1:]], limits)
            except BadRequest as error:
                self.malformed += 1
                self._handler.outbox.refuse(peer, error.correlation_id, error.code, str(error))
                continue
            except ProtocolError as error:
                self.malformed += 1
                if self._malformed_told_ms + TELL_MS <= now_ms:
                    self._malformed_told_ms = now_ms
                    log.warning("dropped a message", reason=str(error)[:200], dropped=self.malformed)
                continue
            size += sum(memoryview(frame).nbytes for frame in request.payload)
            peer = Peer(index, peer.identity, request.api_key, time.monotonic_ns())
            if from_peers:
                self._handler.handle_peer(peer, request, now_ms)
            else:
                self._handler.handle(peer, request, now_ms, wall_ms)

    def _receive_peers(self, now_ms: int) -> None:
        """Take what the leaders of what is followed here have sent."""
        wall_ms = time.time_ns() // 1_000_000
        for broker_id, responses, lost in self._peers.poll():
            for response in responses:
                self._handler.on_peer_response(broker_id, response, now_ms, wall_ms)
            if lost:
                self._handler.on_peer_lost(broker_id, now_ms)

    def _send_peers(self, now_ms: int) -> None:
        self._handler.pull(now_ms)
        effects, self._handler.to_peers = self._handler.to_peers, []
        for effect in effects:
            if not effect.header:
                self._peers.close(effect.broker_id)
                continue
            broker = self._handler.broker(effect.broker_id)
            if broker is None or not self._peers.send(broker, effect.header):
                self._handler.on_peer_lost(effect.broker_id, now_ms)

    def _take_flushed(self, now_ms: int) -> None:
        for flushed_log, end_offset in self._flusher.drain():
            if isinstance(end_offset, BaseException):
                raise LogDirOffline(
                    f"flush failed: {end_offset}; the directory is marked failed and recovered at the next start",
                    path=self._config.log_dir,
                ) from end_offset
            self._handler.flushed(flushed_log, end_offset, now_ms)

    def _send_answers(self) -> None:
        self._send_held()
        answers = self._handler.outbox.take()
        if not answers:
            return
        failpoint("serving.before_answer")
        for answer in answers:
            if answer.peer.connection in self._held or not self._send_answer(answer):
                self._hold(answer)
        self._unsent.round_over()
        now_ns = time.monotonic_ns()
        for answer in answers:
            peer = answer.peer
            recorder = self._latency.get(peer.api_key)
            if recorder is not None:
                recorder.observe((now_ns - peer.received_ns) / 1e9)

    def _send_held(self) -> None:
        """Send what ZeroMQ had no room for, as far as it has some now."""
        held, self._held = self._held, {}
        self._held_count = self._held_bytes = 0
        for waiting in held.values():
            for answer in waiting:
                if answer.peer.connection in self._held or not self._send_answer(answer):
                    self._hold(answer)

    def _hold(self, answer: Answer) -> None:
        """Keep an answer for a peer that has not read the earlier ones: a flush may release hundreds at once."""
        waiting = self._held.setdefault(answer.peer.connection, [])
        full = self._held_count >= HELD_TOTAL_MAX or self._held_bytes + len(answer.header) > HELD_BYTES_MAX
        if answer.payload or len(waiting) >= HELD_MAX or full:
            self.unroutable += 1  # it does not read at all: it asks again or it does not
            return
        waiting.append(answer)
        self._held_count += 1
        self._held_bytes += len(answer.header)

    def _send_answer(self, answer: Answer) -> bool:
        """Hand an answer to ZeroMQ; False: it has no room for the peer now."""
        router = self._routers[answer.peer.socket]
        frames = [answer.peer.identity, answer.header, *answer.payload]
        size = sum(memoryview(frame).nbytes for frame in answer.payload)
        try:
            if size >= SHARED_BYTES_MIN:
                tracker = router.send_multipart(frames, zmq.NOBLOCK, copy=False, track=True)
                assert tracker is not None
                self._unsent.add(answer.peer.connection, tracker, size)
            else:
                router.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError:
            self.unroutable += 1  # the peer has gone
        return True

    def _receive_controller(self, ready: dict[Any, int], now_ms: int) -> None:
        link = self._handler.link
        responses, lost = self._controller.poll(ready, now_ms)
        for response in responses:
            self._handler.on_controller(link.on_response(response, now_ms), now_ms)
        if lost:
            self._handler.on_controller(link.on_lost(now_ms), now_ms)
        if link.refusal != self._refusal:
            self._refusal = link.refusal
            if self._refusal:
                log.error("the controller does not register this broker; it goes on asking", reason=self._refusal)

    def _watch_members(self, now_ms: int) -> None:
        groups = self._handler.groups
        alive, ended = self._members.carry_out(groups.take_watches())
        for member in alive:
            groups.process_watched(*member)
        for member in ended:
            groups.process_ended(*member, now_ms)

    def _scrub(self, now_ms: int) -> None:
        if now_ms >= self._scrub_at_ms:
            size = self._handler.partitions.scrub(SCRUB_BYTES)
            self._scrub_at_ms = now_ms + max(SCRUB_MS, 1000 * size // SCRUB_BYTES)

    def _maintain(self, now_ms: int) -> None:
        if now_ms < self._maintain_at_ms:
            return
        self._maintain_at_ms = now_ms + MAINTAIN_MS
        self._bound.check()
        boot_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
        for unflushed in self._directory.maintain(boot_ms):
            self._flusher.request(unflushed)
        self._handler.partitions.retry_unavailable()
        if self._directory.disk_full != self._disk_full:
            self._disk_full = self._directory.disk_full
            say = log.error if self._disk_full else log.info
            full = "disk full: producers are refused, reads and commits go on"
            say(full if self._disk_full else "disk has room again")
            self._handler.report_if(True, now_ms)
        if now_ms >= self._checkpoint_at_ms:
            self._checkpoint_at_ms = now_ms + CHECKPOINT_MS
            self._directory.checkpoint()

    def stats(self) -> BrokerStats:
        """Return a snapshot for the control socket. Thread: control; it reads what the loop replaces whole."""
        return broker_stats(
            self._config,
            self._directory,
            self._handler,
            self._flusher,
            self._cleaner,
            malformed=self.malformed,
            unroutable=self.unroutable,
            unsent_bytes=self._unsent.total_bytes,
            latency={ApiKey(api).name: recorder for api, recorder in self._latency.items()},
        )
