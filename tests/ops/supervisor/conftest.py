"""An appliance of toys as real processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from ops.supervisor.control_client import Identity, ask, decode_identity
from ops.supervisor.core import ProcessStatus
from ops.supervisor.limits import SupervisionLimits
from ops.supervisor.spec import Plan, ProcessSpec
from ops.supervisor.status import SupervisorStatus
from tests.ops.supervisor.toys import QUICK, ToyAppliance
from tests.processes import Processes

REPOSITORY = Path(__file__).parents[3]
TIMEOUT_S = 20


def until(condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
    """Return what `condition` returns once that is true."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return result


class ToyRun:
    """One supervisor at a time over one run directory."""

    def __init__(self, processes: Processes, run_dir: Path) -> None:
        self._processes = processes
        self.run_dir = run_dir
        self.log = run_dir / "log"
        self.supervisor: subprocess.Popen[str] | None = None

    def up(
        self, *specs: ProcessSpec, limits: SupervisionLimits = QUICK, kill_hung: bool = True, wait: bool = True
    ) -> SupervisorStatus | None:
        """Start a supervisor; wait until all is ready."""
        plan = Plan(
            data_dir=str(self.run_dir),
            run_dir=str(self.run_dir),
            incarnation=1,
            processes=list(specs),
            log_path=str(self.log),
        )
        config = msgspec.json.encode(ToyAppliance(plan, limits, kill_hung)).decode()
        self.supervisor = self._processes.start(
            [sys.executable, "-m", "tests.ops.supervisor.toys", config],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
        )
        return self.await_ready() if wait else None

    def await_ready(self) -> SupervisorStatus:
        assert self.supervisor is not None
        assert self.supervisor.stdout is not None
        for line in self.supervisor.stdout:
            if line.startswith("READY "):
                for child in psutil.Process(self.supervisor.pid).children(recursive=True):
                    self._processes.adopt(child.pid)
                return msgspec.json.decode(line[6:], type=SupervisorStatus)
            assert not line.startswith("DONE"), line + self.log.read_text()
        raise AssertionError("the supervisor ended")

    def rest(self) -> str:
        """Return what the supervisor still says, to its end."""
        assert self.supervisor is not None
        assert self.supervisor.stdout is not None
        text = self.supervisor.stdout.read()
        assert self.supervisor.wait(TIMEOUT_S) == 0
        return text

    def status(self) -> SupervisorStatus:
        return msgspec.json.decode(ask(self.run_dir / "supervisor.ctl", "status"), type=SupervisorStatus)

    def process(self, name: str) -> ProcessStatus:
        return next(process for process in self.status().processes if process.name == name)

    def identity(self, name: str) -> Identity:
        return decode_identity(ask(self.run_dir / f"{name}.ctl", "stats"))

    def zygote(self) -> int:
        """Return the pid of the zygote that lives; one that is dead and not yet reaped does not count."""
        pid: int = until(self._zygote)
        return pid

    def _zygote(self) -> int | None:
        assert self.supervisor is not None
        for child in psutil.Process(self.supervisor.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie's command line can't be read either
                if "zygote" in " ".join(child.cmdline()):
                    return child.pid
        return None

    def kill_supervisor(self) -> None:
        assert self.supervisor is not None
        self.supervisor.kill()
        self.supervisor.wait()


@pytest.fixture
def toys(processes: Processes, tmp_path: Path) -> ToyRun:
    return ToyRun(processes, tmp_path)
