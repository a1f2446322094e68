"""The monitor over canned stats: names of metrics, readiness with reasons, counters that outlive the killed."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from brokerd.serving.stats import CleanerStats, CompactedStats, FollowerStats, GroupStats, QuotaStats
from ingest.errors import ConfigError
from ops.metrics import connections
from ops.metrics.config import MonitorConfig
from ops.metrics.monitor import run
from tests.ops.metrics.conftest import RunningMonitor
from tests.ops.metrics.fakes import (
    FakeAppliance,
    FakeLifeline,
    answer,
    broker,
    controller,
    histogram,
    kafka_gateway,
    partition,
)

Start = Callable[..., RunningMonitor]

# conventions of kafka_exporter and the JMX exporter: dashboards ask for exactly these
KAFKA_NAMES = {
    "kafka_brokers",
    "kafka_topic_partitions",
    "kafka_topic_partition_current_offset",
    "kafka_topic_partition_oldest_offset",
    "kafka_topic_partition_in_sync_replica",
    "kafka_topic_partition_leader",
    "kafka_topic_partition_leader_is_preferred",
    "kafka_topic_partition_replicas",
    "kafka_topic_partition_under_replicated_partition",
    "kafka_server_brokertopicmetrics_messagesin_total",
    "kafka_server_brokertopicmetrics_bytesin_total",
    "kafka_server_brokertopicmetrics_bytesout_total",
    "kafka_server_replicamanager_partitioncount",
    "kafka_server_replicamanager_leadercount",
    "kafka_server_replicamanager_isrshrinks_total",
    "kafka_server_replicamanager_isrexpands_total",
    "kafka_controller_kafkacontroller_activecontrollercount",
    "kafka_controller_kafkacontroller_offlinepartitionscount",
    "kafka_controller_kafkacontroller_preferredreplicaimbalancecount",
    "kafka_controller_controllerstats_uncleanleaderelections_total",
    "kafka_cluster_partition_underreplicated",
    "kafka_cluster_partition_underminisr",
    "kafka_log_log_size",
    "kafka_log_log_logstartoffset",
    "kafka_log_log_logendoffset",
    "kafka_network_requestmetrics_totaltimems",
    "kafka_network_requestmetrics_requests_total",
    "kafka_network_requestmetrics_errors_total",
    "kafka_server_socket_server_metrics_connection_count",
    "kafka_server_socket_server_metrics_connection_creation_total",
    "kafka_server_socket_server_metrics_incoming_byte_total",
    "kafka_server_socket_server_metrics_outgoing_byte_total",
    "kafka_consumergroup_current_offset",
    "kafka_consumergroup_lag",
    "kafka_consumergroup_current_offset_sum",
    "kafka_consumergroup_lag_sum",
    "kafka_consumergroup_members",
    "forebay_consumergroup_rebalances_total",
    "forebay_consumergroup_members_lost_total",
    "forebay_unflushed_bytes",
    "forebay_leader_epoch",
    "forebay_gateway_received_total",
    "forebay_gateway_acknowledged_total",
    "forebay_gateway_refused_total",
    "forebay_gateway_unanswered_total",
    "forebay_disk_free_bytes",
    "forebay_process_restarts_total",
    "forebay_build_info",
}


def gateway(received: int, acknowledged: int, refused: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "received_total": received,
        "acknowledged_total": acknowledged,
        "refused_total": refused,
        "appended_total": acknowledged,
        "in_flight": received - acknowledged - refused,
        **more,
    }


def healthy(appliance: FakeAppliance) -> None:
    groups = [GroupStats("dash", "Stable", 2, {"sensors": {1: 50, 2: 90}})]
    told = {"groups": groups, "group_rebalances_total": 3, "group_members_lost_total": {"process_ended": 1}}
    appliance.say("broker-1", answer("broker-1", "broker", broker(1, **told)))
    appliance.say("broker-2", answer("broker-2", "broker", broker(2)))
    appliance.say("controller", answer("controller", "controller", controller()))
    appliance.say("mqtt", answer("mqtt", "gateway", gateway(10, 7, 1)))
    appliance.say("kafka", answer("kafka", "kafka", kafka_gateway(gateway(20, 15, 2), 3, histogram(0.001, 0.3), 1)))
    appliance.say("kafka-2", answer("kafka-2", "kafka", kafka_gateway(gateway(5, 5), 4, histogram(0.001, 0.3), 1)))


def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"


def test_every_name_that_dashboards_ask_for_is_there(appliance: FakeAppliance, start_monitor: Start) -> None:
    healthy(appliance)
    names = {name for name, _ in start_monitor().metrics()}
    assert names >= KAFKA_NAMES


def test_values_add_up_over_brokers(appliance: FakeAppliance, start_monitor: Start) -> None:
    healthy(appliance)
    monitor = start_monitor()
    assert monitor.value("kafka_brokers") == 2
    assert monitor.value("kafka_topic_partitions", topic="sensors") == 2
    assert monitor.value("kafka_topic_partition_current_offset", topic="sensors", partition="2") == 90
    assert monitor.value("kafka_topic_partition_leader", topic="sensors", partition="2") == 2
    assert monitor.value("kafka_server_brokertopicmetrics_messagesin_total", topic="sensors") == 200
    assert monitor.value("forebay_requests_total", request="ListOffsets") == 2
    assert monitor.value("forebay_request_duration_seconds_bucket", request="Produce", le="0.001") == 2
    assert monitor.value("forebay_request_duration_seconds_bucket", request="Produce", le="+Inf") == 6
    assert monitor.value("forebay_request_duration_seconds_count", request="Produce") == 6
    assert 1 <= monitor.value("kafka_network_requestmetrics_totaltimems", request="Produce", quantile="0.5") <= 2.5
    assert monitor.value("forebay_unflushed_records", topic="sensors", partition="1") == 10
    assert monitor.value("forebay_process_up", process="mqtt", role="gateway") == 1


def test_the_processes_of_a_kafka_gateway_are_one_input(appliance: FakeAppliance, start_monitor: Start) -> None:
    healthy(appliance)
    monitor = start_monitor()
    assert monitor.value("kafka_network_requestmetrics_requests_total", request="Produce") == 4
    assert monitor.value("kafka_network_requestmetrics_requests_total", request="Metadata") == 4
    errors = {"request": "Produce", "error": "CORRUPT_MESSAGE"}
    assert monitor.value("kafka_network_requestmetrics_errors_total", **errors) == 2
    assert monitor.value("forebay_kafka_request_duration_seconds_bucket", request="Produce", le="0.001") == 2
    assert monitor.value("forebay_kafka_request_duration_seconds_count", request="Produce") == 4
    sockets = "kafka_server_socket_server_metrics"
    assert monitor.value(f"{sockets}_connection_count", networkprocessor="kafka-2") == 4
    assert monitor.value(f"{sockets}_connection_creation_total", networkprocessor="kafka") == 9
    assert monitor.value(f"{sockets}_outgoing_byte_total", networkprocessor="kafka") == 200
    assert monitor.value("forebay_kafka_records_fetched_total") == 100
    assert monitor.value("forebay_gateway_received_total", input="kafka") == 25
    assert monitor.value("forebay_gateway_acknowledged_total", input="kafka") == 20
    assert monitor.value("forebay_gateway_in_flight", input="kafka") == 3
    assert monitor.value("forebay_gateway_connections", input="kafka") == 7
    assert monitor.value("forebay_gateway_bytes_total", input="kafka") == 200
    assert monitor.value("forebay_gateway_events_total", input="kafka", event="failed") == 4

    appliance.kill("kafka")
    until(lambda: monitor.ready()[0] == 503)
    appliance.say(
        "kafka", answer("kafka", "kafka", kafka_gateway(gateway(1, 1), 1, histogram(0.001), 0), incarnation=2)
    )
    until(lambda: monitor.ready()[0] == 200)
    assert monitor.value("forebay_gateway_received_total", input="kafka") == 26
    assert monitor.value("forebay_gateway_unanswered_total", input="kafka") == 3, "what the dead one held in flight"
    assert monitor.value("forebay_gateway_in_flight", input="kafka") == 0
    assert monitor.value("kafka_network_requestmetrics_requests_total", request="Produce") == 5


def test_groups_are_shown_with_their_lag(appliance: FakeAppliance, start_monitor: Start) -> None:
    healthy(appliance)
    monitor = start_monitor()
    at = {"consumergroup": "dash", "topic": "sensors"}
    assert monitor.value("kafka_consumergroup_current_offset", **at, partition="1") == 50
    assert monitor.value("kafka_consumergroup_lag", **at, partition="1") == 40
    assert monitor.value("kafka_consumergroup_lag", **at, partition="2") == 0
    assert monitor.value("kafka_consumergroup_current_offset_sum", **at) == 140
    assert monitor.value("kafka_consumergroup_lag_sum", **at) == 40
    assert monitor.value("kafka_consumergroup_members", consumergroup="dash") == 2
    assert monitor.value("forebay_consumer_lag_seconds", **at, partition="2") == 0
    assert monitor.value("forebay_consumer_lag_seconds", **at, partition="1") == -1, "no leader can be asked here"
    assert monitor.value("forebay_consumergroup_rebalances_total", broker="1") == 3
    assert monitor.value("forebay_consumergroup_members_lost_total", reason="process_ended") == 1
    assert monitor.value("forebay_consumergroup_members_lost_total", reason="session_timeout") == 0
    assert "<h2>Groups</h2>" in monitor.get("/")[1]
    appliance.kill("broker-1")
    until(lambda: monitor.value("kafka_consumergroup_members", consumergroup="dash") == -1)
    assert monitor.value("forebay_consumergroup_rebalances_total", broker="1") == 3


def test_groups_beyond_the_cap_are_counted(appliance: FakeAppliance, start_monitor: Start) -> None:
    groups = [GroupStats(f"g{index:02}", "Empty", 0, {"sensors": {1: 50}}) for index in range(20)]
    appliance.say("broker-1", answer("broker-1", "broker", broker(1, groups=groups, groups_untold=3)))
    metrics = start_monitor(groups_max=5).metrics()
    assert sum(1 for found, _ in metrics if found == "kafka_consumergroup_members") == 5
    assert sum(1 for found, _ in metrics if found == "kafka_consumergroup_lag") == 5
    assert metrics["forebay_consumergroups_without_metrics", ()] == 18


def test_compaction_is_shown(appliance: FakeAppliance, start_monitor: Start) -> None:
    healthy(appliance)
    compacted = [
        CompactedStats("sensors", 0, dirty_bytes=30, clean_bytes=70, cleaned_end=5),
        CompactedStats("sensors", 1, dirty_bytes=60, clean_bytes=40, cleaned_end=0, uncleanable="no room"),
    ]
    counts = CleanerStats(2, 1, read_bytes_total=1000, written_bytes_total=250, max_ms=1500, idle_ms=7)
    appliance.say("broker-1", answer("broker-1", "broker", broker(1, cleaner=counts, compacted=compacted)))
    monitor = start_monitor()
    assert monitor.value("forebay_log_cleaner_runs_total", broker="1") == 2
    assert monitor.value("forebay_log_cleaner_failures_total", broker="1") == 1
    assert monitor.value("forebay_log_cleaner_read_bytes_total", broker="1") == 1000
    assert monitor.value("forebay_log_cleaner_dirty_ratio", topic="sensors", partition="0", broker="1") == 0.3
    assert monitor.value("forebay_log_cleaner_dirty_bytes", topic="sensors", partition="1", broker="1") == 60
    assert monitor.value("kafka_log_logcleaner_cleaner_recopy_percent", broker="1") == 25
    assert monitor.value("kafka_log_logcleaner_max_clean_time_secs", broker="1") == 1.5
    assert monitor.value("kafka_log_logcleanermanager_max_dirty_percent", broker="1") == 60
    assert monitor.value("kafka_log_logcleanermanager_uncleanable_partitions_count", broker="1") == 1
    assert monitor.value("kafka_log_logcleanermanager_uncleanable_bytes", broker="1") == 60
    assert monitor.value("kafka_log_logcleanermanager_time_since_last_run_ms", broker="1") == 7
    assert monitor.value("kafka_log_logcleanermanager_time_since_last_run_ms", broker="2") == -1


def test_the_health_of_replication_is_shown(appliance: FakeAppliance, start_monitor: Start) -> None:
    lagging = partition(
        number=1,
        replicas=3,
        in_sync=1,
        is_preferred=False,
        enough_in_sync=False,
        followers=[FollowerStats(2, 40, 2500), FollowerStats(3, -1, 9000)],
    )
    healthy(appliance)
    counts = {"isr_shrinks_total": 2, "isr_expands_total": 1, "refills_total": 3}
    counts["fetch_quota"] = QuotaStats(bytes_total=70, throttled_total=4, throttle_ms_total=1500, clients=2)
    shrunk = broker(1, partitions=[lagging], replicas=4, replicas_offline=1, **counts)
    appliance.say("broker-1", answer("broker-1", "broker", shrunk))
    elected = controller(elections={"broker_death": 5, "unclean": 1}, not_preferred=1)
    appliance.say("controller", answer("controller", "controller", elected))
    monitor = start_monitor()
    at = {"topic": "sensors", "partition": "1"}
    assert monitor.value("kafka_topic_partition_replicas", **at) == 3
    assert monitor.value("kafka_topic_partition_in_sync_replica", **at) == 1
    assert monitor.value("kafka_topic_partition_under_replicated_partition", **at) == 1
    assert monitor.value("kafka_cluster_partition_underminisr", **at) == 1
    assert monitor.value("kafka_topic_partition_leader_is_preferred", **at) == 0
    assert monitor.value("forebay_follower_lag_records", **at, broker="2") == 40
    assert monitor.value("forebay_follower_lag_seconds", **at, broker="2") == 2.5
    assert monitor.value("forebay_follower_lag_records", **at, broker="3") == -1
    assert monitor.value("kafka_server_replicamanager_partitioncount", broker="1") == 4
    assert monitor.value("kafka_server_replicamanager_leadercount", broker="1") == 1
    assert monitor.value("kafka_server_replicamanager_isrshrinks_total", broker="1") == 2
    assert monitor.value("kafka_server_replicamanager_isrexpands_total", broker="1") == 1
    assert monitor.value("forebay_offline_replicas", broker="1") == 1
    assert monitor.value("forebay_refills_total", broker="1") == 3
    assert monitor.value("forebay_quota_bytes_total", quota="fetch") == 70
    assert monitor.value("forebay_quota_throttled_total", quota="fetch") == 4
    assert monitor.value("forebay_quota_throttle_seconds_total", quota="fetch") == 1.5
    assert monitor.value("forebay_quota_bytes_total", quota="produce") == 0
    assert monitor.value("forebay_quota_clients", broker="1", quota="fetch") == 2
    assert monitor.value("forebay_leader_elections_total", reason="broker_death") == 5
    assert monitor.value("kafka_controller_controllerstats_uncleanleaderelections_total") == 1
    assert monitor.value("kafka_controller_kafkacontroller_preferredreplicaimbalancecount") == 1


def test_ready_while_all_is_well_and_each_trouble_is_a_reason(appliance: FakeAppliance, start_monitor: Start) -> None:
    healthy(appliance)
    monitor = start_monitor(expected=["broker-1", "broker-2"])
    until(lambda: monitor.ready() == (200, []))
    for changes, words in (
        ({"directory_failed": True}, "log directory failed"),
        ({"disk_full": True, "disk_free_bytes": 10**7}, "disk is full"),
        ({"registered": False}, "not registered"),
        ({"leaderless": 1, "metadata_version": 10**6}, "1 partitions have no leader"),
    ):
        appliance.say("broker-2", answer("broker-2", "broker", broker(2, **changes)))
        until(lambda: monitor.ready()[0] == 503)
        (reason,) = monitor.ready()[1]
        assert words in reason
        healthy(appliance)
        until(lambda: monitor.ready() == (200, []))
    appliance.say("broker-1", answer("broker-1", "broker", broker(1), state="starting"))
    until(lambda: monitor.ready() == (503, ["broker-1 is starting"]))
    assert monitor.get("/livez") == (200, "ok\n")


def test_partitions_that_other_machines_lead_are_not_missed(appliance: FakeAppliance, start_monitor: Start) -> None:
    healthy(appliance)
    appliance.say("broker-2", answer("broker-2", "broker", broker(2, partitions=[])))
    monitor = start_monitor(expected=["broker-1", "broker-2"])
    until(lambda: monitor.ready() == (200, []))
    assert monitor.value("kafka_controller_kafkacontroller_offlinepartitionscount") == 0


def test_a_killed_process_breaks_nothing_and_its_counts_stay(appliance: FakeAppliance, start_monitor: Start) -> None:
    healthy(appliance)
    monitor = start_monitor()
    assert monitor.value("kafka_server_brokertopicmetrics_messagesin_total", topic="sensors") == 200
    appliance.kill("broker-2")
    until(lambda: monitor.ready()[0] == 503)
    assert any("broker-2 does not answer" in reason for reason in monitor.ready()[1])
    assert monitor.value("kafka_server_brokertopicmetrics_messagesin_total", topic="sensors") == 200
    assert monitor.value("forebay_process_up", process="broker-2", role="") == 0
    again = broker(2, records_in_total={"sensors": 3}, requests_total={})
    appliance.say("broker-2", answer("broker-2", "broker", again, incarnation=2))
    until(lambda: monitor.ready()[0] == 200)
    assert monitor.value("kafka_server_brokertopicmetrics_messagesin_total", topic="sensors") == 203
    assert monitor.value("forebay_process_restarts_total", process="broker-2") == 1
    assert monitor.value("forebay_requests_total", request="Produce") == 20


def test_the_balance_holds_over_the_death_of_a_gateway(appliance: FakeAppliance, start_monitor: Start) -> None:
    healthy(appliance)
    monitor = start_monitor()

    def balance() -> tuple[int, int, int, int, int]:
        stats = monitor.lifeline.stats
        assert stats is not None
        one = stats().balance.get("mqtt")  # type: ignore[attr-defined]
        return (one.received, one.acknowledged, one.refused, one.in_flight, one.appended) if one else (0, 0, 0, 0, 0)

    until(lambda: balance() == (10, 7, 1, 2, 7))
    appliance.kill("mqtt")
    until(lambda: monitor.ready()[0] == 503)
    assert balance() == (10, 7, 1, 2, 7)
    appliance.say("mqtt", answer("mqtt", "gateway", gateway(5, 4), incarnation=2))
    until(lambda: balance() == (15, 11, 3, 1, 11))
    received, acknowledged, refused, in_flight, appended = balance()
    assert received == acknowledged + refused + in_flight
    assert appended >= acknowledged
    assert monitor.value("forebay_gateway_refused_total", input="mqtt") == 3
    assert monitor.value("forebay_gateway_unanswered_total", input="mqtt") == 2
    assert monitor.value("forebay_gateway_events_total", input="mqtt", event="takeovers") == 0


@pytest.mark.parametrize(
    "line",
    [b"", b"{]\n", b"null\n", b'{"name":"x"}\n', answer("broker-2", "broker", {"a": 1})],
    ids=["nothing", "no JSON", "null", "another's", "other stats"],
)
def test_garbage_from_one_process_leaves_the_others_visible(
    line: bytes, appliance: FakeAppliance, start_monitor: Start
) -> None:
    healthy(appliance)
    appliance.say("broker-2", line)
    monitor = start_monitor(expected=["broker-1", "broker-2"])
    assert monitor.value("kafka_brokers") == 1
    assert any("broker-2" in reason for reason in monitor.ready()[1])


def test_what_serving_does_not_need_may_be_dead_or_left_over(appliance: FakeAppliance, start_monitor: Start) -> None:
    healthy(appliance)
    appliance.say("supervisor", answer("supervisor", "supervisor", None))
    (appliance.run_dir / "broker-9.ctl").touch()  # of an appliance that once had more brokers
    appliance.say("mqtt", answer("mqtt", "gateway", None))
    monitor = start_monitor()
    until(lambda: monitor.ready() == (200, []))
    appliance.kill("supervisor")
    until(lambda: monitor.value("forebay_process_up", process="supervisor", role="") == 0)
    assert monitor.ready() == (200, [])


def test_topics_beyond_the_cap_are_one(appliance: FakeAppliance, start_monitor: Start) -> None:
    many = [partition(f"topic-{index:02}") for index in range(20)]
    counts = {one.topic: 1 for one in many}
    appliance.say("broker-1", answer("broker-1", "broker", broker(1, partitions=many, records_in_total=counts)))
    metrics = start_monitor(topics_max=5).metrics()
    name = "kafka_server_brokertopicmetrics_messagesin_total"
    assert sum(1 for found, _ in metrics if found == name) == 6
    assert metrics[name, (("topic", "_other"),)] == 15
    assert metrics["forebay_topics_without_metrics", ()] == 15
    assert sum(1 for found, _ in metrics if found == "kafka_log_log_size") == 5


def test_pages_escape_names_and_errors_are_plain(appliance: FakeAppliance, start_monitor: Start) -> None:
    appliance.say("broker-1", answer("broker-1", "broker", broker(1, partitions=[partition("<script>x</script>")])))
    monitor = start_monitor()
    monitor.ready()
    status, page = monitor.get("/")
    assert status == 200
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert monitor.get("/nothing")[0] == 404
    assert monitor.get("/../../etc/passwd")[0] == 404
    with socket.create_connection(("127.0.0.1", monitor.port), timeout=5) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nX-Big: " + b"x" * 40_000)  # and the header never ends
        assert peer.recv(100).startswith(b"HTTP/1.1 400")
    assert monitor.get("/livez") == (200, "ok\n")


def test_openmetrics_is_spoken_to_those_who_ask_for_it(appliance: FakeAppliance, start_monitor: Start) -> None:
    healthy(appliance)
    status, text = start_monitor().get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert text.endswith("# EOF\n")


def test_no_appliance_is_not_ready_but_served(start_monitor: Start) -> None:
    monitor = start_monitor(expected=["broker-1"])
    assert monitor.ready() == (503, ["broker-1 is not there", "no broker answers"])
    assert monitor.value("kafka_brokers") == 0


def test_connections_that_send_no_head_shut_no_one_out(start_monitor: Start) -> None:
    monitor = start_monitor()
    idle = [socket.create_connection(("127.0.0.1", monitor.port), timeout=5) for _ in range(300)]
    try:
        for peer in idle[::2]:
            with contextlib.suppress(OSError):
                peer.sendall(b"GET /livez HTT")
        for _ in range(3):
            assert monitor.get("/livez") == (200, "ok\n")
    finally:
        for peer in idle:
            peer.close()


def test_a_head_that_does_not_end_is_given_up(start_monitor: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS_MAX", 0.2)
    monitor = start_monitor()
    with socket.create_connection(("127.0.0.1", monitor.port), timeout=10) as peer:
        peer.sendall(b"GET /livez HTTP/1.1\r\nHost: ")
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(100) == b""
    with socket.create_connection(("127.0.0.1", monitor.port), timeout=10) as peer:
        peer.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        answer_bytes = peer.recv(1000)
        with contextlib.suppress(ConnectionResetError):
            while more := peer.recv(1000):  # until it is given up as well, for it asks nothing more
                answer_bytes += more
        assert answer_bytes.startswith(b"HTTP/1.1 200")


def test_a_taken_port_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"HTTP port {port} .* another program uses it.*--http-port"):
            run(MonitorConfig(run_dir="/nowhere", http_port=port), FakeLifeline())
