"""`forebay down`: stop an appliance, and what is left of one whose supervisor was killed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

import click

from ingest.errors import TransportError
from ingest.machine import start_ticks
from ops.cli.found import Found, find
from ops.cli.options import data_dir_option
from ops.cli.reached import UNREACHED, Failed, reported
from ops.supervisor.control_client import ask
from ops.supervisor.control_server import SUFFIX
from ops.supervisor.instance_lock import Owner
from ops.supervisor.roles import ROLES
from ops.supervisor.state_file import RunningProcess, remove_state

STOP_SECONDS = 60.0
ORPHAN_SECONDS = 15.0


@click.command()
@data_dir_option
@click.option("--now", is_flag=True, help="SIGKILL everything; what is acknowledged is on disk all the same.")
def down(data_dir: Path, now: bool) -> None:
    """Stop the appliance: inputs first, then brokers, then controllers.

    \b
    Exit codes: 0 stopped, 1 it did not stop, 3 nothing ran.
    """
    with reported():
        found = find(data_dir)
        if not found.runs:
            raise Failed(f"no appliance runs on {data_dir}", UNREACHED)
        if found.locked:
            _stop_supervisor(found, now)
            found = find(data_dir)
        if found.orphans:
            _stop_orphans(found, now)
    click.echo("Forebay has stopped.")


def _stop_supervisor(found: Found, now: bool) -> None:
    owner = found.owner
    pidfd = _open(owner) if owner is not None else None
    if pidfd is None:
        return  # it went meanwhile
    assert owner is not None
    try:
        if now:
            _signal([pidfd], signal.SIGKILL)
        else:
            assert found.run_dir is not None
            try:
                ask(found.run_dir / f"supervisor{SUFFIX}", "stop")
            except TransportError:
                _signal([pidfd], signal.SIGTERM)
        if not _gone(pidfd, STOP_SECONDS):
            raise Failed(
                f"the supervisor ({owner.pid}) did not stop within {STOP_SECONDS:.0f} s; "
                f"end everything with: forebay down --now --data-dir {quote(str(found.data_dir))}"
            )
    finally:
        os.close(pidfd)


def _stop_orphans(found: Found, now: bool) -> None:
    """End processes without a supervisor, stage after stage, each by its pidfd."""
    stages = sorted({_stage(process) for process in found.orphans})
    for stage in stages:
        pidfds = {}
        for process in found.orphans:
            if _stage(process) == stage and (pidfd := _open(process)) is not None:
                pidfds[pidfd] = process
        _signal(pidfds, signal.SIGKILL if now else signal.SIGTERM)
        left = [pidfd for pidfd in pidfds if not _gone(pidfd, ORPHAN_SECONDS)]
        _signal(left, signal.SIGKILL)
        for pidfd in left:
            if not _gone(pidfd, ORPHAN_SECONDS):
                process = pidfds[pidfd]
                raise Failed(f"{process.name} ({process.pid}) can't be ended: a disk holds it; try again later")
        for pidfd in pidfds:
            os.close(pidfd)
    assert found.run_dir is not None
    remove_state(found.run_dir)


def _stage(process: RunningProcess) -> int:
    return ROLES[process.role].stop_stage if process.role in ROLES else 0


def _open(process: RunningProcess | Owner) -> int | None:
    """Return a pidfd of this very process, None if it has gone."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return None
    if start_ticks(process.pid) == process.start_ticks:
        return pidfd
    os.close(pidfd)
    return None


def _signal(pidfds: Iterable[int], number: signal.Signals) -> None:
    for pidfd in pidfds:
        for one in (number, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, one)


def _gone(pidfd: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    return bool(select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))[0])
