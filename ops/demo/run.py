"""The demo from start to end: an appliance, a fleet, a reader, a view, and kills if wanted."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import msgspec

from ingest.admin import Admin
from ingest.errors import ForebayError
from ingest.wire.messages import PartitionMetadata
from ops.demo.appliance import DemoAppliance, DemoError
from ops.demo.chaos import CONTROLLER, FIRST_S, FOLLOWER, KINDS, LEADER, Chaos
from ops.demo.detector import Detector
from ops.demo.fleet import FleetConfig
from ops.demo.fleet_process import FleetProcess
from ops.demo.reader import Reader
from ops.demo.summary import next_lines, summary_lines, verdict_line
from ops.demo.tally import Tally
from ops.demo.view import Snapshot, View

TOPIC = "mqtt"  # the gateway's default rule: everything goes there, keyed by client id
PARTITIONS_PER_BROKER = 2
COPIES = 3
STATUS_SECONDS = 0.5
STATUS_KILLED_SECONDS = 0.02  # while it is waited for what takes a killed one's place
BALANCE_SECONDS = 1.0
READ_BACK_SECONDS = 15.0
QUIET_BEFORE_END_S = 3.0


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says.

    Attributes:
        duration_s: 0: until Ctrl-C.
        replicas: Of each partition; 0: `COPIES`, or one a broker if there are fewer.
    """

    duration_s: float = 30.0
    devices: int = 50
    rate: float = 20.0
    brokers: int = 3
    replicas: int = 0
    chaos: bool = False
    data_dir: Path | None = None
    seed: int = 1


def run_demo(options: DemoOptions) -> int:
    """Run it and return the exit code: 0 only if everything acknowledged was read back.

    Raises:
        DemoError: the appliance or the fleet did not work at all.
    """
    with _signals_end_it(), DemoAppliance(options.data_dir, options.brokers) as appliance:
        return _Demo(options, appliance).run()


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the demo the way an error does: everything it started is ended."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Demo:
    """One run. Thread: one, its processes apart."""

    def __init__(self, options: DemoOptions, appliance: DemoAppliance) -> None:
        self._options = options
        self._appliance = appliance
        self._tally = Tally(options.devices)
        self._detector = Detector(options.devices, options.rate)
        ends_s = max(FIRST_S + 0.5, options.duration_s - QUIET_BEFORE_END_S) if options.duration_s else 1e9
        self._chaos = Chaos(random.Random(options.seed if options.seed else None), ends_s)
        self._replicas = options.replicas or min(COPIES, options.brokers)
        self._snapshot = Snapshot(duration_s=options.duration_s, devices=options.devices)
        self._began = time.monotonic()
        self._status_s = self._balance_s = 0.0
        self._serving: dict[str, int] = {}  # by name, the controller by its role
        self._roles: dict[str, str] = {}
        self._all_serve = False
        self._first_epochs = 0
        self._interrupted = False
        self._told = 0  # kills whose end was told

    def _now_s(self) -> float:
        return time.monotonic() - self._began

    def run(self) -> int:
        options = self._options
        status = self._appliance.status()
        if status is None:
            raise DemoError("the supervisor does not answer")
        partitions = self._create_topic()
        config = FleetConfig(
            host="127.0.0.1",
            port=status.ports["mqtt"],
            devices=options.devices,
            rate=options.rate,
            seed=options.seed or random.randrange(1, 1 << 31),
        )
        reader = Reader(
            str(self._appliance.data_dir),
            TOPIC,
            partitions,
            self._tally,
            self._detector,
            lambda partition, epoch: self._chaos.read(partition, epoch, self._now_s()),
        )
        with contextlib.closing(reader), contextlib.closing(FleetProcess(config)) as fleet:
            self._began = time.monotonic()
            with View() as view:
                view.event(
                    f"{options.brokers} brokers, {options.devices} devices at {options.rate:g} messages/s each, "
                    f"topic {TOPIC} with {partitions} partitions and replication factor {self._replicas} "
                    f"in {self._appliance.data_dir}"
                )
                self._publish(reader, fleet, view)
                published_s = self._now_s()
                self._finish(reader, fleet, view)
            elections = sum(item.leader_epoch for item in self._partitions()) - self._first_epochs
            return self._conclude(reader, fleet, published_s, elections)

    def _create_topic(self) -> int:
        with Admin(str(self._appliance.data_dir)) as admin:
            if TOPIC in (topic.name for topic in admin.list_topics()):
                raise DemoError(
                    f"{self._appliance.data_dir} holds a topic {TOPIC} already, and the demo counts from nothing; "
                    "name a new directory with --data-dir, or none"
                )
            partitions = PARTITIONS_PER_BROKER * self._options.brokers
            admin.create_topic(TOPIC, partitions, self._replicas)
        self._first_epochs = sum(item.leader_epoch for item in self._partitions())
        return partitions

    def _partitions(self) -> list[PartitionMetadata]:
        with Admin(str(self._appliance.data_dir)) as admin:
            return admin.describe_topic(TOPIC).partitions

    # ---- while it runs -----------------------------------------------------------------------------------------------

    def _publish(self, reader: Reader, fleet: FleetProcess, view: View) -> None:
        """Let the devices publish until the time is over or Ctrl-C comes."""
        try:
            while not self._options.duration_s or self._now_s() < self._options.duration_s:
                self._step(reader, fleet, view)
                if self._options.chaos:
                    self._kill_someone(view)
        except KeyboardInterrupt:
            self._interrupted = True
            view.event("Ctrl-C: the devices stop, what is under way is waited for; once more ends everything at once")

    def _step(self, reader: Reader, fleet: FleetProcess, view: View) -> None:
        reader.read()
        fleet.follow()
        if fleet.report.refused:
            raise DemoError(f"the gateway refuses devices: {fleet.report.refused}")
        now_s = self._now_s()
        if any(kill.recovered_s is None for kill in self._chaos.kills):
            self._detector.excuse(now_s - self._snapshot.elapsed_s)
        self._detector.tick(time.monotonic())
        self._look(now_s, view)
        snapshot, report = self._snapshot, fleet.report
        snapshot.elapsed_s = now_s
        snapshot.connected, snapshot.published = report.connected, report.published
        snapshot.acknowledged = report.acknowledged
        snapshot.p50_ms, snapshot.p99_ms = report.p50_ms, report.p99_ms
        snapshot.read_back = min(self._tally.read_back, report.published)  # what the fleet says is a moment old
        snapshot.duplicates = self._tally.duplicates
        snapshot.lag = reader.lag
        snapshot.kills = len(self._chaos.kills)
        snapshot.anomalies = self._detector.found
        view.show(snapshot)

    def _look(self, now_s: float, view: View) -> None:
        """Ask the appliance how it is, now and then."""
        if now_s >= self._status_s:
            pending = any(kill.recovered_s is None for kill in self._chaos.kills)
            self._status_s = now_s + (STATUS_KILLED_SECONDS if pending else STATUS_SECONDS)
            status = self._appliance.status()
            if status is not None:
                self._all_serve = status.ready
                ready = {CONTROLLER if p.role == CONTROLLER else p.name: p for p in status.processes if p.ready}
                self._serving = {name: p.pid for name, p in ready.items()}
                self._roles = {name: p.role for name, p in ready.items()}
                self._chaos.serve(self._serving, self._now_s())
                self._snapshot.processes = [(p.name, p.state, p.restarts) for p in status.processes]
                self._snapshot.restarts = sum(p.restarts for p in status.processes)
        if now_s >= self._balance_s:
            self._balance_s = now_s + BALANCE_SECONDS
            self._snapshot.balance = self._appliance.balance() or self._snapshot.balance
        for kill in self._chaos.kills[self._told :]:
            if kill.recovered_s is None:
                break
            self._told += 1
            what = "a new record of its partitions was read back" if kill.epochs else "there is another in its place"
            view.event(f"{kill.process}: {what} {kill.recovered_s * 1000:.0f} ms after")

    def _kill_someone(self, view: View) -> None:
        if not self._all_serve or not self._chaos.is_due(self._now_s()):
            return
        try:
            partitions = self._partitions()
        except ForebayError:
            return
        if any(set(item.isr) != set(item.replicas) for item in partitions):
            return  # a copy that was killed before is still catching up
        led: dict[str, dict[int, int]] = {}
        for item in partitions:
            led.setdefault(f"broker-{item.leader}", {})[item.partition] = item.leader_epoch
        candidates: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for name, role in self._roles.items():
            kind = (LEADER if name in led else FOLLOWER) if role == "broker" else role
            if kind in candidates:
                candidates[kind].append(name)
        chosen = self._chaos.choose(candidates, self._now_s())
        if chosen is None:
            return
        kind, name = chosen
        pid, mine = self._serving[name], led.get(name, {})
        self._all_serve, self._status_s = False, 0.0
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self._chaos.killed(kind, name, pid, mine, self._now_s())
            what = f", leader of partitions {list(mine)}" if mine else ", a follower" if kind == FOLLOWER else ""
            view.event(f"SIGKILL to {name} (pid {pid}){what}")

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _finish(self, reader: Reader, fleet: FleetProcess, view: View) -> None:
        """Wait for the last PUBACKs, then until everything acknowledged was read, or no more comes."""
        due = fleet.ask_to_stop()
        while not fleet.follow():
            if time.monotonic() > due:
                raise DemoError("the fleet did not say what it published")
            self._step(reader, fleet, view)
        due = time.monotonic() + READ_BACK_SECONDS
        published = fleet.report.published_by
        assert published is not None
        while self._tally.verdict(published).lost and time.monotonic() < due:
            if reader.read():
                due = time.monotonic() + READ_BACK_SECONDS
        while reader.read():
            pass  # what was not acknowledged may have been appended all the same
        self._status_s = self._balance_s = 0.0
        self._step(reader, fleet, view)

    def _conclude(self, reader: Reader, fleet: FleetProcess, seconds: float, elections: int) -> int:
        published = fleet.report.published_by
        assert published is not None
        verdict = self._tally.verdict(published)
        snapshot = self._snapshot
        if sys.stdout.isatty():
            print()
        for line in summary_lines(
            verdict,
            fleet.report,
            self._detector.found,
            self._chaos.kills if self._options.chaos else None,
            snapshot.restarts,
            elections,
            reader.problems,
            seconds,
        ):
            print(line)
        if b := snapshot.balance:
            print(
                f"the gateway's balance    received {b['received']:,} = acknowledged {b['acknowledged']:,} "
                f"+ refused {b['refused']:,} + in flight {b['in_flight']:,}"
            )
        print(f"\n{verdict_line(verdict, reader.problems)}\n")
        print("\n".join(next_lines(self._options.data_dir)), flush=True)
        if self._interrupted:
            return 130
        return 0 if verdict.acknowledged and verdict.holds and not reader.problems else 1
