"""What /proc tells of what a process's threads do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ingest.machine import stat_fields

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Condition:
    """Why a process might not make progress.

    Attributes:
        stopped: By SIGSTOP or a terminal.
        traced: A debugger holds it.
        disk_wait: A thread is inside a system call that not even SIGKILL interrupts.
    """

    stopped: bool = False
    traced: bool = False
    disk_wait: bool = False


def condition(pid: int) -> Condition:
    """Look at every thread of a process. Cost: a read of /proc for each."""
    folder = _PROC / str(pid)
    states: list[bytes] = []
    try:
        for task in os.scandir(folder / "task"):
            fields = stat_fields(Path(task.path) / "stat")
            if fields is not None:
                states.append(fields[0])
        status = (folder / "status").read_bytes()
    except OSError:
        return Condition()  # it has gone; its pidfd says so
    tracer = next((line.split()[1] for line in status.splitlines() if line.startswith(b"TracerPid:")), b"0")
    return Condition(stopped=b"T" in states, traced=b"t" in states or tracer != b"0", disk_wait=b"D" in states)
