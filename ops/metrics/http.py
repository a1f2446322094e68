"""The HTTP side: /metrics, /livez, /readyz, and a page for people. It reads, and never changes anything."""

from __future__ import annotations

import html
import importlib.metadata
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ops.metrics.cleaner_families import cleaner_families
from ops.metrics.families import broker_families, controller_families, gateway_families, topic_families
from ops.metrics.group_families import group_families
from ops.metrics.group_watch import GroupProgress
from ops.metrics.kafka_families import kafka_families
from ops.metrics.observer import Observer
from ops.metrics.processes import process_families
from ops.metrics.view import View

_REFRESH_SECONDS = 5
_FAMILIES = (
    topic_families,
    group_families,
    broker_families,
    cleaner_families,
    controller_families,
    gateway_families,
    kafka_families,
    process_families,
)

Row = tuple[object, ...]


class ViewCollector(Collector):
    """Turn one view into metric families."""

    def __init__(self, view: View, *, ready: bool, version: str, cluster_id: str) -> None:
        self._view = view
        self._ready = ready
        self._version = version
        self._cluster_id = cluster_id

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("forebay_build_info", "The version that runs.", labels=["version", "cluster_id"])
        build.add_metric([self._version, self._cluster_id], 1)
        yield build
        yield GaugeMetricFamily("forebay_ready", "1 while acks=all would succeed.", value=float(self._ready))
        for families in _FAMILIES:
            yield from families(self._view)


def make_app(observer: Observer, cluster_id: str) -> Starlette:
    """Build the application over one observer."""
    version = importlib.metadata.version("forebay")

    async def metrics(request: Request) -> Response:
        view = await observer.look()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(
            ViewCollector(view, ready=not observer.reasons, version=version, cluster_id=cluster_id),
        )
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        await observer.look()
        why = observer.reasons
        return JSONResponse({"ready": not why, "reasons": why}, status_code=503 if why else 200)

    async def page(request: Request) -> Response:
        return HTMLResponse(status_page(await observer.look(), observer.reasons), headers=_PAGE_HEADERS)

    async def error(request: Request, problem: Exception) -> Response:
        code = problem.status_code if isinstance(problem, HTTPException) else 500
        text = problem.detail if isinstance(problem, HTTPException) else "internal error; see the monitor's log"
        return JSONResponse({"error_code": code, "message": text}, status_code=code)

    return Starlette(
        routes=[
            Route("/", page, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
            Route("/livez", livez, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
        ],
        exception_handlers={HTTPException: error, Exception: error},
    )


_INPUT_COLUMNS = ["input", "received", "acknowledged", "refused", "of those unanswered", "in flight", "appended"]
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def status_page(view: View, why: list[str]) -> str:
    """Write the page: readiness, processes, inputs, topics. Everything that came from outside is escaped."""
    processes: list[Row] = [
        (p.name, p.role, p.state, p.pid, f"{p.uptime_s:.0f} s", view.restarts.get(p.name, 0)) for p in view.processes
    ]
    processes += [(silence.name, "", "silent", "", silence.reason, "") for silence in view.silent]
    inputs: list[Row] = [
        (name, b.received, b.acknowledged, b.refused, b.unanswered, b.in_flight, b.appended)
        for name, b in sorted(view.balance.items())
    ]
    topics: list[Row] = [
        (
            led.stats.topic,
            led.stats.partition,
            led.broker,
            led.stats.log_start_offset,
            led.stats.high_watermark,
            led.stats.size_bytes,
        )
        for led in view.partitions
    ]
    state = "ready" if not why else "not ready"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Forebay</title>",
        f"<meta http-equiv=refresh content={_REFRESH_SECONDS}>",
        "<style>body{font:14px sans-serif;margin:2em}td,th{padding:.2em 1em .2em 0;text-align:left}</style>",
        f"<h1>Forebay: {state}</h1>",
        "".join(f"<p>{html.escape(reason)}</p>" for reason in why),
        _table("Processes", ["name", "role", "state", "pid", "up", "restarts"], processes),
        _table("Inputs", _INPUT_COLUMNS, inputs),
        _table(
            "Groups",
            ["group", "state", "members", "partitions", "lag", "seconds"],
            list(map(_group_row, view.groups.groups)),
        ),
        _table("Topics", ["topic", "partition", "leader", "start", "high watermark", "bytes"], topics),
        '<p><a href="/metrics">metrics</a> <a href="/readyz">readiness</a></p></html>\n',
    ]
    return "\n".join(parts)


def _group_row(group: GroupProgress) -> Row:
    """Return a group with its lag over all partitions, and for how long the oldest record has waited for it."""
    records = sum(item.lag_records or 0 for item in group.partitions)
    seconds = max((item.lag_seconds or 0.0 for item in group.partitions), default=0.0)
    return group.group, group.state, group.members, len(group.partitions), records, f"{seconds:.1f}"


def _table(title: str, columns: list[str], rows: list[Row]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{head}</tr>{body}</table>"
