"""What a supervisor leaves behind for the next one: which processes run, as whom; `<run-dir>/supervisor.json`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ingest.atomic_file import replace_file
from ingest.machine import machine_id, start_ticks

NAME = "supervisor.json"
FORMAT = 1


class RunningProcess(msgspec.Struct, frozen=True):
    """One process; pid, start time and boot id name it for ever."""

    name: str
    role: str
    pid: int
    start_ticks: int
    incarnation: int
    slot: int
    digest: str
    restarts: int = 0

    def lives(self) -> bool:
        return start_ticks(self.pid) == self.start_ticks


class SupervisorState(msgspec.Struct, frozen=True):
    """The file."""

    format: int
    boot_id: str
    data_dir: str
    ports: dict[str, int]
    processes: list[RunningProcess]


def write_state(run_dir: Path, state: SupervisorState) -> None:
    """Replace the file in one step. No fsync: what it names dies with the machine.

    Raises:
        OSError: the run directory is full or gone.
    """
    replace_file(run_dir / NAME, msgspec.json.encode(state) + b"\n", durable=False)


def read_state(run_dir: Path) -> SupervisorState | None:
    """Return what the last supervisor left, if it is of this boot and this format."""
    try:
        state = msgspec.json.decode((run_dir / NAME).read_bytes(), type=SupervisorState)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None
    return state if state.format == FORMAT and state.boot_id == machine_id() else None


def remove_state(run_dir: Path) -> None:
    (run_dir / NAME).unlink(missing_ok=True)
