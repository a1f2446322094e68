"""The run directory: sockets, progress page and state file; private to this user, and state pages in memory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from ingest.discovery import Appliance
from ingest.errors import ConfigError
from ingest.machine import machine_id
from ops.config.paths import default_run_dir, shared_memory_dir
from ops.supervisor.control_server import SUFFIX
from ops.supervisor.filesystem import is_in_memory
from ops.supervisor.spec import RESERVED_NAMES
from ops.supervisor.state_file import read_state

PATH_BYTES_MAX = 90  # conventions; the kernel takes 107 and libzmq and others add to what they are given
OWNER_FILE = "data-dir"


def choose_run_dir(data_dir: Path, previous: Appliance | None) -> Path:
    """Return the directory of what still runs there, else the one for this user and data directory."""
    if previous is not None and previous.boot_id == machine_id():
        state = read_state(Path(previous.run_dir))
        if state is not None and state.data_dir == str(data_dir):
            return Path(previous.run_dir)
    return default_run_dir(data_dir)


def open_run_dir(run_dir: Path, data_dir: Path, names: Iterable[str]) -> int:
    """Make the directory if need be and return a descriptor that keeps it from being cleaned away.

    Raises:
        ConfigError: it can't be made, is another user's, or paths in it would be too long.
    """
    check_length(run_dir, names)
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = run_dir.lstat()
    except OSError as error:
        raise ConfigError(
            f"can't make the run directory {run_dir}: {error.strerror}; set XDG_RUNTIME_DIR to a directory of yours"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError(
            f"{run_dir} is not a directory of this user; remove it, or set XDG_RUNTIME_DIR to one that is"
        )
    if found.st_mode & 0o077:
        run_dir.chmod(0o700)  # who may enter it may end processes
    (run_dir / OWNER_FILE).write_text(f"{data_dir}\n")
    fd = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # systemd-tmpfiles leaves a locked directory alone
    return fd


def check_length(run_dir: Path, names: Iterable[str]) -> None:
    """Refuse a directory in which the path of a socket would be too long.

    Raises:
        ConfigError: says how long, and what to set.
    """
    longest = max((f"{name}{SUFFIX}" for name in (*names, *RESERVED_NAMES)), key=len)
    length = len(os.fsencode(run_dir / longest))
    if length > PATH_BYTES_MAX:
        raise ConfigError(
            f"{run_dir / longest} has {length} bytes, and the path of a socket at most {PATH_BYTES_MAX}; "
            "set XDG_RUNTIME_DIR (or RUNTIME_DIRECTORY) to a shorter path"
        )


def open_page_dir(run_dir: Path, data_dir: Path) -> tuple[Path, str]:
    """Return where state pages go, and a warning if that is on a disk after all."""
    if is_in_memory(run_dir):
        return run_dir, ""
    pages = shared_memory_dir(data_dir)
    try:
        pages.mkdir(mode=0o750, exist_ok=True)
        (pages / OWNER_FILE).write_text(f"{data_dir}\n")
        if pages.lstat().st_uid == os.geteuid() and not pages.is_symlink() and is_in_memory(pages):
            return pages, ""
    except OSError:
        pass
    return run_dir, f"state pages are in {run_dir}, on a disk: readers may stall; mount a tmpfs on /dev/shm"


def sweep(data_dir: Path) -> None:
    """Remove run and page directories of this user whose data directory is gone, as tests and demos leave them."""
    for parent in {default_run_dir(data_dir).parent, shared_memory_dir(data_dir).parent}:
        pattern = f"forebay-{os.geteuid()}-*" if parent.name != "forebay" else "*"
        for folder in parent.glob(pattern):
            with contextlib.suppress(OSError):
                owner = Path((folder / OWNER_FILE).read_text().strip())
                if owner.exists() or folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
                    continue
                state = read_state(folder)
                if state is None or not any(process.lives() for process in state.processes):
                    shutil.rmtree(folder)
