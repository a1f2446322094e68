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
from ops.demo.appliance import DemoAppliance, DemoError
from ops.demo.chaos import FIRST_S, Chaos
from ops.demo.detector import Detector
from ops.demo.fleet import FleetConfig
from ops.demo.fleet_process import FleetProcess
from ops.demo.reader import Reader
from ops.demo.summary import next_lines, summary_lines, verdict_line
from ops.demo.tally import Tally
from ops.demo.view import Snapshot, View

TOPIC = "mqtt"  # the gateway's default rule: everything goes there, keyed by client id
PARTITIONS_PER_BROKER = 2
STATUS_SECONDS = 0.5
BALANCE_SECONDS = 1.0
READ_BACK_SECONDS = 15.0
QUIET_BEFORE_END_S = 3.0


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says; `duration_s` 0: until Ctrl-C."""

    duration_s: float = 30.0
    devices: int = 50
    rate: float = 20.0
    brokers: int = 2
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
        self._leaders: dict[str, list[int]] = {}
        self._snapshot = Snapshot(duration_s=options.duration_s, devices=options.devices)
        self._began = time.monotonic()
        self._status_s = self._balance_s = 0.0
        self._serving: dict[str, int] = {}
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
                    f"topic {TOPIC} with {partitions} partitions in {self._appliance.data_dir}"
                )
                self._publish(reader, fleet, view)
                published_s = self._now_s()
                self._finish(reader, fleet, view)
            return self._conclude(reader, fleet, published_s)

    def _create_topic(self) -> int:
        with Admin(str(self._appliance.data_dir)) as admin:
            if TOPIC in (topic.name for topic in admin.list_topics()):
                raise DemoError(
                    f"{self._appliance.data_dir} holds a topic {TOPIC} already, and the demo counts from nothing; "
                    "name a new directory with --data-dir, or none"
                )
            partitions = PARTITIONS_PER_BROKER * self._options.brokers
            admin.create_topic(TOPIC, partitions)
            for item in admin.describe_topic(TOPIC).partitions:
                self._leaders.setdefault(f"broker-{item.leader}", []).append(item.partition)
        return partitions

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
            self._status_s = now_s + STATUS_SECONDS
            status = self._appliance.status()
            if status is not None:
                self._serving = {p.name: p.pid for p in status.processes if p.role == "broker" and p.ready}
                self._snapshot.processes = [(p.name, p.state, p.restarts) for p in status.processes]
                self._snapshot.restarts = sum(p.restarts for p in status.processes)
        if now_s >= self._balance_s:
            self._balance_s = now_s + BALANCE_SECONDS
            self._snapshot.balance = self._appliance.balance() or self._snapshot.balance
        for kill in self._chaos.kills[self._told :]:
            if kill.recovered_s is None:
                break
            self._told += 1
            view.event(f"{kill.broker} is back: a new record of its partitions {kill.recovered_s * 1000:.0f} ms after")

    def _kill_someone(self, view: View) -> None:
        now_s = self._now_s()
        broker = self._chaos.choose(self._serving, now_s)
        if broker is None:
            return
        pid = self._serving.pop(broker)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self._chaos.killed(broker, pid, self._leaders.get(broker, []), self._now_s())
            view.event(f"SIGKILL to {broker} (pid {pid}), leader of partitions {self._leaders.get(broker, [])}")

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

    def _conclude(self, reader: Reader, fleet: FleetProcess, seconds: float) -> int:
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
