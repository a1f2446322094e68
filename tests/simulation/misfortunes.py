"""What goes wrong in a run: processes, disks, networks and clocks, as the dice of its seed say."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from brokerd.control.events import Received
from brokerd.serving.partition import Partition
from ingest.wire.messages import (
    AlterPartitionReassignmentsRequest,
    ElectionType,
    ElectLeadersRequest,
    Reassignment,
)
from replicas.state import NO_LEADER
from tests.simulation.disk import TOPIC_ID
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World


class Misfortunes:
    """Those that a plan names, and what each leaves to happen later."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.schedule.dice
        self._burnt = False  # one disk a run is lost or damaged
        self._rotten = 0  # its broker, where batches of it decay

    def happen(self, name: str) -> None:
        """Have one of the misfortunes of a plan happen, to whom the dice say."""
        dice = self._dice
        brokers = sorted(self._world.brokers)
        chosen = dice.choice(brokers)
        match name:
            case "kill":
                self._world.kill_broker(chosen)
            case "chase":
                self._chase(5)
            case "stop":
                self._stop(self._world.brokers[chosen].process, dice.randrange(100, 6000))
            case "kill_controller":
                self._world.kill_controller()
            case "stop_controller":
                self._stop_controller()
            case "cut" | "cut_one_way":
                self._cut(one_way=name == "cut_one_way")
            case "wall_step":
                self._world.schedule.wall_offset_ms += dice.choice([-3_600_000, 3_600_000, 31_536_000_000])
            case "power":
                self._world.cut_power([dice.choice(sorted(self._world.machines))])
            case "power_all":
                self._world.cut_power(sorted(self._world.machines))
            case "io_error":
                self._world.brokers[chosen].disk.failing = True
                self._world.history.lossy = self._world.history.lossy or self._world.plan.durability == "os"
                self._world.tell(f"broker-{chosen}", "its disk fails the next flush")
            case "shutdown":
                self._shut_down(chosen)
            case "reassign":
                self._reassign()
            case "burn":
                self._burn()
            case "bad_sector":
                self._bad_sector(chosen)
            case "rot":
                self._rot(chosen)
            case "trim":
                self._trim(dice.randrange(self._world.plan.partitions))
            case "full":
                self._fill(chosen, dice.randrange(500, 6000))
            case "unclean":
                self._lose_all_but_one(dice.randrange(self._world.plan.partitions))

    def _chase(self, times: int) -> None:
        """Kill the leader of partition 0, then the next one."""
        record = self._world.partition_record(0)
        if record is not None and record.leader != NO_LEADER:
            self._world.kill_broker(record.leader)
        if times > 1:
            self._world.schedule.after(
                self._dice.randrange(20, 400), lambda: self._chase(times - 1) if self._world.faulty else None
            )

    def _stop(self, process: Process | None, ms: int) -> None:
        if process is None or not process.alive or process.stopped:
            return
        self._world.tell(process.name, f"stopped for {ms} ms")
        process.stop()

        def go_on() -> None:
            self._world.tell(process.name, "goes on")
            process.go_on()

        self._world.schedule.after(ms, go_on)

    def _stop_controller(self) -> None:
        """With several machines another takes over while it stands still, and it wakes up as a zombie."""
        if self._world.controller is None or not self._world.controller.alive:
            return
        self._stop(self._world.controller, self._dice.randrange(500, 5000))
        if len(self._world.machines) > 1:
            self._world.schedule.after(600, self._world.start_controller)

    def _cut(self, *, one_way: bool) -> None:
        dice = self._dice
        places = [*sorted(self._world.machines), "clients"]
        one = dice.choice(places[:-1])
        others = [place for place in places if place != one]
        if dice.random() < 0.5:
            others = [dice.choice(others)]
        cut = {(one, other) for other in others}
        if not one_way:
            cut |= {(other, one) for other in others}
        self._world.tell("network", f"cut {sorted(cut)}")
        self._world.network.cut |= cut

        def heal() -> None:
            self._world.network.cut -= cut

        self._world.schedule.after(dice.randrange(200, 6000), heal)

    def _shut_down(self, broker_id: int) -> None:
        process = self._world.brokers[broker_id].process
        if process is None or not process.alive or process.stopped:
            return
        self._world.tell(process.name, "shuts down")
        process.take(lambda: process.handler.shut_down(process.now_ms))
        process.after(300, process.shut_down)
        self._world.schedule.after(1500, lambda: self._world.start_broker(broker_id))

    def _reassign(self) -> None:
        """Ask for other replicas of a partition, as an operator does."""
        dice, record = self._dice, self._world.partition_record(self._dice.randrange(self._world.plan.partitions))
        controller = self._world.controller
        if record is None or controller is None or not controller.alive:
            return
        order = sorted(self._world.brokers)
        dice.shuffle(order)
        chosen: list[int] = []
        for broker_id in order:
            machines = {self._world.brokers[other].machine for other in chosen}
            if len(self._world.machines) == 1 or self._world.brokers[broker_id].machine not in machines:
                chosen.append(broker_id)
        wanted = chosen[: self._world.plan.replication_factor]
        self._world.tell("operator", f"moves partition {record.partition} to {wanted}")
        request = AlterPartitionReassignmentsRequest(
            [Reassignment("t", record.partition, wanted)], dice.choice([0, 0, 5_000])
        )
        event = Received(b"operator/0/0", 0, 1000, request)
        controller.take(lambda: controller.step(event))

    def _burn(self) -> None:
        """Destroy the disks of one machine, of one broker where there is but one machine; once a run."""
        if self._burnt:
            return
        self._burnt = True
        dice = self._dice
        machine = dice.choice(sorted(self._world.machines))
        brokers = (
            self._world.machines[machine]
            if len(self._world.machines) > 1
            else [dice.choice(sorted(self._world.brokers))]
        )
        for broker_id in brokers:
            self._world.tell(f"broker-{broker_id}", "its disk burns")
            process = self._world.brokers[broker_id].process
            if process is not None:
                process.kill()
            self._world.brokers[broker_id].disk.wipe()
            self._world.schedule.after(dice.choice([100, 4000]), partial(self._world.start_broker, broker_id))

    def _bad_sector(self, broker_id: int) -> None:
        """Have a disk forget some of what it had flushed above the checkpoint, seen after a power cut; once a run."""
        if not self._burnt:
            self._burnt = True
            self._world.tell(f"broker-{broker_id}", "its disk has a bad sector")
            self._world.brokers[broker_id].disk.bad_sector = True

    def _rot(self, broker_id: int) -> None:
        """Have some batches of one disk decay; on one disk a run."""
        if self._burnt and not self._rotten:
            return
        self._burnt = True
        self._rotten = self._rotten or broker_id
        for key, files in self._world.disks[self._rotten].files.items():
            if files.rot(self._dice.randrange):
                self._world.tell(f"broker-{self._rotten}", f"its copy of {key[1]} decays at {sorted(files.rotten)}")

    def _trim(self, index: int) -> None:
        """Delete the oldest records of a partition, as an administrator does."""
        record = self._world.partition_record(index)
        process = None if record is None or record.leader == NO_LEADER else self._world.brokers[record.leader].process
        if process is None or not process.alive or process.stopped:
            return
        key = (TOPIC_ID, index)
        found = process.handler.partitions.find(*key)
        if isinstance(found, Partition) and found.log.high_watermark > found.log.start_offset:
            offset = self._dice.randrange(found.log.start_offset, found.log.high_watermark) + 1
            self._world.tell(process.name, f"deletes {index} up to {offset}")
            self._world.history.trimmed[key] = max(self._world.history.trimmed[key], offset)
            found.log.delete_records(offset)

    def _fill(self, broker_id: int, ms: int) -> None:
        self._world.tell(f"broker-{broker_id}", f"its disk is full for {ms} ms")
        disk = self._world.brokers[broker_id].disk
        disk.full = True
        self._world.schedule.after(ms, partial(setattr, disk, "full", False))

    def _lose_all_but_one(self, index: int) -> None:
        """Have one replica stand still until it lacks much and the others have deleted it, and then all others die.

        An administrator has it lead all the same: what is lost then is lost, but all replicas agree again.
        """
        record = self._world.partition_record(index)
        if record is None or len(record.isr) < 2:
            return
        left = self._world.brokers[record.isr[-1]].process
        behind_ms = self._world.plan.lag_max_ms + 1500
        self._stop(left, behind_ms + 500)
        self._world.schedule.after(behind_ms, lambda: self._trim(index))

        def elect() -> None:
            controller = self._world.controller
            if controller is not None and controller.alive and not controller.stopped:
                self._world.tell("operator", "has anyone lead")
                self._world.history.lossy = True
                request = ElectLeadersRequest(int(ElectionType.UNCLEAN), None)
                controller.take(lambda: controller.step(Received(b"operator/0/0", 0, 1000, request)))

        def die() -> None:
            for broker_id in record.replicas:
                if self._world.brokers[broker_id].process is not left:
                    self._world.kill_broker(broker_id, 5000)
            self._world.schedule.after(1500, elect)

        self._world.schedule.after(behind_ms + 400, die)
