"""Roles that do as they are told, and an appliance made of them: `python -m tests.ops.supervisor.toys JSON`."""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path

import msgspec

from ingest.errors import ConfigError
from ingest.lifeline import Lifeline
from ops.supervisor.limits import SupervisionLimits
from ops.supervisor.spec import Plan, ProcessSpec
from ops.supervisor.state_file import read_state
from ops.supervisor.status import SupervisorStatus
from ops.supervisor.supervisor import Supervisor
from ops.supervisor.survivors import find_survivors, tie

QUICK = SupervisionLimits(tick_ms=50, hung_ms=1500, held_up_ms=1000, stop_ms=3000, starting_hung_ms=5000)


class ToyConfig(msgspec.Struct, frozen=True):
    """What one toy does.

    Attributes:
        does: serve; refuse (a ConfigError), crash (an exception), hang (spins without beats), deaf (to SIGTERM).
    """

    does: str = "serve"
    text: str = ""


class ToyStats(msgspec.Struct, frozen=True):
    text: str
    fds: list[str]
    umask: int


def run(config: ToyConfig, lifeline: Lifeline) -> None:
    """Serve nothing until told to stop."""
    mask = os.umask(0)
    os.umask(mask)
    fds = sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in _fds())
    lifeline.serve_stats(lambda: ToyStats(config.text, fds, mask))
    if config.does == "refuse":
        raise ConfigError("toy.key=1: expected a better value")
    if config.does == "crash":
        raise ValueError("a bug of the toy")
    lifeline.ready()
    if config.does == "hang":
        time.sleep(3600)
    poller = select.poll()
    poller.register(lifeline.stop_fd, select.POLLIN)
    while not poller.poll(200) or config.does == "deaf":
        lifeline.beat()
        if config.does == "deaf":
            time.sleep(0.05)


def stand_by(config: ToyConfig, lifeline: Lifeline) -> None:
    """Wait for a turn that never comes."""
    lifeline.serve_stats(lambda: ToyStats(config.text, [], 0))
    poller = select.poll()
    poller.register(lifeline.stop_fd, select.POLLIN)
    while not poller.poll(200):
        lifeline.beat()


def _fds() -> list[int]:
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(entry))
        except OSError:
            continue
        found.append(int(entry))
    return found


def toy(name: str, does: str = "serve", *, text: str = "", **fields: object) -> ProcessSpec:
    values: dict[str, object] = {
        "name": name,
        "role": "toy",
        "entry": "tests.ops.supervisor.toys:run",
        "config_type": "tests.ops.supervisor.toys:ToyConfig",
        "config": msgspec.json.encode(ToyConfig(does, text)),
        **fields,
    }
    return msgspec.convert(values, ProcessSpec)


class Printer:
    """Report on stdout, one JSON line each."""

    def note(self, level: str, text: str) -> None:
        print(f"{level} {text}", flush=True)

    def ready(self, status: SupervisorStatus) -> None:
        print("READY " + msgspec.json.encode(status).decode(), flush=True)


class ToyAppliance(msgspec.Struct, frozen=True):
    plan: Plan
    limits: SupervisionLimits = QUICK
    kill_hung: bool = True


def main() -> None:
    appliance = msgspec.json.decode(sys.argv[1], type=ToyAppliance)
    run_dir = Path(appliance.plan.run_dir)
    state = read_state(run_dir)
    survivors = find_survivors(state.processes if state else [])
    tie(survivors, run_dir)
    supervisor = Supervisor(
        appliance.plan,
        Printer(),
        survivors=survivors,
        limits=appliance.limits,
        kill_hung=appliance.kill_hung,
    )
    failure = supervisor.run()
    print(f"DONE {failure}", flush=True)


if __name__ == "__main__":
    main()
