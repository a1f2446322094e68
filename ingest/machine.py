"""Which life of this machine it is, and which process of it: together they name a process for ever."""

from __future__ import annotations

import os
from pathlib import Path

BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id"
PID_MAX = 1 << 22  # PID_MAX_LIMIT of linux/threads.h
_DEAD = (b"Z", b"X")


def machine_id() -> str:
    """Return this machine's boot id: another after each boot, the same in every process."""
    return Path(BOOT_ID_PATH).read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; with pid and boot id it names one process for ever.

    Returns None if there is no such process, or only what is left of a dead one.
    """
    fields = stat_fields(Path(f"/proc/{pid}/stat"))
    if fields is None or fields[0] in _DEAD:
        return None
    return int(fields[19])


def has_ended(pid: int, ticks: int) -> bool | None:
    """Tell whether the process that started at `ticks` is no more.

    Returns None where that can't be seen: no descriptor is left, or /proc shows this process none of other users'.
    """
    assert 0 < pid <= PID_MAX
    fields = stat_fields(Path(f"/proc/{pid}/stat"))
    if fields is not None:
        return fields[0] in _DEAD or int(fields[19]) != ticks
    try:
        os.kill(pid, 0)  # needs no descriptor, and sees what /proc hides
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return None


def stat_fields(path: Path) -> list[bytes] | None:
    """Return the fields of a `stat` file after the command name, which may hold anything; the first is the state."""
    try:
        return path.read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None


def pid_namespace() -> int:
    """Return the inode of the namespace in which this process's pid is its number."""
    return Path("/proc/self/ns/pid").stat().st_ino
