"""A Kafka gateway in a thread, over real brokers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge.kafka.gateway import Gateway
from tests.cluster import Cluster, running_cluster
from tests.edge.kafka.running_gateway import running_gateway


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("kafka"), brokers=2) as running:
        yield running


@pytest.fixture(scope="session")
def gateway(cluster: Cluster) -> Iterator[Gateway]:
    """A gateway that serves until the tests are over."""
    with running_gateway(cluster.bootstrap) as opened:
        yield opened


@pytest.fixture
def address(gateway: Gateway) -> str:
    return f"127.0.0.1:{gateway.port}"
