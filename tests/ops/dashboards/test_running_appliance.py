"""A real Prometheus over a whole appliance under load: every query of every dashboard finds data."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from ingest import Admin, Consumer, Producer
from tests.cluster import Cluster
from tests.ops.dashboards.prometheus import Prometheus, panel_expressions
from tests.ops.dashboards.test_dashboards import dashboards
from tests.ops.metrics.conftest import RunningMonitor
from tests.ops.metrics.test_monitor import until
from tests.processes import Processes

ROOT = Path(__file__).parents[3]
TOPIC = "sensors"


def forebay(*arguments: str) -> str:
    """Run the command line to its end and return what it said."""
    command = [sys.executable, "-c", "from ops.cli.main import main; main()", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def running(tmp_path: Path, processes: Processes) -> Iterator[dict[str, Any]]:
    """A whole appliance; what `forebay status` says of it."""
    data = str(tmp_path / "data")
    ports = ("--mqtt-port", "0", "--kafka-port", "0", "--http-port", "0")
    forebay("up", "--detach", "--brokers", "2", "--data-dir", data, *ports)
    try:
        status = json.loads(forebay("status", "--data-dir", data, "--format", "json"))
        for pid in [status["supervisor"], *(process["pid"] for process in status["processes"])]:
            processes.adopt(pid)
        with Admin(data) as admin:
            admin.create_topic(TOPIC, 4)
        yield status
    finally:
        forebay("down", "--data-dir", data)


@pytest.fixture
def load(running: dict[str, Any]) -> Iterator[None]:
    """Produce, publish and fetch all the while."""
    stop = threading.Event()
    device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="dev-1")
    device.connect("127.0.0.1", running["ports"]["mqtt"])
    device.loop_start()

    def work() -> None:
        sent = 0
        address = f"127.0.0.1:{running['ports']['kafka']}"
        data = running["data_dir"]
        with (
            Producer(data) as producer,
            Consumer(data, [TOPIC], group_id="dash", auto_offset_reset="earliest", local=False) as consumer,
            contextlib.closing(KafkaProducer(bootstrap_servers=address)) as kafka_producer,
            contextlib.closing(KafkaConsumer(bootstrap_servers=address)) as kafka_consumer,
        ):
            kafka_consumer.assign([TopicPartition(TOPIC, 0)])
            kafka_consumer.seek(TopicPartition(TOPIC, 0), 10**12)  # out of range: an error to be shown
            while not stop.wait(0.02):
                for _ in range(20):
                    producer.send(TOPIC, b"21.5", key=b"dev-%d" % (sent % 50))
                    sent += 1
                device.publish("plant/7/temperature", b"21.5", qos=1)
                consumer.poll(0)
                kafka_producer.send(TOPIC, b"21.5", key=b"dev-1")
                kafka_consumer.poll(0)

    thread = threading.Thread(target=work, name="load")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        device.disconnect()
        device.loop_stop()


@pytest.mark.needs("prometheus")
@pytest.mark.usefixtures("load")
@pytest.mark.parametrize("path", dashboards(), ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_finds_data_in_a_running_appliance(
    path: Path, running: dict[str, Any], tmp_path: Path, processes: Processes, free_port: Callable[[], int]
) -> None:
    prometheus = Prometheus(tmp_path / "prometheus", processes, free_port(), running["ports"]["http"])
    assert prometheus.wait_for_data(panel_expressions(json.loads(path.read_text())), 60) == []
    assert prometheus.query("min(forebay_ready)")[0]["value"][1] == "1"  # type: ignore[index]


@pytest.fixture
def cluster(tmp_path: Path, processes: Processes) -> Iterator[Cluster]:
    running = Cluster(processes, tmp_path / "data", brokers=2)
    try:
        running.start()
        with Admin(running.bootstrap) as admin:
            admin.create_topic(TOPIC, 4)
        yield running
    finally:
        processes.end()
        running.close()


def test_metrics_of_real_brokers_outlive_a_kill_and_add_up(
    cluster: Cluster, start_monitor: Callable[..., RunningMonitor]
) -> None:
    monitor = start_monitor(run_dir=str(cluster.run_dir), expected=["broker-1", "broker-2", "controller"])
    until(lambda: monitor.ready() == (200, []))
    name = "kafka_server_brokertopicmetrics_messagesin_total"

    def send(count: int) -> None:
        with Producer(cluster.bootstrap) as producer:
            for index in range(count):
                producer.send(TOPIC, b"value", key=b"%d" % index)

    send(100)
    until(lambda: monitor.value(name, topic=TOPIC) == 100)
    assert monitor.value("kafka_topic_partitions", topic=TOPIC) == 4
    assert monitor.value("kafka_brokers") == 2
    cluster.kill("broker-1")
    until(lambda: monitor.ready()[0] == 503)
    assert any("broker-1" in reason for reason in monitor.ready()[1])
    assert monitor.value(name, topic=TOPIC) == 100
    cluster.start_broker(1)
    until(lambda: monitor.ready() == (200, []), seconds=20)
    send(100)
    until(lambda: monitor.value(name, topic=TOPIC) == 200)
    assert monitor.value("forebay_process_restarts_total", process="broker-1") == 1
