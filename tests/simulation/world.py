"""A cluster with its machines, disks, store, clients and misfortunes, all from one seed."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from brokerd.control.image import ClusterImage
from brokerd.control.records import BrokerRecord, PartitionRecord, Put, TopicRecord, VersionRecord, decode_record
from ingest.topic_name import CONSUMER_OFFSETS
from replicas.placement import Load, place
from replicas.state import NO_LEADER
from tests.simulation.broker import SimBroker
from tests.simulation.clients import LocalReader, NearReader, SimProducer, SimReader
from tests.simulation.committers import SimCommitter, stored_offset
from tests.simulation.controller import SimController, Store
from tests.simulation.disk import GROUPS_ID, TOPIC_ID, Disk, Key
from tests.simulation.history import History, Violation
from tests.simulation.misfortunes import Misfortunes
from tests.simulation.network import Network
from tests.simulation.schedule import Schedule

FAULTS_MS = 12_000
HEAL_MS = 45_000  # more than the patience with replicas that may know more


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed makes of a run.

    Attributes:
        machines: The broker ids on each machine.
        faults: How likely each misfortune is, a second.
        late: The part of messages that takes twenty times as long.
        durability: fsync or os. With os nothing is promised over a power cut.
        selects: Leaders send readers to followers in their rack, which is the machine.
        committers: How many consumers commit offsets; without any there is no topic for them.
        cleanup_policy: Of the producers' topic.
    """

    machines: dict[str, list[int]]
    partitions: int
    replication_factor: int
    min_in_sync: int
    durability: str
    faults: dict[str, float]
    slow_ms: int
    lost: float
    flush_ms: int
    lag_max_ms: int
    reorders: bool
    fetch_bytes: int
    late: float
    grace_ms: int
    selects: bool
    committers: int = 0
    cleanup_policy: str = "delete"


def plan_of(seed: int) -> Plan:
    """Draw a plan."""
    schedule = Schedule(seed)
    dice = schedule.dice
    machines = dice.choice(
        [
            {"m1": [1, 2, 3]},
            {"m1": [1], "m2": [2], "m3": [3]},
            {"m1": [1, 2], "m2": [3, 4]},
            {"m1": [1, 2], "m2": [3], "m3": [4]},
        ]
    )
    factor = 2 if len(machines) == 2 else 3
    faults = {
        name: dice.choice([0.0, 0.1, 0.3])
        for name in ("kill", "chase", "stop", "kill_controller", "stop_controller", "cut", "cut_one_way", "wall_step")
    }
    faults["power"] = dice.choice([0.0, 0.0, 0.1, 0.25])
    faults["power_all"] = dice.choice([0.0, 0.0, 0.05, 0.1])
    faults["io_error"] = dice.choice([0.0, 0.0, 0.1])
    faults["shutdown"] = dice.choice([0.0, 0.1])
    faults["reassign"] = dice.choice([0.0, 0.0, 0.2])
    min_in_sync = dice.choice([0, 0, 1, 2])
    # one disk, or all disks of a machine, may go up in smoke where an acknowledged record is on two
    on_two = min_in_sync == 2 or (factor == 3 and min_in_sync == 0)
    faults["burn"] = dice.choice([0.0, 0.2]) if on_two else 0.0
    faults["bad_sector"] = dice.choice([0.0, 0.2]) if on_two and not faults["burn"] else 0.0
    plan = Plan(
        machines=machines,
        partitions=dice.choice([1, 2, 3]),
        replication_factor=factor,
        min_in_sync=min_in_sync,
        durability=dice.choice(["fsync", "fsync", "fsync", "os"]),
        faults=faults,
        slow_ms=dice.choice([1, 3, 10, 40]),
        lost=dice.choice([0.0, 0.0, 0.01, 0.05]),
        flush_ms=dice.choice([1, 3, 20, 100]),
        lag_max_ms=dice.choice([300, 1000, 3000]),
        reorders=dice.random() < 0.3,
        fetch_bytes=dice.choice([300, 1 << 20]),
        late=0.02,
        grace_ms=dice.choice([100, 1500]),
        selects=dice.random() < 0.7,
    )
    faults["rot"] = dice.choice([0.0, 0.3]) if on_two else 0.0
    faults["trim"] = dice.choice([0.0, 0.0, 0.2])
    faults["unclean"] = dice.choice([0.0] * 9 + [0.2])
    faults["full"] = dice.choice([0.0, 0.0, 0.2])
    # of its own: what else a seed does stays as it is
    policy = random.Random(f"{seed} compaction").choice(["delete"] * 5 + ["compact"])
    return replace(plan, committers=random.Random(f"{seed} groups").choice([0, 2]), cleanup_policy=policy)


@dataclass(slots=True)
class _Broker:
    machine: str
    disk: Disk
    process: SimBroker | None = None


class World:
    """One run."""

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        self.seed = seed
        self.plan = plan or plan_of(seed)
        self.schedule = Schedule(seed * 2 + 1)
        self.network = Network(self.schedule)
        self.network.slow_ms, self.network.lost = self.plan.slow_ms, self.plan.lost
        self.network.late = self.plan.late
        self.history = History(compacts=self.plan.cleanup_policy != "delete")
        self.store = self.make_store()
        self._in_sync: defaultdict[Key, set[int]] = defaultdict(set)  # of each partition, as last committed
        self.events: Counter[str] = Counter()
        self.log: list[str] = []
        self.faulty = False
        self._incarnations = 0
        self._controllers = 0
        self.machines = self.plan.machines
        self.dead_machines: set[str] = set()
        self.boots: Counter[str] = Counter()
        self.broker_configs = {"replica.lag.time.max.ms": str(self.plan.lag_max_ms), "log.cleaner.backoff.ms": "500"}
        if self.plan.selects:
            self.broker_configs["replica.selector.class"] = "RackAwareReplicaSelector"
        self.brokers = {
            broker_id: _Broker(machine, Disk(broker_id))
            for machine, broker_ids in self.machines.items()
            for broker_id in broker_ids
        }
        self.disks = {broker_id: broker.disk for broker_id, broker in self.brokers.items()}
        for broker_id, disk in self.disks.items():
            disk.on_truncation = partial(self._truncated, broker_id)
            disk.on_refill = partial(self._refilled, broker_id)
            disk.dies = partial(self._dies, broker_id)
            disk.age_ms = lambda: self.schedule.now_ms
        self.controller: SimController | None = None
        self._misfortunes = Misfortunes(self)
        self._begin()

    def make_store(self) -> Store:
        return Store()

    # ---- what processes ask

    @property
    def reorders(self) -> bool:
        return self.plan.reorders

    def next_incarnation(self) -> int:
        self._incarnations += 1
        return self._incarnations

    def dice_says(self, name: str, chance: float) -> bool:
        """Whether a rare thing happens now."""
        if self.schedule.dice.random() >= chance or (name.startswith("kill") and not self.faulty):
            return False
        self.tell("dice", name)
        return True

    def flush_ms(self) -> int:
        return self.schedule.dice.randrange(1, self.plan.flush_ms + 1)

    def tell(self, who: str, what: str) -> None:
        self.log.append(f"{self.schedule.now_ms:>7} {who}: {what}")

    def controller_for(self, broker: SimBroker) -> str | None:
        """Return the controller a broker's messages go to: the newest, now and then one that stood still meanwhile."""
        zombies = [p.name for p in self.network.processes.values() if isinstance(p, SimController) and p.alive]
        if not zombies:
            return None
        newest = max(zombies, key=lambda name: self.network.processes[name].incarnation)
        return self.schedule.dice.choice(zombies) if self.schedule.dice.random() < 0.1 else newest

    @property
    def lossy(self) -> bool:
        """Whether what was acknowledged may be gone, by the contract: power was cut under durability=os."""
        return self.history.lossy

    def committed(self) -> None:
        """Hold the store against its invariants, after every commit."""
        for value in self.store.records.values():
            record = decode_record(value)
            if isinstance(record, PartitionRecord):
                record.check()
                self._check_damaged(record)
                self._check_joined(record)

    def _check_joined(self, record: PartitionRecord) -> None:
        """Who comes into the in-sync set holds what was committed, if it still is the process that was proposed."""
        key = (record.topic_id, record.partition)
        before, self._in_sync[key] = self._in_sync[key], set(record.isr)
        for broker_id in set(record.isr) - before:
            process = self.brokers[broker_id].process
            known = decode_record(self.store.records[f"/brokers/{broker_id}"])
            assert isinstance(known, BrokerRecord)
            if process is not None and process.alive and process.incarnation == known.incarnation:
                files = self.disks[broker_id].files.get(key)
                self.history.joined(key, files.cache if files else [], process.name)

    def _check_damaged(self, record: PartitionRecord) -> None:
        """A replica that gave up its seat for known damage does not come in sync with it again (I11)."""
        for broker_id in record.replicas:
            files = self.disks[broker_id].files.get((record.topic_id, record.partition))
            if files is None or files.found_in is None:
                continue
            if files.left and broker_id in record.isr:
                raise Violation(f"I11: broker-{broker_id} is in sync in {record.partition} with damage it knew of")
            files.left = files.left or (broker_id not in record.seats and record.leader_epoch > files.found_in)

    def _truncated(self, broker_id: int, key: Key, offset: int) -> None:
        """A replica cuts its log: while it counts as in sync it never gives up what is committed."""
        record = self.partition_record(key[1], key[0])
        if record is not None and broker_id in record.isr and not self.lossy and self.history.mark[key] > offset:
            raise Violation(f"I5: broker-{broker_id} is in sync and cuts {key[1]} at {offset}")

    def _refilled(self, broker_id: int, key: Key) -> None:
        self.events["refill"] += 1
        self.tell(f"broker-{broker_id}", f"begins {key[1]} anew")

    def _dies(self, broker_id: int, name: str) -> bool:
        """Whether a broker ends here, with the power of its machine if that may be cut."""
        if not self.dice_says(name, 0.2):
            return False
        if self.plan.faults["power"]:
            self.cut_power([self.brokers[broker_id].machine])
        else:
            self.kill_broker(broker_id)
        return True

    # ---- beginning

    def _begin(self) -> None:
        configs = {"durability": self.plan.durability, "min.insync.replicas": str(self.plan.min_in_sync)}
        compaction = {
            "cleanup.policy": self.plan.cleanup_policy,
            "delete.retention.ms": "300",
            "min.cleanable.dirty.ratio": "0.1",
        }
        self.start_controller()
        for broker_id in self.brokers:
            self.start_broker(broker_id)
        assert self.controller is not None
        while len(self.store.load().brokers) < len(self.brokers):
            self.run_until(self.schedule.now_ms + 50)
        image = self.store.load()
        replicas = place(
            self.plan.partitions,
            self.plan.replication_factor,
            sorted(image.brokers),
            domains=image.domains(),
            leaders_in_topic={},
            load=Load(),
            start=self.schedule.dice.randrange(10),
        )
        changes = [
            Put(TopicRecord(TOPIC_ID, "t", configs | compaction)),
            *(
                Put(PartitionRecord(topic_id=TOPIC_ID, partition=index, leader=ids[0], replicas=ids, isr=list(ids)))
                for index, ids in enumerate(replicas)
            ),
            *(self._groups_topic(image, configs) if self.plan.committers else ()),
            Put(VersionRecord(image.version + 1)),
        ]
        assert self.store.commit(list(changes), self.store.epoch)
        self.controller.kill()
        self.start_controller()
        self.faulty = True
        self.producers = [SimProducer(self, f"client-p{index}", 40) for index in range(2)]
        self.readers = [
            made(self, f"client-{made.__name__}-{index}", index)
            for made in (SimReader, NearReader)
            for index in range(self.plan.partitions)
        ]
        for index in range(self.plan.partitions):
            LocalReader(self, index)
        self.committers = [SimCommitter(self, f"client-c{index}") for index in range(self.plan.committers)]

    def _groups_topic(self, image: ClusterImage, configs: dict[str, str]) -> list[Put]:
        """Return the topic of committed offsets, of one partition, where that of the producers begins."""
        replicas = place(
            1,
            self.plan.replication_factor,
            sorted(image.brokers),
            domains=image.domains(),
            leaders_in_topic={},
            load=Load(),
            start=0,
        )
        (ids,) = replicas
        return [
            Put(TopicRecord(GROUPS_ID, CONSUMER_OFFSETS, {**configs, "retention.ms": "-1"})),
            Put(PartitionRecord(topic_id=GROUPS_ID, partition=0, leader=ids[0], replicas=ids, isr=list(ids))),
        ]

    def start_controller(self) -> None:
        if self.controller is not None and self.controller.alive and not self.controller.stopped:
            return
        self._controllers += 1
        machine = next((m for m in sorted(self.machines) if m not in self.dead_machines), None)
        if len(self.machines) > 1 and machine is not None:
            machine = self.schedule.dice.choice(sorted(set(self.machines) - self.dead_machines))
        if machine is None:
            self.schedule.after(200, self.start_controller)
            return
        self.controller = SimController(self, f"controller-{self._controllers}", machine)

    def start_broker(self, broker_id: int) -> None:
        broker = self.brokers[broker_id]
        if broker.machine in self.dead_machines or (broker.process is not None and broker.process.alive):
            return
        boot = f"{broker.machine}-boot-{self.boots[broker.machine]}"
        broker.process = SimBroker(self, broker_id, broker.machine, broker.disk, boot)
        self.tell(
            broker.process.name, f"starts as {broker.process.incarnation}, intact={broker.process.directory.intact}"
        )

    # ---- what ends and begins anew

    def kill_broker(self, broker_id: int, restart_ms: int | None = None) -> None:
        process = self.brokers[broker_id].process
        if process is not None and process.alive:
            self.tell(process.name, "killed")
            process.kill()
        delay = self.schedule.dice.choice([50, 150, 2000, 6000]) if restart_ms is None else restart_ms
        self.schedule.after(delay, lambda: self.start_broker(broker_id))

    def kill_controller(self) -> None:
        if self.controller is not None and self.controller.alive:
            self.tell(self.controller.name, "killed")
            self.controller.kill()
        self.schedule.after(self.schedule.dice.choice([20, 500]), self.start_controller)

    def cut_power(self, machines: list[str]) -> None:
        dice = self.schedule.dice
        self.tell("power", f"cut on {machines}")
        if self.plan.durability == "os":
            self.history.lossy = True
        for machine in machines:
            self.dead_machines.add(machine)
            self.boots[machine] += 1
            for process in list(self.network.processes.values()):
                if process.machine == machine:
                    process.kill()
            for broker in self.brokers.values():
                if broker.machine == machine:
                    broker.disk.cut_power(lambda count: dice.randrange(count + 1))
        if len(self.machines) == 1:
            self.store.cut_power()

        def back() -> None:
            self.dead_machines.difference_update(machines)
            for broker_id, broker in self.brokers.items():
                if broker.machine in machines:
                    self.schedule.after(dice.choice([0, 100, 3000]), partial(self.start_broker, broker_id))
            self.start_controller()

        self.schedule.after(dice.choice([100, 2000]), back)
        if self.controller is not None and not self.controller.alive:
            self.schedule.after(700, self.start_controller)

    def partition_record(self, index: int, topic_id: bytes = TOPIC_ID) -> PartitionRecord | None:
        for value in self.store.records.values():
            record = decode_record(value)
            if isinstance(record, PartitionRecord) and (record.topic_id, record.partition) == (topic_id, index):
                return record
        return None

    # ---- running

    def run_until(self, until_ms: int) -> None:
        while self.schedule.run_next(until_ms):
            pass

    def run(self) -> None:
        """Let misfortune reign, then heal everything, then everything must come right."""
        end_ms = self.schedule.now_ms + FAULTS_MS
        while self.schedule.now_ms < end_ms:
            for name, chance in self.plan.faults.items():
                if chance and self.schedule.dice.random() < chance / 5:
                    self.events[name] += 1
                    self._misfortunes.happen(name)
            self.run_until(self.schedule.now_ms + 200)
        self._heal()
        self.check()

    def _heal(self) -> None:
        self.tell("world", "heals")
        self.faulty = False
        self.network.cut.clear()
        self.network.lost = 0.0
        self.dead_machines.clear()
        for broker in self.brokers.values():
            broker.disk.full = False
            if broker.process is not None and broker.process.alive:
                broker.process.disk.failing = False
        for process in list(self.network.processes.values()):
            if process.stopped and process.alive:
                process.go_on()
        for broker_id in self.brokers:
            self.start_broker(broker_id)
        self.start_controller()
        end_ms = self.schedule.now_ms + HEAL_MS
        for producer in self.producers:
            producer.stopped_sending = True
        for committer in self.committers:
            committer.stopped_committing = True
        while self.schedule.now_ms < end_ms:
            self.run_until(self.schedule.now_ms + 250)
            for broker_id in self.brokers:
                self.start_broker(broker_id)
            self.start_controller()
            if not self.why_not_healed():
                return
        raise Violation(f"I20: after {HEAL_MS} ms: {self.why_not_healed()}")

    def _partitions(self) -> list[Key]:
        groups = [(GROUPS_ID, 0)] if self.committers else []
        return [(TOPIC_ID, index) for index in range(self.plan.partitions)] + groups

    def why_not_healed(self) -> str:
        """Return what is not as it should be, empty if all is."""
        for topic_id, index in self._partitions():
            record = self.partition_record(index, topic_id)
            assert record is not None
            held = [(b, self.disks[b].files.get((topic_id, index))) for b in record.replicas]
            rotten = [broker_id for broker_id, files in held if files is not None and files.rotten]
            if record.leader == NO_LEADER or set(record.isr) != set(record.replicas) or record.eligible or rotten:
                return f"partition {index} is {msgspec.json.encode(record).decode()}"
        waiting = [producer.name for producer in self.producers if producer.unresolved]
        if waiting:
            return f"{waiting} have batches nobody answers"
        waiting = [committer.name for committer in self.committers if not committer.seen_at_the_end]
        if waiting:
            return f"{waiting} can't commit"
        if not self.lossy:
            for reader in self.readers:
                mark = self.history.mark[TOPIC_ID, reader._partition]
                if reader.position < mark:
                    return f"{reader.name} is at {reader.position} of {mark}"
        return ""

    def check(self) -> None:
        """After all has healed: every replica in sync holds every acknowledged record, and the bytes are the same."""
        for topic_id, index in self._partitions():
            record = self.partition_record(index, topic_id)
            assert record is not None
            copies = [self.disks[broker_id].files.get((topic_id, index)) for broker_id in record.isr]
            self.history.check_same((topic_id, index), [files.cache if files else [] for files in copies])
        if self.lossy:
            return
        for key in self.history.acked:
            record = self.partition_record(key[1])
            assert record is not None
            for broker_id in record.isr:
                files = self.disks[broker_id].files.get(key)
                self.history.check_whole(key, files.cache if files else [], f"broker-{broker_id}")
        record = self.partition_record(0, GROUPS_ID)
        for broker_id in record.isr if record is not None else ():
            files = self.disks[broker_id].files.get((GROUPS_ID, 0))
            for committer in self.committers:
                found = stored_offset(files.cache if files else [], committer.group)
                self.history.offset_found(
                    committer.group, committer.acknowledged, committer.offset, found, f"broker-{broker_id}"
                )
