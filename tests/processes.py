"""Processes a test starts: each is ended by its id, with all its descendants, however the test ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

import psutil

_TERM_SECONDS = 5


class Processes:
    """Start processes and end them all at the end of a test. Thread: the test's."""

    def __init__(self) -> None:
        self._processes: list[psutil.Process] = []
        self._children: list[subprocess.Popen[Any]] = []

    def start(self, command: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[Any]:
        """Start one, with `subprocess.Popen`'s options; stdin is empty unless said."""
        options.setdefault("stdin", subprocess.DEVNULL)
        child = subprocess.Popen(list(command), **options)
        self._children.append(child)
        self.adopt(child.pid)
        return child

    def adopt(self, pid: int) -> None:
        """End this process too, if it still is the same one by then: a daemon, a supervisor."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._processes.append(psutil.Process(pid))

    def kill(self, pid: int) -> None:
        """SIGKILL one process and wait until it is gone, or a zombie of its parent's."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            process.kill()
            self._wait([process], _TERM_SECONDS)

    def end(self) -> None:
        """End every process and its descendants: SIGTERM, then SIGKILL; stopped ones are woken first."""
        family: dict[int, psutil.Process] = {}
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                if process.is_running():  # the same process still: psutil compares its start time
                    for member in [process, *process.children(recursive=True)]:
                        family[member.pid] = member
        for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _TERM_SECONDS)):
            for process in family.values():
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
                    process.send_signal(signal.SIGCONT)
            remaining = self._wait(list(family.values()), seconds)
            family = {process.pid: process for process in remaining}
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_TERM_SECONDS)
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        self._processes.clear()
        self._children.clear()

    @staticmethod
    def _wait(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
        _, alive = psutil.wait_procs([p for p in processes if _runs(p)], timeout=seconds)
        return [process for process in alive if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
