"""How the demo ends: what was promised, what was kept, and what to try next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from ops.demo.chaos import KINDS, LEADER, Kill
from ops.demo.fleet import FleetReport
from ops.demo.tally import Verdict


def summary_lines(
    verdict: Verdict,
    fleet: FleetReport,
    found: dict[str, int],
    kills: list[Kill] | None,
    restarts: int,
    elections: int,
    problems: list[str],
    seconds: float,
) -> list[str]:
    """Return the report.

    Args:
        kills: None: none were wanted.
        elections: Leaders of partitions elected since the topic was made.
    """
    rate = verdict.acknowledged / max(seconds, 1e-9)
    lines = [
        f"published                {verdict.published:>10,}",
        f"acknowledged by PUBACK   {verdict.acknowledged:>10,}   {rate:,.0f}/s, each on disk before its PUBACK",
        f"read back                {verdict.read_back:>10,}",
        f"lost                     {verdict.lost:>10,}   acknowledged and not read back",
        f"duplicates               {verdict.duplicates:>10,}   explained by {fleet.resent:,} resends",
        f"PUBLISH to PUBACK        p50 {fleet.p50_ms:.1f} ms, p99 {fleet.p99_ms:.1f} ms, max {fleet.max_ms:.0f} ms",
        f"longest without PUBACK   {fleet.gap_max_ms:>7.0f} ms   of all devices together",
    ]
    injected = ", ".join(f"{fleet.faults.get(kind, 0)} {kind}" for kind in found)
    detected = ", ".join(f"{count} {kind}" for kind, count in found.items())
    lines.append(f"anomalies                detected {detected}; simulated {injected}")
    if kills is not None:
        by_kind = [(kind, [kill for kill in kills if kill.kind == kind]) for kind in KINDS]
        counts = ", ".join(f"{len(these)} {kind}{'s' * (len(these) != 1)}" for kind, these in by_kind)
        lines.append(f"killed                   {len(kills):>10}   {counts}; {restarts} restarts")
        lines.append(f"leaders elected          {elections:>10}")
        for kind, these in by_kind:
            times = sorted(kill.recovered_s for kill in these if kill.recovered_s is not None)
            until = "a newly written record read back" if kind == LEADER else "another in its place"
            if these:
                took = ", ".join(f"{seconds * 1000:.0f} ms" for seconds in times) or "none seen"
                lines.append(f"{kind + 's back after':<24} {took}   (from SIGKILL to {until})")
    if verdict.unexplained:
        lines.append(f"NOT EXPLAINED            {verdict.unexplained:>10,}   read more often than sent, or never sent")
    if verdict.out_of_order:
        lines.append(f"OUT OF ORDER             {verdict.out_of_order:>10,}")
    if fleet.skipped:
        lines.append(f"not measured             {fleet.skipped:>10,}   devices were full and waited")
    return lines + [f"  {text}" for text in (*verdict.examples, *problems[:5])]


def verdict_line(verdict: Verdict, problems: list[str]) -> str:
    """Return the last word."""
    if not verdict.acknowledged:
        return "Nothing was acknowledged: there is nothing to show."
    if verdict.holds and not problems:
        return "Everything acknowledged was read back, in each device's order."
    return "A PROMISE WAS BROKEN: please report it with the lines above."


def next_lines(data_dir: Path | None) -> list[str]:
    """Return commands that work when they are pasted.

    Args:
        data_dir: The directory that is still there; None: it was temporary.
    """
    program = _program()
    kept = data_dir is not None
    where = shlex.quote(str(data_dir)) if kept else "./forebay-data"
    topic = "mqtt" if kept else "sensors"
    lines = [
        "Try next:",
        f"  export FOREBAY_DATA_DIR={where}",
        f"  {program} up --detach --mqtt-port 0 --kafka-port 0 --http-port 0",
    ]
    if not kept:
        lines += [
            f"  {program} topic create sensors -p 3",
            f"  echo 'dev-17 21.5' | {program} topic produce sensors -f '%k %v\\n'",
        ]
    return [
        *lines,
        f"  {program} topic consume {topic} -n 1 --format json",
        f"  {program} status",
        f"  {program} log verify {where}",
        f"  {program} down",
        "And kill brokers, controllers and gateways while devices publish:",
        f"  {program} demo --chaos --duration 60",
    ]


def _program() -> str:
    """Return how this program is called here."""
    if shutil.which("forebay"):
        return "forebay"
    own = Path(sys.executable).with_name("forebay")
    if not own.exists():
        return f"{shlex.quote(sys.executable)} -m ops.cli.main"
    relative = os.path.relpath(own)
    return shlex.quote(relative if not relative.startswith("..") else str(own))
