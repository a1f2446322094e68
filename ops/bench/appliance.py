"""An appliance of the bench's own, in a temporary directory, started and ended with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

CLI = (sys.executable, "-m", "ops.cli.main")


class Appliance:
    """A running appliance.

    Attributes:
        up_seconds: From the command to ready.
    """

    def __init__(self, data_dir: Path, arguments: Sequence[str]) -> None:
        self.data_dir = data_dir
        self._arguments = list(arguments)
        self.up_seconds = 0.0

    def up(self) -> None:
        start = time.perf_counter()
        subprocess.run(
            [*CLI, "up", "--detach", "--data-dir", str(self.data_dir), *self._arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        self.up_seconds = time.perf_counter() - start

    def down(self) -> None:
        subprocess.run([*CLI, "down", "--data-dir", str(self.data_dir)], check=True, capture_output=True)

    def status(self) -> dict[str, Any]:
        """Return `forebay status --format json`."""
        text = subprocess.run(
            [*CLI, "status", "--data-dir", str(self.data_dir), "--format", "json"], capture_output=True, check=False
        ).stdout
        status: dict[str, Any] = json.loads(text)
        return status

    def pids(self, role: str | None = None) -> list[int]:
        """Return the pids of its processes, of one role or all."""
        return [p["pid"] for p in self.status()["processes"] if p["pid"] and role in (None, p["role"])]

    def cpu_seconds_each(self) -> dict[str, float]:
        """Return the processor time that each process has used, the supervisor and its zygote included."""
        status = self.status()
        names = {process["pid"]: process["name"] for process in status["processes"]}
        supervisor = psutil.Process(status["supervisor"])
        return {"supervisor": sum(supervisor.cpu_times()[:2])} | {
            names.get(child.pid, "zygote"): sum(child.cpu_times()[:2]) for child in supervisor.children(recursive=True)
        }

    def cpu_seconds(self, role: str | None = "broker") -> float:
        """Return the processor time that the processes of a role have used, or all."""
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in self.pids(role))


@contextmanager
def running_appliance(*arguments: str, data_dir: Path | None = None) -> Iterator[Appliance]:
    """Start an appliance, in a directory that is removed afterwards unless it is given, and end it."""
    directory = data_dir or Path(tempfile.mkdtemp(prefix="forebay-bench-"))
    appliance = Appliance(directory, ["--mqtt-port", "0", "--kafka-port", "0", "--http-port", "0", *arguments])
    try:
        try:
            appliance.up()
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"the appliance did not start: {error.stderr.decode()}") from None
        yield appliance
    finally:
        subprocess.run([*CLI, "down", "--data-dir", str(directory)], check=False, capture_output=True)
        if data_dir is None:
            shutil.rmtree(directory, ignore_errors=True)
