"""Fixtures and markers every test may use; what the machine can do stands in `tests/machine.py`."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from tests import machine
from tests.processes import Processes
from tests.zookeeper import ensemble, shared_ensemble

__all__ = ["ensemble", "shared_ensemble"]

hypothesis.settings.register_profile("forebay", deadline=None)  # how busy the machine is says nothing of the code
hypothesis.settings.load_profile("forebay")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate-golden", action="store_true", help="write golden files anew; review them as a diff")
    parser.addoption("--long", action="store_true", help="run fuzzing and fault tests for minutes, not seconds")
    parser.addoption(
        "--nemesis-seconds", type=int, help="how long the random mix of faults goes on, one run after another"
    )
    parser.addoption("--nemesis-seed", type=int, help="of its first run, to have the same plan again")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # behind a shell's `&`; children inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    required = machine.required()
    if unknown := set(required) - set(machine.capabilities()):
        raise pytest.UsageError(f"{machine.REQUIRED_VARIABLE} names unknown capabilities: {', '.join(sorted(unknown))}")
    if absent := {name: machine.missing()[name] for name in required if name in machine.missing()}:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in absent.items())
        raise pytest.UsageError(f"{machine.REQUIRED_VARIABLE}: this machine lacks {reasons}")


def pytest_report_header(config: pytest.Config) -> list[str]:
    return list(machine.header_lines(machine.missing()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            assert name in machine.capabilities(), f"unknown capability {name!r}; tests/machine.py lists them"
            if reason := machine.missing().get(name):
                pytest.skip(f"needs {name}: {reason}")


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return a function that picks a TCP port of 127.0.0.1 nobody uses now."""

    def pick() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return pick


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Start processes through this; all are ended by their ids at the end of the test."""
    guard = Processes()
    try:
        yield guard
    finally:
        guard.end()
