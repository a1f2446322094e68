"""The demo's own appliance: started for it, ended with it, and killed into by it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from ingest.errors import ForebayError
from ops.cli.found import ask_supervisor, find
from ops.cli.status import describe
from ops.supervisor.status import SupervisorStatus

READY_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05


class DemoError(ForebayError):
    """The demo can't go on; the message says why."""


class DemoAppliance:
    """`forebay up` in the foreground, as a child, on free ports. Use it as a context manager.

    Attributes:
        data_dir: Where its log is; removed at the end unless the caller named it.
    """

    def __init__(self, data_dir: Path | None, brokers: int) -> None:
        self._temporary = data_dir is None
        self.data_dir = (data_dir or Path(tempfile.mkdtemp(prefix="forebay-demo-"))).resolve()
        self._brokers = brokers
        self._child: subprocess.Popen[bytes] | None = None
        self.run_dir = Path()

    def __enter__(self) -> DemoAppliance:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _start(self) -> None:
        """Start it and wait until everything serves.

        Raises:
            DemoError: it did not start; what it said is in the message.
        """
        command = [sys.executable, "-m", "ops.cli.main", "up", "--data-dir", str(self.data_dir)]
        command += ["--brokers", str(self._brokers), "--mqtt-port", "0", "--kafka-port", "-1", "--http-port", "0"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FOREBAY_")}
        with tempfile.TemporaryFile() as said:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us: it ends after the summary
            )
            deadline = time.monotonic() + READY_SECONDS
            while True:
                if self._child.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    lines = said.read().decode(errors="replace").splitlines()
                    # where to look is of no use to anyone: the directory is removed
                    told = [line for line in lines if not (self._temporary and line.startswith("See "))]
                    raise DemoError("the appliance did not start:\n" + "\n".join(told[-10:] or ["it says nothing"]))
                status = self._look()
                if status is not None and status.ready:
                    return
                time.sleep(POLL_SECONDS)

    def _look(self) -> SupervisorStatus | None:
        with contextlib.suppress(ForebayError):
            found = find(self.data_dir)
            if found.run_dir is not None:
                self.run_dir = found.run_dir
            return found.status
        return None

    def status(self) -> SupervisorStatus | None:
        """Return what the supervisor says, None if it does not answer just now."""
        return ask_supervisor(self.run_dir)

    def balance(self) -> dict[str, Any]:
        """Return the MQTT gateway's balance as `forebay status` shows it, empty if it can't be had just now."""
        with contextlib.suppress(ForebayError, AssertionError):
            found: dict[str, Any] = describe(find(self.data_dir))["balance"].get("mqtt", {})
            return found
        return {}

    def stop(self) -> None:
        """End every process of it; remove the directory if it is ours. Signals wait until that is done."""
        with _unharmed_by_signals():
            child, self._child = self._child, None
            if child is not None:
                _end(child)
            if self._temporary:
                shutil.rmtree(self.data_dir, ignore_errors=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(child.pid).children(recursive=True)
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for process in family:  # normally all have gone; psutil compares start times
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@contextlib.contextmanager
def _unharmed_by_signals() -> Iterator[None]:
    """Let no Ctrl-C leave processes or files behind: it takes effect afterwards, if at all."""
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
