"""The appliance of a data directory as it runs now, seen from outside."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ingest.discovery import APPLIANCE_FILE, Appliance, read_appliance
from ingest.errors import ConfigError, TransportError
from ingest.machine import machine_id
from ops.supervisor.control_client import ask
from ops.supervisor.control_server import SUFFIX
from ops.supervisor.instance_lock import Owner, is_locked, read_owner
from ops.supervisor.state_file import RunningProcess, read_state
from ops.supervisor.status import SupervisorStatus

SUPERVISOR_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Found:
    """What was found.

    Attributes:
        locked: A supervisor holds the directory.
        owner: Who it is.
        status: What it says; None if it does not answer, or there is none.
        orphans: Processes that go on without a supervisor.
    """

    data_dir: Path
    appliance: Appliance | None
    locked: bool
    owner: Owner | None
    status: SupervisorStatus | None
    orphans: list[RunningProcess]

    @property
    def run_dir(self) -> Path | None:
        return Path(self.appliance.run_dir) if self.appliance is not None else None

    @property
    def runs(self) -> bool:
        return self.locked or bool(self.orphans)


def find(data_dir: Path) -> Found:
    """Look for the appliance of a data directory.

    Raises:
        ConfigError, ForeignDirectory: there is something, and it can't be read.
    """
    try:
        there = (data_dir / APPLIANCE_FILE).exists()
    except OSError as error:
        raise ConfigError(f"can't read {data_dir / APPLIANCE_FILE}: {error.strerror}") from None
    appliance = read_appliance(data_dir) if there else None
    if appliance is None or appliance.boot_id != machine_id():
        return Found(data_dir, None, is_locked(data_dir), read_owner(data_dir), None, [])
    run_dir = Path(appliance.run_dir)
    locked = is_locked(data_dir)
    status = ask_supervisor(run_dir) if locked else None
    state = read_state(run_dir)
    orphans = [process for process in state.processes if process.lives()] if state and not locked else []
    return Found(data_dir, appliance, locked, read_owner(data_dir), status, orphans)


def ask_supervisor(run_dir: Path) -> SupervisorStatus | None:
    """Return what the supervisor says, None if it does not answer."""
    with contextlib.suppress(TransportError, msgspec.DecodeError):
        line = ask(run_dir / f"supervisor{SUFFIX}", "status", timeout_s=SUPERVISOR_TIMEOUT_S)
        return msgspec.json.decode(line, type=SupervisorStatus)
    return None
