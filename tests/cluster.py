"""A controller and brokers as real processes, without a supervisor: for tests of brokers and clients.

`python -m tests.cluster ROLE JSON` is one of the processes.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from brokerd.serving.stats import BrokerStats
from ingest.admin import Admin
from ingest.discovery import FORMAT, Appliance, write_appliance
from ingest.errors import ForebayError
from ingest.machine import machine_id
from ops.supervisor.control_client import ask, decode_identity
from ops.supervisor.control_server import SUFFIX, Connection, ControlServer
from tests.processes import Processes

LEAVE_S = 5.0


class ProcessLifeline:
    """A process's tie to a test: SIGTERM stops it, and it answers on its control socket beside its endpoint."""

    def __init__(self, role: str, endpoint: str) -> None:
        self._role = role
        self._path = Path(endpoint.removeprefix("ipc://")).with_suffix(SUFFIX)
        self._state = "starting"
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        signal.signal(signal.SIGTERM, lambda *_: os.eventfd_write(self._stop, 1))

    @property
    def stop_fd(self) -> int:
        return self._stop

    def beat(self) -> None:
        pass

    def ready(self) -> None:
        self._state = "running"

    def serve_stats(self, stats: Callable[[], msgspec.Struct]) -> None:
        def answer(command: str, connection: Connection) -> bytes:
            fields = {
                "name": self._path.stem,
                "role": self._role,
                "pid": os.getpid(),
                "incarnation": os.getpid(),
                "state": self._state,
                "uptime_s": 0.0,
                "stats": stats(),
            }
            return msgspec.json.encode(fields) + b"\n"

        def serve() -> None:
            selector = selectors.DefaultSelector()
            ControlServer(self._path, selector, answer)
            while True:
                for key, events in selector.select():
                    key.data(events)

        threading.Thread(target=serve, name="control", daemon=True).start()


class Cluster:
    """A controller and n brokers under one directory."""

    def __init__(
        self,
        processes: Processes,
        directory: Path,
        brokers: int = 1,
        options: Mapping[int, dict[str, Any]] | None = None,
        **broker_options: Any,
    ) -> None:
        self.processes = processes
        self.directory = directory
        self.run_dir = Path("/dev/shm") / f"forebay-test-{os.getpid()}-{time.monotonic_ns() % 10**9}"
        self.run_dir.mkdir(mode=0o700)
        self.cluster_id = "test-cluster"
        self.children: dict[str, subprocess.Popen[Any]] = {}
        self.environment: dict[str, str] = {}
        self._broker_options = broker_options
        self._options = options or {}
        self._brokers = brokers
        for name in ("controller", "failed"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        endpoints = [self.endpoint(index) for index in range(1, brokers + 1)]
        write_appliance(
            directory,
            Appliance(
                format=FORMAT,
                cluster_id=self.cluster_id,
                incarnation=1,
                run_dir=str(self.run_dir),
                boot_id=machine_id(),
                brokers=endpoints,
            ),
        )

    @property
    def bootstrap(self) -> str:
        return str(self.directory)

    def endpoint(self, broker_id: int) -> str:
        return f"ipc://{self.run_dir}/broker-{broker_id}.sock"

    @property
    def data_dir(self) -> Path:
        return self.directory

    def start(self) -> None:
        """Start everything and wait until every broker serves."""
        self.start_controller()
        for broker_id in range(1, self._brokers + 1):
            self.start_broker(broker_id)
        self.await_ready()

    def start_controller(self) -> None:
        config = {
            "directory": str(self.directory / "controller"),
            "cluster_id": self.cluster_id,
            "endpoint": f"ipc://{self.run_dir}/controller.sock",
        }
        self._start("controller", "controller", config)

    def start_broker(self, broker_id: int) -> None:
        log_dir = self.directory / "brokers" / str(broker_id)
        log_dir.mkdir(parents=True, exist_ok=True)
        config = {
            "broker_id": broker_id,
            "cluster_id": self.cluster_id,
            "log_dir": str(log_dir),
            "page_path": str(self.run_dir / f"broker-{broker_id}.page"),
            "failed_dir": str(self.directory / "failed"),
            "endpoint": self.endpoint(broker_id),
            "peer_endpoint": f"ipc://{self.run_dir}/broker-{broker_id}-peer.sock",
            "site": "test",
            "controller_endpoint": f"ipc://{self.run_dir}/controller.sock",
            "machine": machine_id(),
            **self._broker_options,
            **self._options.get(broker_id, {}),
        }
        self._start(f"broker-{broker_id}", "broker", config)

    def _start(self, name: str, role: str, config: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "tests.cluster", role, json.dumps(config)]
        log = open(self.directory / f"{name}.log", "ab")  # noqa: SIM115
        with log:
            self.children[name] = self.processes.start(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                cwd=Path(__file__).parent.parent,
            )

    def kill(self, name: str) -> None:
        """SIGKILL one process and reap it."""
        self.children[name].kill()
        self.children[name].wait()

    def await_ready(self, timeout_s: float = 20) -> None:
        """Wait until every broker answers with metadata in which all are alive."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with Admin(self.bootstrap, timeout_ms=2000) as admin:
                    if sum(broker.alive for broker in admin.brokers()) == self._brokers:
                        return
            except ForebayError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"brokers are not ready: {error}; {self.log_tail()}") from None
            if time.monotonic() > deadline:
                raise AssertionError(f"not all brokers are alive; {self.log_tail()}")
            time.sleep(0.02)

    def stats(self, broker_id: int) -> BrokerStats:
        """Return what a broker tells of itself."""
        identity = decode_identity(ask(self.run_dir / f"broker-{broker_id}{SUFFIX}", "stats"))
        return msgspec.json.decode(identity.stats, type=BrokerStats)

    def log_tail(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in self.directory.glob("*.log"))

    def end_brokers(self) -> None:
        """End the brokers while there is a controller to take leave of."""
        brokers = [child for name, child in self.children.items() if name != "controller" and child.poll() is None]
        for number in signal.SIGTERM, signal.SIGCONT:
            for child in brokers:
                child.send_signal(number)
        for child in brokers:
            with suppress(subprocess.TimeoutExpired):
                child.wait(LEAVE_S)

    def close(self) -> None:
        for path in self.run_dir.iterdir():
            path.unlink()
        self.run_dir.rmdir()


@contextmanager
def running_cluster(
    directory: Path,
    brokers: int = 1,
    options: Mapping[int, dict[str, Any]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """Start a cluster, and end every process of it however the test ends.

    Args:
        options: Fields of `BrokerConfig`, by broker.
        environment: Added to that of each process.
    """
    processes = Processes()
    running = Cluster(processes, directory, brokers, options)
    running.environment.update(environment or {})
    try:
        running.start()
        yield running
    finally:
        try:
            running.end_brokers()
        finally:
            processes.end()
            running.close()


def main() -> None:
    role, config = sys.argv[1], sys.argv[2]
    if role == "controller":
        from brokerd.control.config import ControllerConfig
        from brokerd.control.process import run as run_controller

        controller = msgspec.json.decode(config, type=ControllerConfig)
        run_controller(controller, ProcessLifeline(role, controller.endpoint))
    else:
        from brokerd.config import BrokerConfig
        from brokerd.serving.broker import run as run_broker

        broker = msgspec.json.decode(config, type=BrokerConfig)
        run_broker(broker, ProcessLifeline(role, broker.endpoint))


if __name__ == "__main__":
    main()
