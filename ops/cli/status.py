"""`forebay status`: what runs, where it listens, what became of what came in."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from shlex import quote
from typing import Any

import click
import msgspec

from ingest.errors import ForebayError
from ops.cli.found import Found, find
from ops.cli.options import data_dir_option
from ops.cli.reached import REFUSED, UNREACHED, format_option, print_table, reported
from ops.metrics.stats import MonitorStats
from ops.supervisor.compose import MONITOR
from ops.supervisor.control_client import ask, decode_identity
from ops.supervisor.control_server import SUFFIX

MONITOR_TIMEOUT_S = 3.0
LISTENERS = ("mqtt", "kafka", "http")


@click.command()
@data_dir_option
@format_option
@click.pass_context
def status(ctx: click.Context, data_dir: Path, form: str) -> None:
    """Show what runs.

    \b
    Exit codes: 0 ready, 1 not ready, 3 nothing runs.
    """
    with reported():
        found = find(data_dir)
        answer = describe(found)
    if form == "json":
        click.echo(json.dumps(answer))
    else:
        _print(answer, found)
    if not answer["ready"]:
        ctx.exit(REFUSED if found.runs else UNREACHED)


def describe(found: Found) -> dict[str, Any]:
    """Return what `--format json` prints."""
    reasons: list[str] = []
    processes: list[dict[str, Any]] = []
    ports: dict[str, int | None] = dict.fromkeys(LISTENERS)
    balance: dict[str, Any] = {}
    ready = False
    if found.status is not None:
        supervisor = found.status
        processes = [msgspec.to_builtins(process) for process in supervisor.processes]
        ports |= supervisor.ports
        reasons += [_lacking(process) for process in processes if process["state"] not in ("running", "stopped")]
        monitor = _ask_monitor(found, supervisor.addresses.get("http", ""))
        if monitor is not None:
            balance = msgspec.to_builtins(monitor.balance)
            reasons += monitor.reasons
        ready = supervisor.ready and monitor is not None and monitor.ready
        if supervisor.stopping:
            reasons = ["it is stopping"]
        elif not ready and not reasons:
            reasons.append("the monitor does not answer" if monitor is None else "not every process serves yet")
    elif found.locked:
        reasons.append("the supervisor does not answer")
    elif found.orphans:
        reasons.append(f"the supervisor has gone; its processes go on, take them over with: {_up(found)}{SAME_FLAGS}")
        assert found.appliance is not None
        ports |= found.appliance.ports
        processes = [
            {"name": p.name, "role": p.role, "pid": p.pid, "state": "running", "restarts": p.restarts, "ready": False}
            for p in found.orphans
        ]
    else:
        reasons.append(f"no appliance runs on {found.data_dir}; start one with: {_up(found)}")
    return {
        "ready": ready,
        "reasons": list(dict.fromkeys(reasons)),
        "processes": processes,
        "ports": ports,
        "balance": balance,
        "data_dir": str(found.data_dir),
        "supervisor": found.owner.pid if found.locked and found.owner else None,
        "uptime_s": found.status.uptime_s if found.status else None,
    }


SAME_FLAGS = ", and the flags it was started with"  # by others, processes are ended and started anew


def _up(found: Found) -> str:
    return f"forebay up --data-dir {quote(str(found.data_dir))}"


def _lacking(process: dict[str, Any]) -> str:
    return f"{process['name']} is {process['state']}" + (f": {process['reason']}" if process["reason"] else "")


def _ask_monitor(found: Found, address: str) -> MonitorStats | None:
    """Have the monitor look at everything now, then ask it what it saw."""
    assert found.run_dir is not None
    with contextlib.suppress(OSError, ForebayError, msgspec.DecodeError):
        _make_it_look(address)
        line = ask(found.run_dir / f"{MONITOR}{SUFFIX}", "stats", timeout_s=MONITOR_TIMEOUT_S)
        return msgspec.json.decode(decode_identity(line).stats, type=MonitorStats)
    return None


def _make_it_look(address: str) -> None:
    """GET /readyz makes the monitor ask every process; else what it says may be seconds old."""
    host, _, port = address.rpartition(":")
    if host in ("0.0.0.0", "::", "[::]", ""):
        host = "127.0.0.1"
    with socket.create_connection((host.strip("[]"), int(port or 0)), MONITOR_TIMEOUT_S) as peer:
        peer.settimeout(MONITOR_TIMEOUT_S)
        peer.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while peer.recv(1 << 14):
            pass


def _print(answer: dict[str, Any], found: Found) -> None:
    if not found.runs:
        click.echo(answer["reasons"][0])
        return
    click.echo(f"{'ready' if answer['ready'] else 'not ready'}   {found.data_dir}")
    for reason in answer["reasons"]:
        click.echo(f"  {reason}")
    click.echo()
    rows = [(p["name"], p["role"], p["pid"] or "-", p["state"], p["restarts"]) for p in answer["processes"]]
    print_table(("PROCESS", "ROLE", "PID", "STATE", "RESTARTS"), rows)
    addresses = found.status.addresses if found.status else {}
    if addresses:
        click.echo()
        print_table(("LISTENER", "ADDRESS"), list(addresses.items()))
    if answer["balance"]:
        click.echo()
        fields = ("received", "acknowledged", "refused", "unanswered", "in_flight", "appended")
        rows = [(name, *(balance[field] for field in fields)) for name, balance in answer["balance"].items()]
        print_table(("INPUT", "RECEIVED", "ACKNOWLEDGED", "REFUSED", "UNANSWERED*", "IN-FLIGHT", "APPENDED"), rows)
        click.echo(
            "received = acknowledged + refused + in-flight   * of the refused: the sender never came back to be told"
        )
