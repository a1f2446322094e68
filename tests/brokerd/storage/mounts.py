"""Small file systems for tests: mounted here, unmounted however the test ends. The tests say what they need."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.machine import program


def _run(*command: str) -> str:
    path = program(command[0])
    assert path is not None
    return subprocess.run([path, *command[1:]], check=True, capture_output=True, text=True, timeout=30).stdout


@contextlib.contextmanager
def mounted(target: Path, *arguments: str) -> Iterator[Path]:
    """Mount something on `target` for a while."""
    target.mkdir(parents=True, exist_ok=True)
    _run("mount", *arguments, str(target))
    os.chmod(target, 0o750)
    try:
        yield target
    finally:
        try:
            _run("umount", str(target))
        except subprocess.CalledProcessError:
            _run("umount", "-l", str(target))


def tmpfs(target: Path, size: str) -> contextlib.AbstractContextManager[Path]:
    return mounted(target, "-t", "tmpfs", "-o", f"size={size}", "none")


def make_ext4(image: Path, size: int, *, journal: bool = True) -> None:
    """Make an ext4 file system in a sparse file; no lazy writes later. An I/O error of the journal ends all writes."""
    with open(image, "wb") as file:
        file.truncate(size)
    options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    _run(
        "mkfs.ext4",
        "-q",
        "-F",
        "-m",
        "0",
        "-b",
        "4096",
        "-E",
        options,
        *([] if journal else ["-O", "^has_journal"]),
        str(image),
    )


def ext4(image: Path, target: Path, options: str = "") -> contextlib.AbstractContextManager[Path]:
    """Mount an image through a loop device."""
    return mounted(target, "-o", ",".join(filter(None, ["loop", options])), str(image))


def remount(target: Path, options: str) -> None:
    _run("mount", "-o", f"remount,{options}", str(target))


def one_page_requests(target: Path) -> None:
    """Split the requests of a mounted loop device into pages: Linux takes a write cut short by ENOSPC for a success."""
    device = next(line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if str(target) in line)
    (Path("/sys/block") / Path(device).name / "queue" / "max_sectors_kb").write_text("4")
