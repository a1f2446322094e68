"""A running cluster for tests of the clients: one for all that only use it, one's own for those that break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.processes import Processes


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two brokers that no test harms."""
    yield from _running(tmp_path_factory.mktemp("cluster"), brokers=2)


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One broker, to kill and stop."""
    yield from _running(tmp_path, brokers=1)


def _running(directory: Path, brokers: int) -> Iterator[Cluster]:
    processes = Processes()
    running = Cluster(processes, directory, brokers)
    try:
        running.start()
        yield running
    finally:
        processes.end()
        running.close()
