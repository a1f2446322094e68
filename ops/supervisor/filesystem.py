"""Which file system a path lies on, as /proc says."""

from __future__ import annotations

import os
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
IN_MEMORY = ("tmpfs", "ramfs")


def filesystem_type(path: str | os.PathLike[str]) -> str:
    """Return the type of the file system of an existing path, such as ext4 or tmpfs; empty if /proc does not tell."""
    device = os.stat(path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text(errors="replace").splitlines():
        fields = line.split()
        if fields[2] == name:
            return fields[fields.index("-") + 1]
    return ""


def is_in_memory(path: str | os.PathLike[str]) -> bool:
    """Whether what is written there never meets a disk."""
    return filesystem_type(path) in IN_MEMORY
