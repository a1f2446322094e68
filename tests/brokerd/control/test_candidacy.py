"""A candidate of one machine while another machine's is the controller: it guides, waits, and takes over."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from brokerd.control.config import ControllerConfig, ZookeeperConfig
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Response, decode_response, encode_request
from ingest.wire.messages import ApiVersionsRequest
from tests.brokerd.control.harness import CLUSTER_ID, SESSION_MS, RunningController, found_cluster
from tests.zookeeper import Ensemble, free_port

pytestmark = pytest.mark.needs("zookeeper")


@pytest.fixture
def machine(ensemble: Ensemble, tmp_path: Path) -> Iterator[Callable[[str], RunningController]]:
    """Return what starts the candidate of a machine; the cluster is founded, and all are stopped after the test."""
    connect = ensemble.connect(f"cluster-{uuid.uuid4().hex[:12]}")
    found_cluster(connect)
    running: list[RunningController] = []

    def start(name: str) -> RunningController:
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        config = ControllerConfig(
            directory=str(tmp_path / name / "controller"),
            cluster_id=CLUSTER_ID,
            endpoint=f"ipc://{tmp_path}/{name}.sock",
            tcp_endpoint=endpoint,
            advertised_tcp_endpoint=endpoint,
            zookeeper=ZookeeperConfig(connect=connect, session_timeout_ms=SESSION_MS, machine=name),
        )
        (tmp_path / name).mkdir(exist_ok=True)
        running.append(RunningController(config))
        assert running[-1].lifeline.wait_ready(20), "it does not serve"
        return running[-1]

    yield start
    for controller in running:
        controller.stop()


def asked(endpoint: str) -> Response:
    """Ask for anything at all."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(endpoint)
        socket.send(encode_request(ApiVersionsRequest(), 1, 5000))
        assert socket.poll(10_000), "no answer"
        return decode_response(socket.recv_multipart())


def wait_active(controller: RunningController) -> None:
    controller.wait_stats(lambda stats: stats.role == "active", 20)


def wait_guided(controller: RunningController, endpoint: str) -> None:
    """Ask a candidate until it knows the controller."""
    deadline = time.monotonic() + 20
    while True:
        response = asked(controller.config.endpoint)
        assert response.error_code == ErrorCode.NOT_CONTROLLER
        if response.message == endpoint:
            return
        assert time.monotonic() < deadline, f"it names {response.message!r}, not {endpoint}"


def test_a_machine_that_is_not_the_controller_names_the_one_that_is(
    machine: Callable[[str], RunningController],
) -> None:
    first = machine("a")
    wait_active(first)
    second = machine("b")
    assert second.stats().role == "standby"
    wait_guided(second, first.config.advertised_tcp_endpoint)
    assert asked(first.config.advertised_tcp_endpoint).error_code == ErrorCode.NONE
    assert asked(first.config.endpoint).error_code == ErrorCode.NONE


def test_the_next_machine_takes_over_when_the_controllers_stops(machine: Callable[[str], RunningController]) -> None:
    first = machine("a")
    wait_active(first)
    second = machine("b")
    wait_guided(second, first.config.advertised_tcp_endpoint)
    first.stop()
    wait_active(second)
    assert asked(second.config.endpoint).error_code == ErrorCode.NONE
    assert second.stats().controller_epoch == first.stats().controller_epoch + 1
