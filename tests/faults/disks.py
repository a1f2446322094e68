"""Disks for the brokers of one appliance: each can fill up, the first can fail; none where mounts are forbidden."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.brokerd.storage.mounts import ext4, make_ext4, one_page_requests, tmpfs
from tests.faults.appliance import ProcessTree
from tests.machine import missing

FAILING = 1  # broker id
SIZE_BYTES = 64 << 20
MEMORY_BYTES = 24 << 20  # behind the one that can fail
_KEPT_BYTES = 256 << 10  # of the room, for a moment: it fills while messages come in


def fill(mount: Path) -> Path:
    """Take all room but a little; return the file that holds it."""
    filler = mount / "filler"
    space = os.statvfs(mount)
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - _KEPT_BYTES))
    return filler


class Disks:
    """Small file systems under the brokers' directories; what fills them is one file each.

    The one that can fail is an image on a tmpfs: without room there, a write-back fails for real.
    """

    def __init__(self, tree: ProcessTree, folder: Path) -> None:
        self._tree = tree
        self._memory = folder / "memory"
        self._stack = ExitStack()
        self._fillers: dict[Path, Path] = {}

    def __enter__(self) -> Disks:
        with ExitStack() as stack:
            if not {"tmpfs_mount", "loop_mounts"} & set(missing()):
                for broker in range(1, self._tree.brokers + 1):
                    home = self._tree.broker_home(broker)
                    if broker == FAILING:
                        stack.enter_context(tmpfs(self._memory, str(MEMORY_BYTES)))
                        make_ext4(self._memory / "image", SIZE_BYTES, journal=False)
                        one_page_requests(stack.enter_context(ext4(self._memory / "image", home, "errors=continue")))
                    else:
                        stack.enter_context(tmpfs(home, str(SIZE_BYTES)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def fill(self, broker: int) -> None:
        """Leave a broker's disk without room until `free`."""
        self._fill(self._tree.broker_home(broker))

    def fail(self) -> None:
        """Have the first broker's disk refuse what is written back, until `free`."""
        self._fill(self._memory)

    @property
    def failing(self) -> bool:
        return self._memory in self._fillers

    def _fill(self, mount: Path) -> None:
        if mount.is_mount() and mount not in self._fillers:
            self._fillers[mount] = fill(mount)

    def free(self) -> None:
        for filler in self._fillers.values():
            filler.unlink(missing_ok=True)  # who empties a directory takes it along
        self._fillers.clear()
