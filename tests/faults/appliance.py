"""A whole appliance under test: started by `forebay up`, killed by process, ended by pid however the test ends."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from brokerd.control.stats import ControllerStats
from ingest.admin import Admin
from ingest.discovery import read_appliance
from ingest.errors import ForebayError
from ops.cli.found import find
from ops.supervisor.control_client import Identity, ask, decode_identity
from ops.supervisor.control_server import SUFFIX
from ops.supervisor.core import ProcessStatus
from ops.supervisor.status import SupervisorStatus

ROOT = Path(__file__).parents[2]
TOPIC = "mqtt"  # where the gateway's default rule puts everything
STEP_S = 0.01
GONE_S = 20.0

T = TypeVar("T")


class ProcessTree:
    """An appliance on one data directory, with a run directory of its own in memory.

    Attributes:
        brokers: How many it has.
        options: What else `forebay up` is told.
        environment: What `up` adds to the environment of every process.
    """

    def __init__(self, data_dir: Path, *, brokers: int = 3, options: tuple[str, ...] = ()) -> None:
        self.data_dir = data_dir
        self.brokers = brokers
        self.environment: dict[str, str] = {}
        self.options = options
        self._runtime = Path("/dev/shm") / f"fby-{os.getpid()}-{time.monotonic_ns() % 10**8:x}"
        self._runtime.mkdir(mode=0o700)

    @property
    def bootstrap(self) -> str:
        return str(self.data_dir)

    @property
    def run_dir(self) -> Path:
        return Path(read_appliance(self.data_dir).run_dir)

    @property
    def mqtt_port(self) -> int:
        return read_appliance(self.data_dir).ports["mqtt"]

    # ---- start and end

    def up(self, *, environment: Mapping[str, str] | None = None) -> float:
        """Start it, or take over what still runs; return the seconds until it was ready."""
        started = time.monotonic()
        done = self.try_up(environment=environment)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.log_tail()}"
        return time.monotonic() - started

    def try_up(self, *, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `forebay up --detach` and return how it went."""
        command = [sys.executable, "-m", "ops.cli.main", "up", "--detach", "--data-dir", str(self.data_dir)]
        command += ["--brokers", str(self.brokers), "--mqtt-port", "0", "--kafka-port", "-1", "--http-port", "0"]
        command += self.options
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "XDG_RUNTIME_DIR": str(self._runtime), **self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=150,
        )

    def down(self) -> None:
        """Stop it cleanly."""
        command = [sys.executable, "-m", "ops.cli.main", "down", "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, f"{done.stderr}\n{self.log_tail()}"

    def end(self) -> None:
        """Kill every process that has a file of the data directory open, supervisor first, and remove the sockets."""
        deadline = time.monotonic() + GONE_S
        while found := _holders(self.data_dir):
            found.sort(key=lambda process: "supervisor" not in _title(process))
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(found, timeout=1)
            assert time.monotonic() < deadline, f"can't end {found}"
        shutil.rmtree(self._runtime, ignore_errors=True)

    # ---- who runs

    def status(self) -> SupervisorStatus | None:
        """Return what the supervisor says; None while there is none."""
        return find(self.data_dir).status

    def process(self, name: str) -> ProcessStatus:
        status = self.status()
        assert status is not None, f"no supervisor answers\n{self.log_tail()}"
        return next(process for process in status.processes if process.name == name)

    def identity(self, name: str) -> Identity:
        """Ask a process who it is and for its stats."""
        return decode_identity(ask(self.run_dir / f"{name}{SUFFIX}", "stats"))

    def names(self) -> list[str]:
        """Return what can be killed."""
        names = [f"broker-{number}" for number in range(1, self.brokers + 1)]
        return [*names, "controller-1", "controller-2", "mqtt", "monitor", "zygote", "supervisor"]

    def pid(self, name: str) -> int:
        """Return the pid of a process that runs; waits for it."""
        return await_value(lambda: self._find_pid(name), f"{name} to run")

    def _find_pid(self, name: str) -> int:
        found = find(self.data_dir)
        if name == "supervisor":
            return found.status.pid if found.status is not None else 0
        if name == "zygote":
            with contextlib.suppress(psutil.Error):
                supervisor = psutil.Process(self._find_pid("supervisor"))
                return next((p.pid for p in supervisor.children() if "zygote" in _title(p)), 0)
            return 0
        if found.status is not None:
            return next(
                (p.pid for p in found.status.processes if p.name == name and p.state == "running" and _runs(p.pid)), 0
            )
        return next((process.pid for process in found.orphans if process.name == name), 0)

    def active_controller(self) -> tuple[str, int]:
        """Return the name and the epoch of the controller in office; waits for one."""

        def look() -> tuple[str, int] | None:
            for name in ("controller-1", "controller-2"):
                with contextlib.suppress(ForebayError):
                    stats = msgspec.json.decode(self.identity(name).stats, type=ControllerStats)
                    if stats.role == "active":
                        return name, stats.controller_epoch
            return None

        found = await_value(look, "a controller", explain=self.log_tail)
        assert found is not None
        return found

    # ---- faults

    def terminate(self, name: str) -> int:
        """Have one process end in good order; return which pid it had."""
        pid = self.pid(name)
        _signal_and_wait(pid, signal.SIGTERM)
        return pid

    def kill(self, name: str) -> int:
        """SIGKILL one process, wait until it is gone, return which pid it had."""
        pid = self.pid(name)
        _signal_and_wait(pid, signal.SIGKILL)
        return pid

    def kill_everything(self) -> None:
        """SIGKILL all processes as nearly at once as can be: the supervisor first, or it would start others."""
        pids = [self.pid(name) for name in reversed(self.names())]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await_value(lambda: not any(_runs(pid) for pid in pids), "all to be gone")

    def stop(self, name: str) -> int:
        """SIGSTOP one process and return its pid."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        return pid

    @contextlib.contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """Stop processes for a moment, the supervisor included, so that it misses nothing."""
        pids = [self.pid(name) for name in names]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            for pid in pids:
                await_value(lambda pid=pid: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "a stop")  # type: ignore[misc]
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def held_down(self, name: str) -> Iterator[None]:
        """SIGKILL one process, and keep the supervisor from starting another until the end."""
        pid = self.pid(name)
        with self.frozen("supervisor"):
            _signal_and_wait(pid, signal.SIGKILL)
            yield
        self.await_replaced(name, pid)

    def broker_home(self, broker: int) -> Path:
        return self.data_dir / "brokers" / str(broker)

    # ---- events to wait for

    def await_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until every process serves."""

        def ready() -> bool:
            status = self.status()
            return status is not None and status.ready

        await_value(ready, "the appliance to be ready", timeout_s, self.log_tail)

    def await_replaced(self, name: str, pid: int, timeout_s: float = 30.0) -> int:
        """Wait until another process runs under a name; return its pid."""

        def replaced() -> int:
            now = self._find_pid(name)
            return now if now != pid else 0

        return await_value(replaced, f"{name} to be replaced", timeout_s, self.log_tail)

    # ---- what it keeps

    def create_topic(self, name: str, partitions: int, copies: int = 1, **configs: str) -> bytes:
        own = {k.replace("_", "."): v for k, v in configs.items()}
        with Admin(self.bootstrap) as admin:
            return admin.create_topic(name, partitions, copies, configs=own)

    def leaders(self, topic: str) -> dict[int, int]:
        """Return the broker id that leads each partition."""
        with Admin(self.bootstrap) as admin:
            return {item.partition: item.leader for item in admin.describe_topic(topic).partitions}

    def log_tail(self) -> str:
        """Return the end of forebay.log, for a failure's message."""
        with contextlib.suppress(OSError):
            return (self.data_dir / "forebay.log").read_text(errors="replace")[-6000:]
        return ""


def await_value(
    look: Callable[[], T], what: str, timeout_s: float = 20.0, explain: Callable[[], str] = lambda: ""
) -> T:
    """Look until there is something to see."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}\n{explain()}"
        time.sleep(STEP_S)
    return seen


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _signal_and_wait(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, number)
            waiting = select.poll()  # a test has more descriptors than select() takes
            waiting.register(pidfd, select.POLLIN)
            assert waiting.poll(1000 * GONE_S), f"{pid} survived {number.name}"
        finally:
            os.close(pidfd)


def _holders(path: Path) -> list[psutil.Process]:
    """Return this user's processes with an open file under `path`, but never this one."""
    prefix = f"{path}/"
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError, psutil.Error):
            if any(os.readlink(fd).startswith(prefix) for fd in (entry / "fd").iterdir()):
                process = psutil.Process(int(entry.name))
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found
