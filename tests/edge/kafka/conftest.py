"""A Kafka gateway in a thread, over real brokers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from edge.kafka.config import KafkaConfig
from edge.kafka.gateway import Gateway
from tests.cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("kafka"), brokers=2) as running:
        yield running


@pytest.fixture(scope="session")
def gateway(cluster: Cluster) -> Iterator[Gateway]:
    """A gateway that serves until the tests are over."""
    loop = asyncio.new_event_loop()
    made: list[Gateway] = []
    started, stopped = threading.Event(), asyncio.Event()

    async def serve() -> None:
        opened = Gateway(KafkaConfig(bootstrap=cluster.bootstrap, port=0), loop)
        await opened.start()
        made.append(opened)
        started.set()
        await stopped.wait()
        await opened.stop()
        opened.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(10)
    yield made[0]
    loop.call_soon_threadsafe(stopped.set)
    thread.join(10)
    loop.close()


@pytest.fixture
def address(gateway: Gateway) -> str:
    return f"127.0.0.1:{gateway.port}"
