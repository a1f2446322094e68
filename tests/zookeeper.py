"""A real ensemble of ZooKeeper servers on loopback, whose nodes a test kills, stops and starts again by their ids."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient

from tests.machine import ZOOKEEPER_JAR, program
from tests.network import Machine
from tests.processes import Processes

_SERVER = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
# small and soon there: three of these share two cores with the tests
_JAVA_OPTIONS = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_UP_SECONDS = 30
_POLL_SECONDS = 0.02  # a server tells nobody that it serves: it is asked
TICK_MS = 200  # sessions last 2 to 20 ticks


class Ensemble:
    """Three servers, ids 1 to 3. Thread: the test's.

    Args:
        machines: One for each server; without, all are on loopback.
    Attributes:
        hosts: What a client connects to.
        session_ms_max: The longest session the servers grant.
    """

    session_ms_max = 20 * TICK_MS

    def __init__(self, directory: Path, *, size: int = 3, machines: Sequence[Machine] = ()) -> None:
        self._directory = directory
        self._processes = Processes()
        self._machines = dict(enumerate(machines, 1))
        self._ports = {number: free_port() for number in range(1, size + 1)}
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        peers = [f"server.{n}={self._address(n)}:{free_port()}:{free_port()}" for n in self._ports]
        for number, port in self._ports.items():
            home = directory / str(number)
            home.mkdir(parents=True)
            (home / "myid").write_text(f"{number}\n")
            settings = [
                f"dataDir={home}",
                f"clientPort={port}",
                f"clientPortAddress={self._address(number)}",
                f"tickTime={TICK_MS}",
                "initLimit=50",
                "syncLimit=10",
                "admin.enableServer=false",
                "4lw.commands.whitelist=srvr",
                *peers,
            ]
            (home / "zoo.cfg").write_text("\n".join(settings) + "\n")

    @property
    def homes(self) -> list[Path]:
        return [self._directory / str(number) for number in self._ports]

    @property
    def hosts(self) -> str:
        return ",".join(f"{self._address(number)}:{port}" for number, port in self._ports.items())

    @property
    def ports(self) -> list[int]:
        """Where clients reach the servers."""
        return list(self._ports.values())

    def _address(self, number: int) -> str:
        return self._machines[number].address if self._machines else "127.0.0.1"

    def _command(self, number: int, *arguments: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
        return [*self._machines[number].command(*arguments)] if self._machines else list(arguments)

    def connect(self, folder: str) -> str:
        """Return what a client of this folder connects to."""
        return f"{self.hosts}/{folder}"

    @contextlib.contextmanager
    def client(self, **options: Any) -> Iterator[Any]:
        """Yield a plain kazoo client: the test's own hand in the tree."""
        client = KazooClient(self.hosts, timeout=self.session_ms_max / 1000, **options)
        client.start()
        try:
            yield client
        finally:
            client.stop()
            client.close()

    def dump(self, folder: str) -> dict[str, tuple[bytes, int, int]]:
        """Return every node below a folder: value, version, version of its children."""
        with self.client() as client:
            found: dict[str, tuple[bytes, int, int]] = {}
            waiting = [f"/{folder}"]
            while waiting:
                path = waiting.pop()
                value, stat = client.get(path)
                found[path] = (value, stat.version, stat.cversion)
                waiting += [f"{path}/{name}" for name in client.get_children(path)]
            return found

    @property
    def numbers(self) -> list[int]:
        return list(self._ports)

    def start(self, *numbers: int) -> None:
        """Start these nodes, by default all that do not run; `wait_serving` waits for them."""
        for number in numbers or self.numbers:
            if number not in self._running:
                home = self._directory / str(number)
                java = program("java")
                assert java is not None, "no java"
                with open(home / "log", "ab") as output:
                    self._running[number] = self._processes.start(
                        self._command(number, java, *_JAVA_OPTIONS, "-cp", ZOOKEEPER_JAR, _SERVER, home / "zoo.cfg"),
                        stdout=output,
                        stderr=output,
                        cwd=home,
                    )

    def wait_serving(self, *numbers: int) -> None:
        """Wait until these nodes, by default all that run, belong to a quorum."""
        deadline = time.monotonic() + _UP_SECONDS
        for number in numbers or list(self._running):
            while self.mode(number) == "":
                code = self._running[number].poll()
                log = self._directory / str(number) / "log"
                assert code is None, f"node {number} ended with {code}: {log.read_text()[-2000:]}"
                assert time.monotonic() < deadline, f"node {number} serves nobody: {log.read_text()[-2000:]}"
                time.sleep(_POLL_SECONDS)

    def mode(self, number: int) -> str:
        """Return "leader" or "follower", or nothing while the node does not serve."""
        asking = f"exec 3<>/dev/tcp/{self._address(number)}/{self._ports[number]} && echo -n srvr >&3 && cat <&3"
        with contextlib.suppress(subprocess.TimeoutExpired):
            command = self._command(number, "bash", "-c", asking)
            answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=1).stdout
            for line in answer.decode().splitlines():
                if line.startswith("Mode: "):
                    return line.removeprefix("Mode: ")
        return ""

    def leader(self) -> int:
        """Return the id of the node that leads."""
        return next(number for number in self._running if self.mode(number) == "leader")

    def kill(self, *numbers: int) -> None:
        """SIGKILL these nodes; `start` brings them back with what was on their disks."""
        for number in numbers:
            child = self._running.pop(number)
            child.kill()
            child.wait()

    def stop(self, *numbers: int) -> None:
        """SIGSTOP these nodes: they hold their connections and say nothing."""
        for number in numbers:
            os.kill(self._running[number].pid, signal.SIGSTOP)

    def resume(self, *numbers: int) -> None:
        for number in numbers:
            os.kill(self._running[number].pid, signal.SIGCONT)

    def restore(self) -> None:
        """Have every node run and serve again."""
        self.resume(*self._running)
        self.start()
        self.wait_serving()

    def end(self) -> None:
        """End every node, however the test ended."""
        for child in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        self._processes.end()


@pytest.fixture(scope="module")
def shared_ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    """One ensemble for all tests of a module: a cluster is a folder of it. It is up in a second."""
    ensemble = Ensemble(tmp_path_factory.mktemp("zookeeper"))
    try:
        ensemble.start()
        ensemble.wait_serving()
        yield ensemble
    finally:
        ensemble.end()


@pytest.fixture
def ensemble(shared_ensemble: Ensemble) -> Iterator[Ensemble]:
    """The ensemble with all nodes serving; what a test does to them is undone after it."""
    yield shared_ensemble
    shared_ensemble.restore()


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
