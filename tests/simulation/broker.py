"""The broker's request handler in a process: what `brokerd.serving.broker` does around it, without sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brokerd.config import BrokerConfig
from brokerd.serving.controller_link import Send
from brokerd.serving.outbox import Answer, Peer
from brokerd.serving.requests import RequestHandler
from brokerd.serving.unsent import UnsentAnswers
from brokerd.storage.compaction.cleaner import Cleaner
from brokerd.storage.compaction.job import Job
from ingest.errors import Fenced, LogDirOffline
from ingest.limits import LIMITS
from ingest.wire.frames import Request, decode_request, decode_response
from replicas.puller import PullSettings
from tests.simulation.compaction import SimWorker
from tests.simulation.disk import Disk
from tests.simulation.process import Process
from tests.simulation.storage import SimDirectory

if TYPE_CHECKING:
    from tests.simulation.world import World

CHECKPOINT_MS = 1500
WORKER_MS_MAX = 300


class SimBroker(Process):
    """One incarnation of a broker."""

    def __init__(self, world: World, broker_id: int, machine: str, disk: Disk, boot: str) -> None:
        super().__init__(world, f"broker-{broker_id}", machine)
        self.broker_id = broker_id
        self.disk = disk
        self.directory: Any = SimDirectory(disk, self.name, self.incarnation)
        config = BrokerConfig(
            broker_id=broker_id,
            cluster_id="simulated",
            log_dir=f"/{self.name}",
            page_path=f"/{self.name}.page",
            failed_dir="/failed",
            endpoint=f"ipc:///{self.name}",
            controller_endpoint="ipc:///controller",
            machine=boot,
            site=machine if len(world.machines) > 1 else "site",
            rack=machine if len(world.machines) > 1 else "",
        )
        self.handler = RequestHandler(
            config, self.directory, [config.endpoint], ["ipc:///peer"], UnsentAnswers(1 << 30)
        )
        self.handler.partitions.pull = PullSettings(100, world.plan.fetch_bytes, 1 << 20, world.plan.grace_ms)
        self._cleaner = Cleaner(self._start_worker)
        self._controller_connection = 0
        self._peer_connections: dict[int, int] = {}
        self._seen_marks: dict[Any, int] = {}
        self._seen_epochs: dict[Any, int] = {}
        self._tick()
        self.after(CHECKPOINT_MS, self._checkpoint)

    def _tick(self) -> None:
        due = self.handler.next_deadline_ms() - self.now_ms
        self.after(max(1, min(250, due)), self._tick)

    def _start_worker(self, job: Job) -> SimWorker:
        (log,) = (p.log for p in self.handler.partitions.all() if p.log.compaction.run == job.run)
        due_ms = self.now_ms + self.world.schedule.dice.randrange(1, WORKER_MS_MAX)
        return SimWorker(log, job, due_ms, lambda: self.now_ms)  # type: ignore[arg-type]

    def _checkpoint(self) -> None:
        for partition in self.handler.partitions.all():
            log: Any = partition.log
            log.maintain(self.now_ms, self.world.schedule.wall_ms)
        self.directory.checkpoint()
        self.handler.partitions.scrub(1)
        self.after(CHECKPOINT_MS, self._checkpoint)

    # ---- in

    def receive(self, sender: str, incarnation: int, connection: int, header: bytes, payload: list[bytes]) -> None:
        """Take one request of a client (sender "client-…") or of another broker."""
        request = decode_request([header, *payload], LIMITS)
        peer = Peer(0, f"{sender}/{incarnation}/{connection}".encode())
        if sender.startswith("broker"):
            self.handler.handle_peer(peer, request, self.now_ms)
        else:
            self.handler.handle(peer, request, self.now_ms, self.world.schedule.wall_ms)

    def controller_answered(self, connection: int, header: bytes, epoch: int) -> None:
        """Take the controller's answer, if it came by the connection there is."""
        if connection == self._controller_connection:
            response = decode_response([header])
            self._guarded(
                lambda: self.handler.on_controller(self.handler.link.on_response(response, self.now_ms), self.now_ms)
            )

    def peer_answered(self, leader_id: int, connection: int, frames: list[bytes]) -> None:
        """Take the answer of a broker that is followed."""
        if self._peer_connections.get(leader_id, 0) == connection or self.world.reorders:
            response = decode_response(frames)
            wall_ms = self.world.schedule.wall_ms
            self._guarded(lambda: self.handler.on_peer_response(leader_id, response, self.now_ms, wall_ms))

    def peer_died(self, name: str, incarnation: int) -> None:
        if name.startswith("controller"):
            self._guarded(lambda: self.handler.on_controller(self.handler.link.on_lost(self.now_ms), self.now_ms))
        elif name.startswith("broker"):
            leader_id = int(name.removeprefix("broker-"))
            if leader_id in self.handler.partitions.pullers:
                self.handler.on_peer_lost(leader_id, self.now_ms)

    def _guarded(self, act: Any) -> None:
        try:
            act()
        except Fenced:
            self.kill()
        except LogDirOffline:
            self.kill()

    # ---- the round

    def settle(self) -> None:
        self._guarded(self._round)

    def _round(self) -> None:
        handler, now_ms = self.handler, self.now_ms
        handler.tick(now_ms)
        handler.apply_some(now_ms)
        handler.groups.load_some(now_ms)
        handler.compact(self._cleaner, now_ms)
        for log in handler.settle(now_ms, self.world.schedule.wall_ms):
            self._flush(log)
        for log in [partition.log for partition in handler.partitions.all()]:
            behind = log.config.durability == "os" and log.flushed_end < log.end_offset
            if behind and self.world.schedule.dice.random() < 0.05:
                self._flush(log)
        handler.pull(now_ms)
        self._send()
        self._observe()

    def _flush(self, log: Any) -> None:
        target = log.flush()

        def done() -> None:
            end_offset = target.run()
            self.handler.flushed(log, end_offset, self.now_ms)

        self.after(self.world.flush_ms(), lambda: self._guarded(done))

    def _send(self) -> None:
        handler, network = self.handler, self.world.network
        for answer in handler.outbox.take():
            self._answer(answer)
        effects, handler.to_controller = handler.to_controller, []
        for effect in effects:
            if isinstance(effect, Send):
                connection, header = self._controller_connection, effect.header
                name = self.world.controller_for(self)
                if name is not None:
                    network.post(self, name, self._to_controller(connection, header))
            else:
                self._controller_connection += 1
        peers, handler.to_peers = handler.to_peers, []
        for to_peer in peers:
            if not to_peer.header:
                self._peer_connections[to_peer.broker_id] = self._peer_connections.get(to_peer.broker_id, 0) + 1
                continue
            connection = self._peer_connections.get(to_peer.broker_id, 0)
            target = f"broker-{to_peer.broker_id}"
            network.post(self, target, self._to_peer(connection, to_peer.header))

    def _to_controller(self, connection: int, header: bytes) -> Any:
        name, incarnation = self.name, self.incarnation
        request: Request = decode_request([header])

        def deliver(process: Any) -> None:
            process.receive(name, incarnation, connection, request)

        return deliver

    def _to_peer(self, connection: int, header: bytes) -> Any:
        name, incarnation = self.name, self.incarnation

        def deliver(process: Any) -> None:
            process.receive(name, incarnation, connection, header, [])

        return deliver

    def _answer(self, answer: Answer) -> None:
        name, incarnation, connection = answer.peer.identity.decode().split("/")
        frames = [answer.header, *(bytes(memoryview(frame)) for frame in answer.payload)]
        own = self.broker_id

        def deliver(process: Any) -> None:
            if process.incarnation == int(incarnation):
                if name.startswith("broker"):
                    process.peer_answered(own, int(connection), frames)
                else:
                    process.answered(own, int(connection), frames)

        self.world.network.post(self, name, deliver)

    # ---- what the invariants are held against

    def _observe(self) -> None:
        history = self.world.history
        for partition in self.handler.partitions.all():
            log: Any = partition.log
            key = (log.topic_id, log.partition)
            leadership = partition.leadership
            if leadership is not None and self._seen_epochs.get(key) != leadership.leader_epoch:
                self._seen_epochs[key] = leadership.leader_epoch
                history.leads(key, leadership.leader_epoch, self.name, self.incarnation)
                history.began(key, leadership.leader_epoch, log.files.cache, self.name)
                self.world.events["elections"] += 1
            mark = log.high_watermark
            seen = self._seen_marks.get(key, 0)
            if mark > seen:
                self._seen_marks[key] = mark
                where = f"{self.name} ({'leader' if leadership else 'follower'})"
                history.passed(key, log.leader_epoch, log.files.cache, seen, mark, where)

    def shut_down(self) -> None:
        """Leave in good order."""
        if self.alive:
            self._guarded(self.directory.close)
            self.kill()
