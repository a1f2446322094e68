"""A cluster of several machines under test: an appliance and a ZooKeeper server on each, and clients on any."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ingest.discovery import read_appliance
from ops.config.paths import shared_memory_dir
from tests.controllers import active_controller
from tests.faults.appliance import ROOT, await_value
from tests.faults.history import History
from tests.faults.native import FIRST_SOURCE
from tests.faults.remote import replay
from tests.network import Machine
from tests.processes import Processes
from tests.zookeeper import Ensemble

_RUN_S = 120


class Site:
    """One machine's appliance and its clients. Thread: the test's.

    Attributes:
        environment: Of all its commands.
    """

    def __init__(self, machine: Machine, directory: Path, connect: str, processes: Processes) -> None:
        self.machine = machine
        self.data_dir = directory / "data"
        self._connect = connect
        self._directory = directory
        self._processes = processes
        self._runtime = Path(tempfile.mkdtemp(prefix="fb-", dir="/dev/shm"))  # short: sockets are in it
        own = {"RUNTIME_DIRECTORY": str(self._runtime), "PYTHONPATH": str(ROOT), "FOREBAY_KAFKA_PORT": "-1"}
        self.environment = {**os.environ, **own}
        self._producer: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def broker_ids(self) -> list[int]:
        return read_appliance(self.data_dir).broker_ids

    def up(self, *options: str, session_ms: int) -> None:
        listeners = f"tcp://{self.machine.address}:9192"
        self.environment["FOREBAY_ZOOKEEPER_SESSION_TIMEOUT_MS"] = str(session_ms)
        self.forebay(
            *("up", "--detach", "--brokers", "1", "--mqtt-port", "-1", "--http-port", "0"),
            *("--zookeeper", self._connect, "--listeners", listeners, "--allow-insecure-listeners", *options),
        )
        for process in json.loads(self.forebay("status", "--format", "json", code=None))["processes"]:
            self._processes.adopt(process["pid"])

    def restart(self, *, session_ms: int) -> None:
        """Stop it in good order and start it again; clients on its machine go on."""
        self.forebay("down")
        self.up(session_ms=session_ms)

    def forebay(self, *arguments: str, code: int | None = 0) -> str:
        """Run a command of the appliance on its machine; return what it prints."""
        command = [sys.executable, "-m", "ops.cli.main", *arguments, "--data-dir", str(self.data_dir)]
        done = self._run(*command)
        assert code in (None, done.returncode), f"{arguments}: {done.stdout}\n{done.stderr}\n{self.log_tail()}"
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        """Have a client on this machine look at the cluster."""
        done = self._run(sys.executable, "-m", "tests.faults.remote", *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{self.log_tail()}"
        return json.loads(done.stdout)

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.machine.command(*command),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_RUN_S,
        )

    def describe(self, topic: str) -> dict[str, Any]:
        described: dict[str, Any] = self.ask("describe", str(self.data_dir), topic)
        return described

    def start_producer(self, run: int, topic: str, number: int) -> None:
        """Have a client produce from now on; its records are a source of the history."""
        self._events = self._directory / f"producer-{number}"
        command = [sys.executable, "-m", "tests.faults.remote", "produce", str(run), str(FIRST_SOURCE + number)]
        with self._events.open("wb") as output, (self._directory / "producer.stderr").open("wb") as errors:
            self._producer = self._processes.start(
                self.machine.command(*command, str(self.data_dir), topic),
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=errors,
            )

    def acknowledged(self) -> int:
        """Return how many of the producer's records have been acknowledged so far."""
        return self._events.read_bytes().count(b"acknowledged")

    def finish_producer(self, history: History) -> None:
        """Stop it once each record has its outcome; tell the history."""
        assert self._producer is not None
        self._producer.send_signal(signal.SIGTERM)
        code = self._producer.wait(_RUN_S)
        assert code == 0, (self._directory / "producer.stderr").read_text()
        replay(self._events, history)

    def end(self) -> None:
        if (self.data_dir / "appliance.json").exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.forebay("down", "--now", code=None)
        self._processes.end()
        shutil.rmtree(self._runtime)
        shutil.rmtree(shared_memory_dir(self.data_dir), ignore_errors=True)

    def log_tail(self) -> str:
        return self._log()[-4000:]

    def _log(self) -> str:
        with contextlib.suppress(OSError):
            return (self.data_dir / "forebay.log").read_text(errors="replace")
        return ""


class MachineCluster:
    """All of them. Thread: the test's.

    Args:
        data_machines: How many of the machines have an appliance; the others are ZooKeeper's alone.
    """

    def __init__(self, machines: Sequence[Machine], directory: Path, *, data_machines: int, session_ms: int) -> None:
        self.session_ms = session_ms
        self.ensemble = Ensemble(directory / "zookeeper", machines=machines)
        connect = self.ensemble.connect("forebay")
        self.sites = [
            Site(machine, directory / machine.name, connect, Processes()) for machine in machines[:data_machines]
        ]

    def start(self) -> None:
        self.ensemble.start()
        self.ensemble.wait_serving()
        for number, site in enumerate(self.sites):
            site.up(*(["--join"] if number else []), session_ms=self.session_ms)

    def controller(self) -> Site:
        """Return the site where the active controller is; waits until there is one alone."""

        def alone() -> list[Site]:
            found = [site for site in self.sites if active_controller(site.data_dir)]
            return found if len(found) == 1 else []

        return await_value(alone, "one controller", explain=self.logs)[0]

    def others(self, *sites: Site) -> list[Site]:
        return [site for site in self.sites if site not in sites]

    def site_of(self, broker_id: int) -> Site:
        return next(site for site in self.sites if broker_id in site.broker_ids)

    def await_in_sync(self, topic: str, timeout_s: float = 40.0) -> dict[str, Any]:
        """Wait until every broker lives and every copy is in sync, as each machine sees it; return what is seen."""

        def in_sync() -> dict[str, Any] | None:
            seen = {}
            for site in self.sites:
                seen = site.describe(topic)
                if not all(seen["alive"].values()):
                    return None
                if any(p["leader"] < 0 or set(p["isr"]) != set(p["replicas"]) for p in seen["partitions"].values()):
                    return None
            return seen

        found = await_value(in_sync, f"all copies of {topic} to be in sync", timeout_s, self.logs)
        assert found is not None
        return found

    def logs(self) -> str:
        return "\n".join(f"{site.machine.name}:\n{site.log_tail()}" for site in self.sites)

    def end(self) -> None:
        for site in self.sites:
            site.machine.heal()
        for site in self.sites:
            site.end()
        self.ensemble.end()
