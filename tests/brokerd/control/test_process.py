"""The controller process over a real socket, with brokers that are only their talk with it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from brokerd.control.config import ControllerConfig
from ingest.errors import ConfigError, Fenced, ForeignDirectory, RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import encode_request
from ingest.wire.messages import (
    AllocateProducerIdsRequest,
    ApiKey,
    ApiVersionsRequest,
    CreateTopicsRequest,
    FetchRequest,
    LocalPartition,
    MetadataRequest,
    NewTopic,
    RequestHeader,
)
from tests.brokerd.control.harness import (
    CLUSTER_ID,
    BeatingBroker,
    FakeBroker,
    RunningController,
    running_controller,
)
from tests.processes import Processes

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(tmp_path: Path) -> ControllerConfig:
    return ControllerConfig(
        directory=str(tmp_path / "controller"),
        cluster_id=CLUSTER_ID,
        endpoint=f"ipc://{tmp_path}/controller.sock",
        session_timeout_ms=9000,
    )


@pytest.fixture
def controller(config: ControllerConfig) -> Iterator[RunningController]:
    with running_controller(config) as running:
        yield running


def test_a_broker_registers_hears_of_a_topic_and_gets_producer_ids(controller: RunningController) -> None:
    endpoint = controller.config.endpoint
    with FakeBroker(endpoint) as broker, FakeBroker(endpoint) as client:
        assert broker.register() == 1
        assert broker.broker_epoch == 1
        assert [b.broker_id for b in broker.heartbeat().brokers] == [1]
        asked = client.send(CreateTopicsRequest([NewTopic("sensors", 3)]))
        metadata = broker.heartbeat()
        assert [(t.name, len(t.partitions)) for t in metadata.topics] == [("sensors", 3)]
        assert all(p.leader == 1 and p.leader_epoch == 0 for p in metadata.topics[0].partitions)
        assert not client.socket.poll(0), "answered before the broker said that it applied the change"
        broker.send(broker.heartbeat_request())
        answer = client.receive()
        assert (answer.correlation_id, answer.error_code) == (asked, 0)
        first = broker.ask(AllocateProducerIdsRequest(1, broker.broker_epoch), ApiKey.ALLOCATE_PRODUCER_IDS)
        second = broker.ask(AllocateProducerIdsRequest(1, broker.broker_epoch), ApiKey.ALLOCATE_PRODUCER_IDS)
        assert second.producer_id_start == first.producer_id_start + first.count
    controller.wait_stats(lambda stats: (stats.role, stats.topics, stats.partitions) == ("active", 1, 3))


def test_topic_ids_are_fresh_and_never_the_same(controller: RunningController) -> None:
    with BeatingBroker(controller.config.endpoint), FakeBroker(controller.config.endpoint) as client:
        topics = [NewTopic(f"t{index}") for index in range(50)]
        answer = client.ask(CreateTopicsRequest(topics), ApiKey.CREATE_TOPICS)
        ids = {topic.topic_id for topic in answer.topics}
        assert len(ids) == 50
        assert {len(topic_id) for topic_id in ids} == {16}


def test_a_restarted_controller_knows_everything_and_has_a_greater_epoch(config: ControllerConfig) -> None:
    with FakeBroker(config.endpoint) as broker:
        with running_controller(config) as first:
            broker.register()
            broker.send(CreateTopicsRequest([NewTopic("t", 2)]), timeout_ms=0)
            assert broker.heartbeat().version == 2
            epoch = first.stats().controller_epoch
        with running_controller(config) as second:
            # the same connection and the same broker epoch go on: a controller's death is no broker's
            broker.applied_version = -1
            metadata = broker.heartbeat()
            assert [t.name for t in metadata.topics] == ["t"]
            assert metadata.controller_epoch == second.stats().controller_epoch == epoch + 1


def test_a_silent_broker_is_marked_dead_after_the_session(config: ControllerConfig) -> None:
    with (
        running_controller(msgspec.structs.replace(config, session_timeout_ms=1000)) as controller,
        FakeBroker(config.endpoint) as silent,
        BeatingBroker(config.endpoint, 2),
    ):
        silent.register()
        controller.wait_stats(lambda stats: (stats.brokers, stats.brokers_alive) == (2, 1))
        silent.heartbeat()
        controller.wait_stats(lambda stats: stats.brokers_alive == 2)


def test_a_broker_whose_connection_ends_is_marked_dead_long_before_the_session(controller: RunningController) -> None:
    endpoint = controller.config.endpoint
    with BeatingBroker(endpoint, 2):
        dying = FakeBroker(endpoint, 1)
        dying.register()
        dying.heartbeat()
        dying.send(dying.heartbeat_request(), timeout_ms=60_000)
        controller.wait_stats(lambda stats: stats.brokers_alive == 2 and stats.requests["BROKER_HEARTBEAT"] >= 2)
        started = time.monotonic()
        dying.close()
        controller.wait_stats(lambda stats: stats.brokers_alive == 1)
        assert time.monotonic() - started < 6  # about 10 ms; the session is 9 s


def test_a_thousand_partitions_register_in_one_quick_request(controller: RunningController) -> None:
    endpoint = controller.config.endpoint
    with FakeBroker(endpoint) as broker, FakeBroker(endpoint, incarnation=2) as again:
        broker.register()
        broker.send(CreateTopicsRequest([NewTopic("t", 1000)]), timeout_ms=0)
        (topic,) = broker.heartbeat().topics
        found = [LocalPartition(topic.topic_id, p.partition, 2**30, 2**50) for p in topic.partitions]
        started = time.perf_counter()
        again.register(found)
        seconds = time.perf_counter() - started
        assert {p.leader_epoch for p in again.heartbeat().topics[0].partitions} == {2**30 + 1}
    assert seconds < 10  # about 30 ms


# ---- two candidates --------------------------------------------------------------------------------------------------


def start_candidate(processes: Processes, config: ControllerConfig) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.brokerd.control.candidate", "controller"]
    child = processes.start([*command, config.directory, config.endpoint], cwd=ROOT, stdout=subprocess.PIPE)
    assert says(child, b"started")
    return child


def says(child: subprocess.Popen[bytes], word: bytes, seconds: float = 10) -> bool:
    """Wait for one line of a candidate."""
    assert child.stdout is not None
    deadline = time.monotonic() + seconds
    said = b""
    while word not in said:
        if not select.select([child.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
            return False
        piece = os.read(child.stdout.fileno(), 4096)
        if not piece:
            return False
        said += piece
    return True


def test_killing_the_active_controller_makes_the_standby_win_within_a_second(
    config: ControllerConfig, processes: Processes
) -> None:
    active = start_candidate(processes, config)
    assert says(active, b"ready")
    standby = start_candidate(processes, config)
    assert not says(standby, b"ready", 0.3), "two controllers"
    with FakeBroker(config.endpoint) as broker:
        broker.register()
        before = broker.heartbeat()
        started = time.monotonic()
        active.kill()
        assert says(standby, b"ready")
        assert time.monotonic() - started < 10  # about 20 ms
        broker.applied_version = -1
        after = broker.heartbeat()
        assert after.controller_epoch == before.controller_epoch + 1
        assert after.version == before.version
        assert time.monotonic() - started < 10


def test_a_standby_says_so_and_stops_when_told(controller: RunningController) -> None:
    standby = RunningController(controller.config)
    standby.wait_stats(lambda stats: stats.role == "standby")
    standby.stop()
    assert not standby.lifeline.wait_ready(0)
    assert controller.stats().role == "active"


# ---- what can not be ------------------------------------------------------------------------------------------------


def test_hostile_frames_are_dropped_counted_and_harm_no_one(controller: RunningController) -> None:
    endpoint = controller.config.endpoint
    with BeatingBroker(endpoint, 2), FakeBroker(endpoint) as attacker, FakeBroker(endpoint) as client:
        for frames in (
            [b""],
            [b"", b""],
            [b"\xff" * 100],
            [os.urandom(1000)],
            [b"\x95" * 60_000],
            [encode_request(MetadataRequest(), 1, 0), b"payload"],
            [encode_request(MetadataRequest(), 1, 0)] * 40,
            [b"\xdd\xff\xff\xff\xff"],
        ):
            attacker.socket.send_multipart(frames)
        controller.wait_stats(lambda stats: stats.dropped == 8)
        assert client.ask(MetadataRequest(), ApiKey.METADATA).cluster_id == CLUSTER_ID
        assert not attacker.socket.poll(0)


@pytest.mark.parametrize(
    ("api_key", "version", "body", "code"),
    [
        (999, 0, b"\x90", ErrorCode.UNSUPPORTED_VERSION),
        (int(ApiKey.METADATA), 9, b"\x90", ErrorCode.UNSUPPORTED_VERSION),
        (int(ApiKey.CREATE_TOPICS), 0, b"\xc0", ErrorCode.INVALID_REQUEST),
        (int(ApiKey.BROKER_REGISTRATION), 0, b"\x93\x01\x02\x03", ErrorCode.INVALID_REQUEST),
    ],
)
def test_a_request_that_can_not_be_read_is_answered_with_its_code(
    controller: RunningController, api_key: int, version: int, body: bytes, code: ErrorCode
) -> None:
    with FakeBroker(controller.config.endpoint) as client:
        client.socket.send(msgspec.msgpack.encode(RequestHeader(api_key, version, 77, 1000, msgspec.Raw(body))))
        answer = client.receive()
        assert (answer.correlation_id, answer.error_code) == (77, code)
        assert answer.message


def test_a_frame_beyond_the_limit_costs_its_sender_the_connection(controller: RunningController) -> None:
    with FakeBroker(controller.config.endpoint) as attacker, FakeBroker(controller.config.endpoint) as client:
        attacker.socket.send(bytes(2 << 20))
        assert client.ask(MetadataRequest(), ApiKey.METADATA).cluster_id == CLUSTER_ID
        # it connects again, and may behave
        assert attacker.ask(MetadataRequest(), ApiKey.METADATA).cluster_id == CLUSTER_ID


def test_a_peer_that_does_not_read_costs_bounded_memory_and_no_one_else_anything(controller: RunningController) -> None:
    endpoint = controller.config.endpoint
    with BeatingBroker(endpoint, 2), FakeBroker(endpoint) as deaf, FakeBroker(endpoint) as client:
        client.ask(CreateTopicsRequest([NewTopic("t", 500)]), ApiKey.CREATE_TOPICS)
        for _ in range(3000):
            deaf.send(MetadataRequest())
        controller.wait_stats(lambda stats: stats.requests.get("METADATA") == 3000)
        assert controller.stats().unroutable > 0, "everything was kept for it"
        started = time.monotonic()
        assert len(client.ask(MetadataRequest(), ApiKey.METADATA).topics) == 1
        assert time.monotonic() - started < 10


def test_what_the_controller_serves_is_told(controller: RunningController) -> None:
    with FakeBroker(controller.config.endpoint) as client:
        answer = client.ask(ApiVersionsRequest(), ApiKey.API_VERSIONS)
        assert answer.cluster_id == CLUSTER_ID
        assert int(ApiKey.CREATE_TOPICS) in {version.api_key for version in answer.api_keys}
        with pytest.raises(RemoteError) as refused:
            client.ask(FetchRequest(0, 0, 0, []), ApiKey.FETCH)
        assert refused.value.code == ErrorCode.UNSUPPORTED_VERSION


def test_an_old_incarnation_is_fenced(controller: RunningController) -> None:
    endpoint = controller.config.endpoint
    with FakeBroker(endpoint) as old, FakeBroker(endpoint, incarnation=2) as new:
        old.register()
        new.register()
        with pytest.raises(Fenced):
            old.heartbeat()
        with pytest.raises(Fenced):
            old.register()


def test_the_socket_is_the_services_alone(controller: RunningController) -> None:
    path = controller.config.endpoint.removeprefix("ipc://")
    assert os.stat(path).st_mode & 0o077 == 0


def test_an_endpoint_that_can_not_be_bound_is_a_plain_sentence(config: ControllerConfig) -> None:
    for endpoint in ("ipc://" + "x" * 200, "ipc:///nonexistent/folder/x.sock", "nonsense"):
        controller = RunningController(msgspec.structs.replace(config, endpoint=endpoint))
        with pytest.raises(ConfigError, match="can't listen on"):
            controller.stop()


def test_another_clusters_directory_is_a_plain_sentence(config: ControllerConfig) -> None:
    with running_controller(config):
        pass
    with pytest.raises(ForeignDirectory, match="belongs to cluster"):
        RunningController(msgspec.structs.replace(config, cluster_id="another")).stop()


def test_defaults_no_topic_can_have_are_refused_at_the_start(config: ControllerConfig) -> None:
    for configs in ({"log.retention.ms": "x"}, {"default.replication.factor": "33"}, {"num.partitions": "0"}):
        with pytest.raises(ConfigError, match=r"expected|copy"):
            RunningController(msgspec.structs.replace(config, broker_configs=configs)).stop()


def test_the_loop_beats_while_nothing_happens(controller: RunningController) -> None:
    beats = controller.lifeline.beats
    deadline = time.monotonic() + 1
    while controller.lifeline.beats == beats:
        assert time.monotonic() < deadline
        time.sleep(0.01)
