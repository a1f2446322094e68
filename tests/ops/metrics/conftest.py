"""A fake appliance, and a real monitor over it."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ops.metrics.config import MonitorConfig
from ops.metrics.monitor import run
from tests.ops.metrics.fakes import FakeAppliance, FakeLifeline


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[FakeAppliance]:
    fake = FakeAppliance(tmp_path)
    try:
        yield fake
    finally:
        fake.close()


class RunningMonitor:
    """A monitor in a thread, and its answers."""

    def __init__(self, lifeline: FakeLifeline) -> None:
        self.lifeline = lifeline
        assert lifeline.stats is not None
        self.port: int = lifeline.stats().http_port  # type: ignore[attr-defined]

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ready(self) -> tuple[int, list[str]]:
        status, body = self.get("/readyz")
        return status, json.loads(body)["reasons"]

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        status, text = self.get("/metrics")
        assert status == 200, text
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.metrics().get((name, tuple(sorted(labels.items()))), -1)


@pytest.fixture
def start_monitor(tmp_path: Path) -> Iterator[Callable[..., RunningMonitor]]:
    """Return a function that starts a monitor over the control sockets of tmp_path."""
    started: list[tuple[FakeLifeline, threading.Thread]] = []

    def start(**settings: Any) -> RunningMonitor:
        settings = {"run_dir": str(tmp_path), "http_port": 0, "scrape_ms": 50, **settings}
        lifeline = FakeLifeline()
        thread = threading.Thread(target=run, args=(MonitorConfig(**settings), lifeline), name="monitor")
        thread.start()
        started.append((lifeline, thread))
        assert lifeline.is_ready.wait(10)
        return RunningMonitor(lifeline)

    yield start
    for lifeline, thread in started:
        lifeline.stop()
        thread.join(10)
        assert not thread.is_alive(), "the monitor did not stop when told to"
        lifeline.close()
