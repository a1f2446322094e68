"""The bridge and a real mosquitto."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest import Consumer
from tests.cluster import Cluster
from tests.edge.mqtt.mosquitto import Mosquitto
from tests.edge.mqtt.running_gateway import RunningBridge
from tests.processes import Processes

pytestmark = pytest.mark.needs("mosquitto")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def mosquitto(processes: Processes, tmp_path: Path, free_port: Callable[[], int]) -> Mosquitto:
    return Mosquitto(processes, tmp_path, free_port())


def numbered(count: int, start: int = 0) -> list[tuple[str, bytes]]:
    return [(f"plant/{n % 3}", b"%d" % n) for n in range(start, start + count)]


def test_messages_come_with_topic_qos_and_retain_flag(mosquitto: Mosquitto) -> None:
    with RunningBridge(mosquitto.port, filters=("plant/#",), share="") as bridge:
        mosquitto.publish(numbered(20))
        mosquitto.publish([("plant/kept", b"r")], qos=2, retain=True)
        mosquitto.publish([("plant/zero", b"0")], qos=0)
        mosquitto.publish([("elsewhere", b"no")])
        records = bridge.records(22)
        assert [record.value for record in records[:20]] == [b"%d" % n for n in range(20)]
        assert {record.key for record in records[:20]} == {b"plant/0", b"plant/1", b"plant/2"}
        assert [records[20].header(f"mqtt.{name}") for name in ("topic", "qos", "retain")] == [
            b"plant/kept",
            b"1",
            b"1",
        ]
        assert records[21].header("mqtt.qos") == b"0"
        bridge.until(lambda: bridge.stats().acknowledged_total == 22)
        assert not [record for record in records if record.header("mqtt.clientid")]


def test_an_unacknowledged_message_comes_again_after_the_bridge_is_gone(mosquitto: Mosquitto) -> None:
    with RunningBridge(mosquitto.port, log={"holds": True}, stop_timeout_ms=50) as bridge:
        mosquitto.publish(numbered(50))
        bridge.until(lambda: bridge.log.waiting == 50)
    mosquitto.publish(numbered(10, 50))
    with RunningBridge(mosquitto.port) as bridge:
        records = bridge.records(60)
        assert sorted(int(record.value) for record in records) == list(range(60))
        assert {record.header("mqtt.dup") for record in records[:50]} == {b"1"}
        assert bridge.stats().sessions_lost_total == 0


def test_a_cut_connection_costs_no_second_record(mosquitto: Mosquitto) -> None:
    with RunningBridge(mosquitto.port, log={"holds": True}) as bridge:
        mosquitto.publish(numbered(30))
        bridge.until(lambda: bridge.log.waiting == 30)
        for round_number in range(1, 3):
            bridge.call(bridge.bridge._client.socket().shutdown, 2)  # type: ignore[union-attr]
            bridge.until(lambda n=round_number: bridge.stats().resends_attached_total == 30 * n)
        bridge.log.holds = False
        bridge.call(bridge.log.acknowledge)
        bridge.until(lambda: bridge.stats().acknowledged_total == 30)
        mosquitto.publish(numbered(5, 30))
        assert [int(record.value) for record in bridge.records(35)] == list(range(35))
        assert bridge.stats().sessions_lost_total == 0


def test_a_broker_that_was_killed_has_kept_what_it_acknowledged_and_the_bridge_finds_back(mosquitto: Mosquitto) -> None:
    with RunningBridge(mosquitto.port, log={"holds": True}) as bridge:
        mosquitto.publish(numbered(40))
        bridge.until(lambda: bridge.log.waiting == 40)
        mosquitto.kill()
        bridge.until(lambda: bridge.stats().connections == 0)
        mosquitto.start()
        bridge.until(lambda: bridge.bridge.subscribed)
        bridge.log.holds = False
        bridge.call(bridge.log.acknowledge)
        mosquitto.publish(numbered(10, 40))
        bridge.until(lambda: {int(record.value) for record in bridge.log.records} == set(range(50)))
        bridge.check_balance()


def test_a_lost_session_is_an_alarm_also_after_a_restart_of_the_bridge(mosquitto: Mosquitto, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with RunningBridge(mosquitto.port, state_dir=state) as bridge:
        assert bridge.stats().sessions_lost_total == 0
    with RunningBridge(mosquitto.port, state_dir=state) as bridge:
        assert bridge.stats().sessions_lost_total == 0
    mosquitto.kill()
    for path in tmp_path.glob("mosquitto.db*"):
        path.unlink()
    mosquitto.start()
    with RunningBridge(mosquitto.port, state_dir=state) as bridge:
        assert bridge.stats().sessions_lost_total == 1


def test_a_full_log_holds_the_acknowledgements_and_loses_nothing(mosquitto: Mosquitto) -> None:
    with RunningBridge(
        mosquitto.port, log={"holds": True, "buffer_memory": 5_000}, receive_maximum=50, held_bytes_max=10_000
    ) as bridge:
        mosquitto.publish([("a", b"%06d" % n + b"x" * 1000) for n in range(200)])
        bridge.until(lambda: bridge.stats().held_bytes > 10_000)
        assert bridge.stats().in_flight <= 50
        bridge.log.holds = False
        bridge.call(bridge.log.acknowledge)
        assert [int(record.value[:6]) for record in bridge.records(200)] == list(range(200))
        bridge.until(lambda: bridge.stats().held_bytes == 0)


def test_two_bridges_share_one_subscription(mosquitto: Mosquitto) -> None:
    with (
        RunningBridge(mosquitto.port, client_id="one") as one,
        RunningBridge(mosquitto.port, client_id="two") as two,
    ):
        mosquitto.publish(numbered(40))
        one.until(lambda: len(one.log.records) + len(two.log.records) == 40)
        assert one.log.records
        assert two.log.records


@pytest.fixture
def cluster(processes: Processes, tmp_path: Path) -> Cluster:
    directory = tmp_path / "cluster"
    directory.mkdir()
    return Cluster(processes, directory)


def test_a_bridge_killed_again_and_again_loses_nothing(
    mosquitto: Mosquitto, cluster: Cluster, processes: Processes
) -> None:
    try:
        cluster.start()
        config = json.dumps({"bootstrap": cluster.bootstrap, "port": mosquitto.port})
        command = [sys.executable, "-m", "tests.edge.mqtt.role_process", "bridge", config]
        bridge = processes.start(command, cwd=ROOT)
        values: list[int] = []
        with Consumer(cluster.bootstrap, topics=["mqtt"], auto_offset_reset="earliest") as consumer:
            for _ in range(100):  # the broker keeps messages only for a bridge that was there once
                mosquitto.publish([("probe", b"-1")])
                if consumer.poll(timeout_ms=200):
                    break
            for round_number in range(3):
                mosquitto.publish(numbered(300, 300 * round_number))
                bridge.kill()
                bridge.wait()
                bridge = processes.start(command, cwd=ROOT)
            while len(set(values)) < 900:
                records = consumer.poll(timeout_ms=20_000)
                assert records, f"only {len(set(values))} of 900 came"
                values += [int(record.value) for record in records if record.value != b"-1"]
        assert set(values) == set(range(900))
        firsts = list(dict.fromkeys(values))
        for topic in range(3):
            assert [n for n in firsts if n % 3 == topic] == list(range(topic, 900, 3))
        assert len(values) <= 900 + 3 * 300
    finally:
        processes.end()
        cluster.close()
