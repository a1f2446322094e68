"""`forebay doctor`: check this machine and the appliance; say what, why, and what to do."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from ingest.errors import ForebayError
from ops.cli.checks import OK, PROBLEM, WARNING, Check, run_checks
from ops.cli.cluster_config import not_heeded
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
        checks += zookeeper_checks(settings["broker", "zookeeper.connect"], data_dir)
        checks += _settings(data_dir, settings)
    problems = sum(check.state == PROBLEM for check in checks)
    if form == "json":
        click.echo(json.dumps({"problems": problems, "checks": msgspec.to_builtins(checks)}))
    else:
        for check in checks:
            _print(check)
        click.echo(f"\n{problems} problem{'s' * (problems != 1)}")
    if problems:
        ctx.exit(REFUSED)


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
