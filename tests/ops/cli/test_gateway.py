"""`forebay gateway`: alone over an appliance elsewhere, and its users."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge.security.passwords import Users
from ingest import Consumer
from ops.cli.main import cli
from tests.cluster import Cluster
from tests.edge.mqtt import client_packets as c
from tests.edge.mqtt.raw_device import RawDevice
from tests.processes import Processes

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cluster(processes: Processes, tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    running = Cluster(processes, tmp_path / "cluster")
    try:
        running.start()
        yield running
    finally:
        processes.end()
        running.close()


def test_a_gateway_alone_takes_messages_shows_its_counts_and_stops_cleanly(
    cluster: Cluster, processes: Processes, tmp_path: Path
) -> None:
    config = tmp_path / "forebay.toml"
    config.write_text('[mqtt]\nport = 0\nrules = [{filter = "plant/+", topic = "plant.{1}", key = "${clientid}"}]\n')
    command = [sys.executable, "-m", "ops.cli.main", "gateway", "run", "mqtt"]
    gateway = processes.start(
        [*command, "--bootstrap", cluster.bootstrap, "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert gateway.stderr is not None
    assert gateway.stdout is not None

    def counts() -> dict[str, int]:
        while not (line := gateway.stdout.readline()).startswith(b"{"):  # type: ignore[union-attr]
            assert line, "the gateway ended"
        found: dict[str, int] = json.loads(line)
        return found

    port = counts()["port"]
    with RawDevice(port) as device:
        device.connect("dev")
        device.send(c.publish("plant/a", b"x", qos=1, mid=1))
        assert device.receive() == (0x40, b"\0\1")
        gateway.send_signal(signal.SIGUSR1)
        assert counts()["acknowledged_total"] == 1
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(20) == 0
    with Consumer(cluster.bootstrap, topics=["plant.a"], auto_offset_reset="earliest") as consumer:
        [record] = consumer.poll(timeout_ms=10_000)
    assert (record.key, record.value) == (b"dev", b"x")


def test_users_are_added_and_taken_out_and_no_password_is_an_argument(tmp_path: Path) -> None:
    path = tmp_path / "users"
    added = CliRunner().invoke(cli, ["gateway", "passwd", str(path), "alice"], input="secret\n")
    assert added.exit_code == 0, added.output
    assert Users(str(path)).check("alice", b"secret")
    gone = CliRunner().invoke(cli, ["gateway", "passwd", str(path), "alice", "--delete"])
    assert gone.exit_code == 0
    assert not Users(str(path)).check("alice", b"secret")
    again = CliRunner().invoke(cli, ["gateway", "passwd", str(path), "alice", "--delete"])
    assert again.exit_code == 2
    assert "there is no user" in again.output


def test_an_open_port_without_passwords_is_refused_with_a_sentence() -> None:
    refused = CliRunner().invoke(
        cli, ["gateway", "run", "mqtt", "--bootstrap", "tcp://127.0.0.1:1", "--host", "0.0.0.0", "--port", "0"]
    )
    assert refused.exit_code == 2
    assert "allow_insecure" in refused.output
    assert "Traceback" not in refused.output
