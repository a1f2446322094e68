"""`forebay` as a command, on a data directory of the test's own; whatever it started is ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ops.config.paths import shared_memory_dir
from tests.processes import Processes

COMMAND = (sys.executable, "-m", "ops.cli.main")
ANY_PORTS = ("--mqtt-port", "0", "--kafka-port", "0", "--http-port", "0")


class Forebay:
    """One appliance.

    Attributes:
        environment: Added to that of each command.
    """

    def __init__(self, processes: Processes, data_dir: Path, runtime_dir: Path) -> None:
        self.processes = processes
        self.data_dir = data_dir
        self.runtime_dir = runtime_dir
        self.environment = {"RUNTIME_DIRECTORY": str(runtime_dir), "XDG_RUNTIME_DIR": ""}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command that goes on."""
        environment = {**os.environ, **self.environment}
        return self.processes.start([*COMMAND, *arguments], env=environment, text=True, **options)

    def run(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; fail unless it ends with `code`."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log()}"
        return done

    def up(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.run("up", "--detach", "--data-dir", str(self.data_dir), *ANY_PORTS, *arguments, code=code)
        if code == 0:
            status = self.status()
            for pid in [status["supervisor"], *self.pids().values()]:
                self.processes.adopt(pid)
        return done

    def down(self, *arguments: str, code: int = 0) -> None:
        self.run("down", "--data-dir", str(self.data_dir), *arguments, code=code)

    def status(self) -> dict[str, Any]:
        text = self.run("status", "--data-dir", str(self.data_dir), "--format", "json", code=None).stdout
        status: dict[str, Any] = json.loads(text)
        return status

    def pids(self) -> dict[str, int]:
        return {process["name"]: process["pid"] for process in self.status()["processes"]}

    def log(self) -> str:
        path = self.data_dir / "forebay.log"
        return path.read_text()[-3000:] if path.is_file() else ""


@contextmanager
def running(processes: Processes, directory: Path) -> Iterator[Callable[[str], Forebay]]:
    """Yield what makes an appliance on a data directory of that name; end all of them."""
    made: list[Forebay] = []

    def make(name: str) -> Forebay:
        runtime_dir = Path(tempfile.mkdtemp(prefix="fb-", dir="/tmp"))  # short: sockets are in it
        made.append(Forebay(processes, directory / name, runtime_dir))
        return made[-1]

    try:
        yield make
    finally:
        for appliance in made:
            if (appliance.data_dir / "appliance.json").exists():
                appliance.run("down", "--now", "--data-dir", str(appliance.data_dir), code=None)
        processes.end()
        for appliance in made:
            shutil.rmtree(appliance.runtime_dir)
            shutil.rmtree(shared_memory_dir(appliance.data_dir), ignore_errors=True)


@pytest.fixture
def forebay(processes: Processes, tmp_path: Path) -> Iterator[Forebay]:
    with running(processes, tmp_path) as make:
        yield make("data")
