"""`forebay doctor`: check this machine and the appliance; say what, why, and what to do."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from ingest.discovery import read_appliance
from ingest.errors import ForebayError
from ops.cli.checks import OK, PROBLEM, WARNING, Check, run_checks
from ops.cli.cluster_config import not_heeded
from ops.cli.compaction_check import compaction_checks
from ops.cli.kafka_check import kafka_checks
from ops.cli.options import config_option, data_dir_option
from ops.cli.reached import REFUSED, format_option, reported
from ops.cli.zookeeper_check import zookeeper_checks
from ops.config.paths import default_config_file
from ops.config.settings import Settings, load_settings

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@data_dir_option
@config_option
@format_option
@click.pass_context
def doctor(ctx: click.Context, data_dir: Path, config_file: Path | None, form: str) -> None:
    """Check this machine and the appliance. Exit code 1 if there is a problem; warnings alone are 0."""
    with reported():
        settings = load_settings(config_file or default_config_file(), environment=os.environ)
        checks = [*run_checks(data_dir, settings)]
        checks += kafka_checks(data_dir)
        checks += compaction_checks(data_dir)
        connect = settings["broker", "zookeeper.connect"] or _joined(data_dir)
        checks += zookeeper_checks(connect, data_dir)
        checks += _settings(data_dir, settings) if connect else ()
    problems = sum(check.state == PROBLEM for check in checks)
    if form == "json":
        click.echo(json.dumps({"problems": problems, "checks": msgspec.to_builtins(checks)}))
    else:
        for check in checks:
            _print(check)
        click.echo(f"\n{problems} problem{'s' * (problems != 1)}")
    if problems:
        ctx.exit(REFUSED)


def _joined(data_dir: Path) -> str:
    """Return where the metadata is that several machines share, "" for here: `up` may have got it as a flag."""
    with contextlib.suppress(ForebayError, OSError):
        return read_appliance(data_dir).zookeeper
    return ""


def _settings(data_dir: Path, settings: Settings) -> Iterator[Check]:
    with contextlib.suppress(ForebayError):  # it is down: nobody to ask
        for what, command in not_heeded(data_dir, settings):
            yield Check("settings", WARNING, what, "settings of all brokers have one place: the cluster", command)


def _print(check: Check) -> None:
    state = click.style(f"{check.state:<8}", fg=_COLOURS[check.state])
    click.echo(f"{state} {check.name:<13} {check.what}")
    if check.state != OK:
        click.echo(f"{'':<22} why:  {check.why}")
        click.echo(f"{'':<22} next: {check.next}")
