"""What the demo shows while it runs: a live panel on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import Any, TextIO

import msgspec

LIVE_SECONDS = 0.25
PLAIN_SECONDS = 2.0
RATE_SECONDS = 2.0
EVENTS_SHOWN = 6


class Snapshot(msgspec.Struct, kw_only=True):
    """Everything that is shown, at one moment; times in seconds, counts since the start."""

    elapsed_s: float = 0.0
    duration_s: float = 0.0
    devices: int = 0
    connected: int = 0
    published: int = 0
    acknowledged: int = 0
    read_back: int = 0
    duplicates: int = 0
    lag: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    balance: dict[str, Any] = {}
    processes: list[tuple[str, str, int]] = []
    restarts: int = 0
    kills: int = 0
    anomalies: dict[str, int] = {}


class Rates:
    """Changes a second over the last seconds."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, int, int, int]] = deque()

    def add(self, snapshot: Snapshot) -> tuple[float, float, float]:
        """Return (published, acknowledged, read back) per second."""
        now = (snapshot.elapsed_s, snapshot.published, snapshot.acknowledged, snapshot.read_back)
        self._past.append(now)
        while len(self._past) > 2 and now[0] - self._past[0][0] > RATE_SECONDS:
            self._past.popleft()
        then = self._past[0]
        seconds = max(now[0] - then[0], 1e-9)
        return (now[1] - then[1]) / seconds, (now[2] - then[2]) / seconds, (now[3] - then[3]) / seconds


class View:
    """Show snapshots and events. Use it as a context manager. Thread: the demo's."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._rates = Rates()
        self._shown_s = 0.0
        self._events: deque[str] = deque(maxlen=EVENTS_SHOWN)
        self._live: Any = None

    def __enter__(self) -> View:
        if self._out.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self._out), auto_refresh=False, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)
            self._live = None

    def event(self, text: str) -> None:
        """Tell of something that happened."""
        stamped = f"{time.strftime('%H:%M:%S')} {text}"
        if self._live is None:
            print(stamped, file=self._out, flush=True)
        else:
            self._events.append(stamped)

    def show(self, snapshot: Snapshot, *, now: bool = False) -> None:
        """Show it, if it is time for the next."""
        rates = self._rates.add(snapshot)
        period = PLAIN_SECONDS if self._live is None else LIVE_SECONDS
        if not now and snapshot.elapsed_s - self._shown_s < period:
            return
        self._shown_s = snapshot.elapsed_s
        if self._live is None:
            print(plain_line(snapshot, rates), file=self._out, flush=True)
        else:
            self._live.update(_panel(snapshot, rates, list(self._events)), refresh=True)


def plain_line(snapshot: Snapshot, rates: tuple[float, float, float]) -> str:
    """Return one line that says how it goes."""
    found = sum(snapshot.anomalies.values())
    return (
        f"{snapshot.elapsed_s:5.0f} s  published {snapshot.published:,} ({rates[0]:,.0f}/s)  "
        f"acknowledged {snapshot.acknowledged:,} ({rates[1]:,.0f}/s)  read back {snapshot.read_back:,}  "
        f"lag {snapshot.lag:,}  PUBACK p50 {snapshot.p50_ms:.1f} ms p99 {snapshot.p99_ms:.1f} ms  "
        f"restarts {snapshot.restarts}  anomalies {found}"
    )


def _panel(snapshot: Snapshot, rates: tuple[float, float, float], events: list[str]) -> Any:
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    flow = Table.grid(padding=(0, 3))
    for justify in ("left", "right", "right", "left"):
        flow.add_column(justify=justify)
    flow.add_row("devices", f"{snapshot.connected:,}", "", f"of {snapshot.devices:,} connected over MQTT")
    flow.add_row("published", f"{snapshot.published:,}", f"{rates[0]:,.0f}/s", "QoS 1")
    flow.add_row(
        "acknowledged",
        f"{snapshot.acknowledged:,}",
        f"{rates[1]:,.0f}/s",
        f"PUBACK after the disk has it: p50 {snapshot.p50_ms:.1f} ms, p99 {snapshot.p99_ms:.1f} ms",
    )
    flow.add_row(
        "read back",
        f"{snapshot.read_back:,}",
        f"{rates[2]:,.0f}/s",
        f"numpy on the mapped log; lag {snapshot.lag:,}, duplicates {snapshot.duplicates:,}",
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in snapshot.anomalies.items())
    flow.add_row("anomalies", f"{sum(snapshot.anomalies.values()):,}", "", kinds)
    lines: list[Any] = [flow, Text("")]
    if snapshot.balance:
        b = snapshot.balance
        text = (
            f"gateway  received {b['received']:,} = acknowledged {b['acknowledged']:,} + refused {b['refused']:,}"
            f" + in flight {b['in_flight']:,}"
        )
        lines.append(Text(text, style="bold"))
    running = [
        f"{name} {state}" + (f" (restarts {restarts})" if restarts else "")
        for name, state, restarts in snapshot.processes
    ]
    lines += [Text("   ".join(running), style="dim"), Text("")]
    lines += [Text(event) for event in events]
    duration = f" of {snapshot.duration_s:.0f}" if snapshot.duration_s else ""
    title = f"Forebay demo, {snapshot.elapsed_s:.0f}{duration} s, Ctrl-C ends it"
    return Panel(Group(*lines), title=title)
