"""Which life of this machine it is, and which process of it: together they name a process for ever."""

from __future__ import annotations

from pathlib import Path

BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id"


def machine_id() -> str:
    """Return this machine's boot id: another after each boot, the same in every process."""
    return Path(BOOT_ID_PATH).read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; with pid and boot id it names one process for ever.

    Returns None if there is no such process, or only what is left of a dead one.
    """
    fields = stat_fields(Path(f"/proc/{pid}/stat"))
    if fields is None or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def stat_fields(path: Path) -> list[bytes] | None:
    """Return the fields of a `stat` file after the command name, which may hold anything; the first is the state."""
    try:
        return path.read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None


def pid_namespace() -> int:
    """Return the inode of the namespace in which this process's pid is its number."""
    return Path("/proc/self/ns/pid").stat().st_ino
