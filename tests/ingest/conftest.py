"""A running cluster for tests of the clients: one for all that only use it, one's own for those that break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two brokers that no test harms."""
    with running_cluster(tmp_path_factory.mktemp("cluster"), brokers=2) as running:
        yield running


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One broker, to kill and stop."""
    with running_cluster(tmp_path) as running:
        yield running
