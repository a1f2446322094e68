"""The first Grafana dashboard, as code; `python -m ops.dashboards.overview` writes its JSON anew.

The data source is a template variable, so the file fits any Grafana. Every query is asked of a real Prometheus in
tests/ops/dashboards.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = Path(__file__).parent / "grafana" / "provisioning" / "dashboards" / "forebay-overview.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TOPIC = 'topic=~"$topic"'
_WIDTH, _HEIGHT = 24, 8


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and the legend of its lines."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    unit: str
    queries: tuple[Query, ...]
    text: str = ""
    kind: str = "timeseries"
    width: int = 8


def _rate(counter: str, by: str, selector: str = "") -> str:
    return f"sum by ({by}) (rate({counter}{{{selector}}}[$__rate_interval]))"


def _quantile(quantile: float, histogram: str, selector: str = "") -> str:
    return f"histogram_quantile({quantile:g}, {_rate(f'{histogram}_bucket', 'le', selector)})"


_IN_TOPIC = "kafka_server_brokertopicmetrics"
_PRODUCE = 'request="Produce"'

ROWS: dict[str, tuple[Panel, ...]] = {
    "At a glance": (
        Panel("Ready", "bool_yes_no", (Query("forebay_ready", "ready"),), "acks=all would succeed", "stat", 3),
        Panel("Brokers", "none", (Query("kafka_brokers", "brokers"),), kind="stat", width=3),
        Panel(
            "Offline partitions",
            "none",
            (Query("kafka_controller_kafkacontroller_offlinepartitionscount", "offline"),),
            kind="stat",
            width=3,
        ),
        Panel(
            "Active controllers",
            "none",
            (Query("kafka_controller_kafkacontroller_activecontrollercount", "controllers"),),
            kind="stat",
            width=3,
        ),
        Panel(
            "Records in",
            "cps",
            (Query(f"sum(rate({_IN_TOPIC}_messagesin_total[$__rate_interval]))", "in"),),
            "",
            "stat",
            4,
        ),
        Panel(
            "Produce p95",
            "s",
            (Query(_quantile(0.95, "forebay_request_duration_seconds", _PRODUCE), "p95"),),
            kind="stat",
            width=4,
        ),
        Panel("Disk free", "bytes", (Query("min(forebay_disk_free_bytes)", "free"),), kind="stat", width=4),
    ),
    "Throughput": (
        Panel(
            "Records in by topic", "cps", (Query(_rate(f"{_IN_TOPIC}_messagesin_total", "topic", TOPIC), "{{topic}}"),)
        ),
        Panel(
            "Bytes in and out",
            "Bps",
            (
                Query(f"sum(rate({_IN_TOPIC}_bytesin_total{{{TOPIC}}}[$__rate_interval]))", "in"),
                Query(f"sum(rate({_IN_TOPIC}_bytesout_total{{{TOPIC}}}[$__rate_interval]))", "out"),
            ),
            "Out counts what brokers sent; readers of the mapping take theirs unseen.",
        ),
        Panel(
            "Inputs",
            "cps",
            (
                Query(_rate("forebay_gateway_received_total", "input"), "{{input}} received"),
                Query(_rate("forebay_gateway_acknowledged_total", "input"), "{{input}} acknowledged"),
                Query(_rate("forebay_gateway_refused_total", "input"), "{{input}} refused"),
            ),
            "received = acknowledged + refused + in flight",
        ),
        Panel(
            "Produce latency",
            "s",
            tuple(
                Query(_quantile(q, "forebay_request_duration_seconds", _PRODUCE), f"p{q * 100:g}")
                for q in (0.5, 0.95, 0.99)
            ),
        ),
        Panel(
            "Requests",
            "reqps",
            (Query(_rate("forebay_requests_total", "request"), "{{request}}"),),
            "Taken by brokers.",
        ),
        Panel(
            "Trouble",
            "cps",
            (
                Query(
                    "sum by (error) (rate(forebay_produce_errors_total[$__rate_interval])) or vector(0)", "{{error}}"
                ),
                Query(_rate("forebay_bad_input_total", "reason"), "{{reason}}"),
            ),
            "Batches refused, malformed messages, corrupt batches.",
        ),
    ),
    "Lag": (
        Panel(
            "Behind the log end",
            "short",
            (
                Query(
                    f"sum by (topic) (kafka_log_log_logendoffset{{{TOPIC}}}"
                    f" - kafka_topic_partition_current_offset{{{TOPIC}}})",
                    "{{topic}}",
                ),
            ),
            "Records appended that readers may not see yet: they wait for the flush.",
        ),
        Panel(
            "Not yet flushed",
            "bytes",
            (Query("sum by (broker) (forebay_unflushed_bytes)", "broker {{broker}}"),),
            "What a power cut now would take.",
        ),
        Panel(
            "Inputs waiting for the log",
            "short",
            (Query("sum by (input) (forebay_gateway_in_flight)", "{{input}}"),),
            "Received, and neither acknowledged nor refused.",
        ),
    ),
    "Consumer groups": (
        Panel(
            "Behind by records",
            "short",
            (
                Query(
                    f"sum by (consumergroup, topic) (kafka_consumergroup_lag{{{TOPIC}}})",
                    "{{consumergroup}} {{topic}}",
                ),
            ),
            "Below the high watermark and not committed; of all partitions.",
        ),
        Panel(
            "Behind by time",
            "s",
            (
                Query(
                    f"max by (consumergroup, topic) (forebay_consumer_lag_seconds{{{TOPIC}}})",
                    "{{consumergroup}} {{topic}}",
                ),
            ),
            "For how long the oldest record not read has been in the log; the worst partition.",
        ),
        Panel(
            "Members",
            "none",
            (Query("kafka_consumergroup_members", "{{consumergroup}}"),),
        ),
        Panel(
            "Committed",
            "cps",
            (
                Query(
                    "sum by (consumergroup, topic)"
                    f" (rate(kafka_consumergroup_current_offset{{{TOPIC}}}[$__rate_interval]))",
                    "{{consumergroup}} {{topic}}",
                ),
            ),
            "How fast groups go on; a step down is somebody who moved it.",
            width=12,
        ),
        Panel(
            "Rebalances",
            "cps",
            (
                Query("sum(rate(forebay_consumergroup_rebalances_total[$__rate_interval]))", "begun"),
                Query(_rate("forebay_consumergroup_members_lost_total", "reason"), "lost: {{reason}}"),
            ),
            "Members that come, go, or are lost make the others share anew.",
            width=12,
        ),
    ),
    "Kafka clients": (
        Panel(
            "Requests",
            "reqps",
            (Query(_rate("kafka_network_requestmetrics_requests_total", "request"), "{{request}}"),),
        ),
        Panel(
            "Duration",
            "s",
            tuple(
                Query(_quantile(0.99, "forebay_kafka_request_duration_seconds", f'request="{api}"'), f"{api} p99")
                for api in ("Produce", "Fetch")
            ),
            "At the gateway. A Fetch waits for news, for half a second or so where there are none.",
        ),
        Panel(
            "Errors",
            "cps",
            (Query(_rate("kafka_network_requestmetrics_errors_total", "request, error"), "{{request}} {{error}}"),),
            "What clients were answered; some of it is ordinary, as NOT_LEADER_OR_FOLLOWER after a move.",
        ),
        Panel(
            "Connections",
            "none",
            (Query("kafka_server_socket_server_metrics_connection_count", "{{networkprocessor}}"),),
        ),
        Panel(
            "Bytes",
            "Bps",
            (
                Query("sum(rate(kafka_server_socket_server_metrics_incoming_byte_total[$__rate_interval]))", "in"),
                Query("sum(rate(kafka_server_socket_server_metrics_outgoing_byte_total[$__rate_interval]))", "out"),
            ),
        ),
        Panel(
            "Records sent",
            "cps",
            (Query("rate(forebay_kafka_records_fetched_total[$__rate_interval])", "records"),),
            "Those that come in are in the row of inputs.",
        ),
    ),
    "Brokers": (
        Panel(
            "Partitions led",
            "none",
            (Query("kafka_server_replicamanager_leadercount", "broker {{broker}}"),),
        ),
        Panel(
            "Flush",
            "s",
            tuple(Query(_quantile(q, "forebay_flush_duration_seconds"), f"p{q * 100:g}") for q in (0.5, 0.99)),
            "Duration of a group commit.",
        ),
        Panel("Disk free", "bytes", (Query("forebay_disk_free_bytes", "broker {{broker}}"),)),
        Panel(
            "CPU",
            "percentunit",
            (Query(_rate("forebay_process_cpu_seconds_total", "process"), "{{process}}"),),
            "1 is a whole core.",
        ),
        Panel(
            "Memory",
            "bytes",
            (Query("forebay_process_resident_memory_bytes", "{{process}}"),),
            "Pages of the mapped log included.",
        ),
        Panel("Restarts", "none", (Query("forebay_process_restarts_total", "{{process}}"),)),
        Panel("Log size", "bytes", (Query(f"sum by (topic) (kafka_log_log_size{{{TOPIC}}})", "{{topic}}"),), width=12),
        Panel("Processes", "bool_on_off", (Query("forebay_process_up", "{{process}}"),), width=12),
    ),
}


def build() -> dict[str, Any]:
    """Return the dashboard as Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _position(0, y, _WIDTH, 1)}
        )
        y += 1
        x = 0
        height = 4 if row[0].kind == "stat" else _HEIGHT
        for panel in row:
            if x + panel.width > _WIDTH:
                x, y = 0, y + height
            panels.append(_panel(panel, _position(x, y, panel.width, height)))
            x += panel.width
        y += height
    for number, item in enumerate(panels, 1):
        item["id"] = number
    return {
        "uid": "forebay-overview",
        "title": "Forebay",
        "tags": ["forebay"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
                {
                    "name": "topic",
                    "type": "query",
                    "label": "Topic",
                    "datasource": DATASOURCE,
                    "query": {"query": "label_values(kafka_topic_partitions, topic)", "refId": "topic"},
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": panels,
    }


def _position(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel, position: dict[str, int]) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": DATASOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
            }
            for number, query in enumerate(panel.queries)
        ],
    }


def render() -> str:
    """Return the dashboard's file."""
    return json.dumps(build(), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(render())
