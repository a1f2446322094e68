"""`forebay cluster describe-config` and `alter-config`: the settings of all brokers, while they run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ingest.wire.messages import ResourceType
from ops.cli.configs import changes_of, changes_options, described, print_configs
from ops.cli.reached import bootstrap_option, format_option, open_admin, reported

if TYPE_CHECKING:
    from ops.config.settings import Settings

EVERY_BROKER = ""
_ASK_MS = 2000


def not_heeded(data_dir: Path, settings: Settings) -> list[tuple[str, str]]:
    """Return what one of several machines sets otherwise than its cluster, each with the command that heeds it.

    Raises:
        ForebayError: the cluster does not answer.
    """
    wanted = settings.cluster_configs
    if not wanted:
        return []
    from ingest.admin import Admin

    with Admin(str(data_dir), timeout_ms=_ASK_MS) as admin:
        entries = admin.describe_configs(EVERY_BROKER, ResourceType.BROKER)
    return [
        (
            f"{entry.name}={wanted[entry.name]} is set here, but the cluster has {entry.value}",
            f"forebay cluster alter-config --set {entry.name}={wanted[entry.name]}",
        )
        for entry in entries
        if wanted.get(entry.name, entry.value) != entry.value
    ]


@click.command("describe-config")
@click.option("--all", "-a", "all_configs", is_flag=True, help="All settings, those at their default too.")
@bootstrap_option
@format_option
def describe_config(all_configs: bool, data_dir: str | None, bootstrap: str | None, form: str) -> None:
    """Show the settings of all brokers, the defaults of topics among them, and where each comes from."""
    with reported(), open_admin(data_dir, bootstrap) as admin:
        configs = described(admin.describe_configs(EVERY_BROKER, ResourceType.BROKER))
    if form == "json":
        click.echo(json.dumps(configs))
    else:
        print_configs(configs, all_configs=all_configs)


@click.command("alter-config")
@changes_options
@bootstrap_option
@format_option
def alter_config(
    sets: Sequence[str],
    deletes: Sequence[str],
    validate_only: bool,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Change settings of all brokers while they run; what is not named stays. It outlives restarts.

    \b
      forebay cluster alter-config --set min.insync.replicas=2 --set log.retention.hours=48
    """
    with reported():
        changes = changes_of(sets, deletes)
        with open_admin(data_dir, bootstrap) as admin:
            admin.alter_configs(EVERY_BROKER, changes, ResourceType.BROKER, validate_only=validate_only)
    done = "can be changed" if validate_only else "changed"
    click.echo(json.dumps(dict.fromkeys(changes, done)) if form == "json" else f"{', '.join(changes)}: {done}")
