"""The controller's core in a process, and the store it commits to."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from brokerd.control.controller import Controller
from brokerd.control.events import (
    Commit,
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
from brokerd.control.records import Change, Put, decode_record, encode_record
from ingest.wire.frames import Request, encode_response
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

SESSION_MS = 3000


class Store:
    """Records of the cluster, durable; only the controller of the newest epoch may change them.

    Attributes:
        unsynced: Commits that a power cut would take back, newest last: none, unless the store is planted to be lazy.
    """

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.epoch = 0
        self.unsynced: list[dict[str, bytes]] = []

    def campaign(self) -> int:
        self.epoch += 1
        return self.epoch

    def load(self) -> ClusterImage:
        return ClusterImage([decode_record(value) for value in self.records.values()])

    def commit(self, changes: list[Change], epoch: int) -> bool:
        """Commit all changes; False: another controller has won since."""
        if epoch != self.epoch:
            return False
        self._before_commit()
        for change in changes:
            if isinstance(change, Put):
                self.records[change.record.path] = encode_record(change.record)
            else:
                self.records.pop(change.record.path, None)
        return True

    def _before_commit(self) -> None:
        """A hook of the lazy store."""

    def cut_power(self) -> None:
        """Lose what was not synced: nothing."""


class SimController(Process):
    """The active controller; it ends when it is fenced."""

    def __init__(self, world: World, name: str, machine: str) -> None:
        super().__init__(world, name, machine)
        self.epoch = world.store.campaign()
        self.core = Controller(
            world.store.load(),
            cluster_id="simulated",
            controller_epoch=self.epoch,
            now_ms=self.now_ms,
            broker_configs=world.broker_configs,
            session_timeout_ms=SESSION_MS,
            absent=self._absent(),
        )
        self._gone: deque[bytes] = deque()
        self._tick()

    def _absent(self) -> set[int]:
        """Return the brokers of machines that the store calls gone, rightly or not: nothing may depend on it."""
        machines = self.world.plan.machines
        dice = random.Random(
            f"{self.world.seed} {self.epoch}"
        )  # of its own: planted bugs keep the seeds that find them
        return {b for ids in machines.values() if len(machines) > 1 and dice.random() < 0.25 for b in ids}

    def _tick(self) -> None:
        self.step(Tick())
        due = self.core.next_deadline_ms()
        delay = 200 if due is None else max(1, min(200, due - self.now_ms))
        self.after(delay, self._tick)

    def receive(self, sender: str, incarnation: int, connection: int, request: Request) -> None:
        """Take one request of a broker."""
        dice = self.world.schedule.dice
        topics = getattr(request.body, "topics", None) or ()
        ids = tuple(dice.randbytes(16) for _ in topics)
        peer = f"{sender}/{incarnation}/{connection}".encode()
        event = Received(peer, request.correlation_id, request.timeout_ms, request.body, ids, dice.randrange(100))
        self.step(event)

    def peer_died(self, name: str, incarnation: int) -> None:
        self.step(ConnectionLost())

    def step(self, event: Event) -> None:
        """Give the core one event and carry out what follows, to the end."""
        self._carry_out(self.core.step(event, self.now_ms))
        while self.alive and self._gone:
            self._carry_out(self.core.step(PeerGone(self._gone.popleft()), self.now_ms))

    def _carry_out(self, effects: list[Effect]) -> None:
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            match effect:
                case Respond():
                    self._respond(effect)
                case Note():
                    self.world.tell(self.name, effect.what)
                case Commit(changes=changes):
                    assert not todo
                    if self.world.dice_says("kill_controller_at_commit", 0.002):
                        self.kill()
                        return
                    if not self.world.store.commit(changes, self.epoch):
                        self.world.tell(self.name, "is fenced")
                        self.kill()
                        return
                    self.world.committed()
                    if self.world.dice_says("kill_controller_after_commit", 0.002):
                        self.kill()
                        return
                    todo.extend(self.core.step(Committed(), self.now_ms))

    def _respond(self, answer: Respond) -> None:
        name, incarnation, connection = answer.peer.decode().split("/")
        header = encode_response(answer.correlation_id, answer.body, answer.code, answer.message)
        target = self.world.network.processes.get(name)
        if target is None or not target.alive or target.incarnation != int(incarnation):
            self._gone.append(answer.peer)
            return
        epoch = self.epoch

        def deliver(process: Process) -> None:
            if process.incarnation == int(incarnation):
                process.controller_answered(int(connection), header, epoch)  # type: ignore[attr-defined]

        self.world.network.post(self, name, deliver)
