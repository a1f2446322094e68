"""`forebay cluster quotas …`: how much clients may produce to each broker, and fetch from it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from ingest.errors import UsageError
from ops.cli.configs import changes_of, changes_options
from ops.cli.reached import bootstrap_option, format_option, here, open_admin, print_table, printable, reported

EVERY_CLIENT = ""
_KIND = "client-id"


@click.group()
def quotas() -> None:
    """Show and change quotas of clients: what each client id may produce and fetch, in bytes a second of each broker.

    \b
    Rates are producer_byte_rate and consumer_byte_rate, as in Kafka.
    """


@quotas.command()
@bootstrap_option
@format_option
def describe(data_dir: str | None, bootstrap: str | None, form: str) -> None:
    """Show all quotas."""
    with reported(), open_admin(data_dir, bootstrap) as admin:
        found = admin.client_quotas()
    if form == "json":
        click.echo(json.dumps([{"client_id": client_id or None, **rates} for client_id, rates in found.items()]))
    elif found:
        rows = [(_shown(client_id), name, rate) for client_id, rates in found.items() for name, rate in rates.items()]
        print_table(("CLIENT-ID", "QUOTA", "BYTES/S"), rows)
    else:
        click.echo(
            "No client has a quota. Give every client id one with: "
            f"forebay cluster quotas alter --default client-id --set producer_byte_rate=1048576{here()}",
            err=True,
        )


@quotas.command()
@changes_options
@click.option("--name", "--entity-name", "name", metavar="client-id=NAME", help="Of this client id.")
@click.option(
    "--default",
    "--entity-default",
    "default",
    is_flag=False,
    flag_value=_KIND,
    metavar=_KIND,
    help="Of each client id that has no such rate of its own.",
)
@bootstrap_option
@format_option
def alter(
    sets: Sequence[str],
    deletes: Sequence[str],
    validate_only: bool,
    name: str | None,
    default: str | None,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Set and delete rates of one client id, or of all that have none of their own; what is not named stays.

    \b
      forebay cluster quotas alter --name client-id=app --set producer_byte_rate=1048576
      forebay cluster quotas alter --default client-id --delete consumer_byte_rate
    """
    with reported():
        client_id = _client_id(name, default)
        changes = changes_of(sets, deletes)
        with open_admin(data_dir, bootstrap) as admin:
            admin.alter_client_quota(client_id, changes, validate_only=validate_only)
    done = "can be changed" if validate_only else "changed"
    if form == "json":
        click.echo(json.dumps(dict.fromkeys(changes, done)))
    else:
        click.echo(f"{printable(_shown(client_id))}: {', '.join(changes)} {done}")


def _client_id(name: str | None, default: str | None) -> str:
    if (name is None) == (default is None):
        raise UsageError("name a client with --name client-id=NAME, or all others with --default client-id")
    kind, equals, text = (name or "").partition("=")
    if default not in (None, _KIND) or (equals and kind == "user"):
        raise UsageError("quotas are those of client ids here: --name client-id=NAME, or --default client-id")
    if default is not None:
        return EVERY_CLIENT
    client_id = text if equals and kind == _KIND else name
    if not client_id:
        raise UsageError("an empty client id has the quota of --default client-id")
    return client_id


def _shown(client_id: str) -> str:
    return client_id or "<default>"
