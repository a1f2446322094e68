"""`forebay group …`: list, look at and delete consumer groups; move their offsets (group_seek)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ops.cli.group_seek import seek
from ops.cli.reached import (
    REFUSED,
    Failed,
    bootstrap_option,
    format_option,
    here,
    open_admin,
    print_table,
    printable,
    reported,
    say_done,
)

if TYPE_CHECKING:
    from ingest.admin import Admin

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def group() -> None:
    """List, look at and delete consumer groups; move what they have committed.

    \b
    Exit codes: 0 done, 1 refused or done in part, 2 used wrongly, 3 no answer.
    """


group.add_command(seek)


def _names_argument(command: F) -> F:
    command = click.option("--group", "more_names", multiple=True, metavar="NAME", help="As the argument.")(command)
    return click.argument("names", nargs=-1, metavar="NAME…")(command)


def _group_names(admin: Admin) -> Callable[[], list[str]]:
    return lambda: [found.group for found in admin.list_groups()]


@group.command("list")
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="STATE,…",
    help="Empty, PreparingRebalance, CompletingRebalance, Stable.",
)
@bootstrap_option
@format_option
def list_groups(states: Sequence[str], data_dir: str | None, bootstrap: str | None, form: str) -> None:
    """List all groups, or those in a state."""
    with reported(), open_admin(data_dir, bootstrap) as admin:
        wanted = [part.strip() for state in states for part in state.split(",")]
        found = admin.list_groups(wanted)
    rows = [(item.group, item.state, item.protocol_type, item.members, item.coordinator) for item in found]
    if form == "json":
        heads = ("group", "state", "protocol_type", "members", "coordinator")
        click.echo(json.dumps([dict(zip(heads, row, strict=True)) for row in rows]))
    elif rows:
        table = [(name, state, kind or "-", *numbers) for name, state, kind, *numbers in rows]
        print_table(("GROUP", "STATE", "PROTOCOL-TYPE", "MEMBERS", "COORDINATOR"), table)
    elif states:
        click.echo(f"No group is {' or '.join(wanted)}. See them all with: forebay group list{here()}", err=True)
    else:
        _say_none()


def _say_none() -> None:
    click.echo(f"No groups yet. Read as one with: forebay topic consume NAME -g GROUP{here()}", err=True)


@group.command()
@_names_argument
@click.option("--all-groups", "-a", is_flag=True, help="All there are.")
@click.option("--members", is_flag=True, help="Who is in it, and what each reads.")
@click.option("--state", is_flag=True, help="Coordinator, assignor, state, generation.")
@click.option("--offsets", is_flag=True, help="How far it is.  [default]")
@click.option("--verbose", is_flag=True, hidden=True, help="Kafka's; everything is shown anyway.")
@bootstrap_option
@format_option
def describe(
    names: Sequence[str],
    more_names: Sequence[str],
    all_groups: bool,
    members: bool,
    state: bool,
    offsets: bool,
    verbose: bool,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Show how far groups are, and how far behind: in records, seconds and bytes, as leaders know it.

    \b
    LAG-SECONDS is how long the oldest record not read yet has been in the log.
    A dash in CURRENT-OFFSET: nothing is committed there yet.
    """
    from ops.cli.group_description import member_rows, offset_rows, print_rows, say_who_is_there, state_row
    from ops.cli.group_presence import asking_coordinators

    wanted = list(dict.fromkeys([*names, *more_names]))
    if wanted and all_groups:
        raise click.UsageError("groups by their names or --all-groups: one or the other")
    if not wanted and not all_groups:
        raise click.UsageError("name a group, or pass --all-groups")
    if members + state + offsets > 1:
        raise click.UsageError("one of --members, --state and --offsets at a time")
    rows: list[dict[str, Any]] = []
    with reported():
        admin = open_admin(data_dir, bootstrap)
    with admin, reported(), asking_coordinators(data_dir, bootstrap) as members_of:
        wanted = wanted or _group_names(admin)()
        for index, name in enumerate(wanted):
            with reported(_group_names(admin), wanted=name):
                described = admin.describe_groups([name])[name]
                known = members_of(name) if described.members and not state else []
                if members:
                    found = member_rows(described, known)
                elif state:
                    found = [state_row(described)]
                else:
                    found = offset_rows(described, admin.group_lag(name))
            rows += found
            if form == "text" and not state:
                if index:
                    click.echo()
                say_who_is_there(described, known)
                print_rows(found)
                if not members and not found:
                    click.echo(f"Group {printable(name)} has committed nothing.", err=True)
    if form == "json":
        click.echo(json.dumps(rows))
    elif not wanted:
        _say_none()
    elif state:
        print_rows(rows)


@group.command()
@_names_argument
@click.option("--if-exists", is_flag=True, help="A group that does not exist is fine.")
@bootstrap_option
@format_option
def delete(
    names: Sequence[str],
    more_names: Sequence[str],
    if_exists: bool,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Delete groups that have no members, with all they have committed."""
    from ingest.errors import RemoteError
    from ingest.wire.codes import ErrorCode
    from ops.cli.group_members import telling_how_to_stop

    wanted = list(dict.fromkeys([*names, *more_names]))
    if not wanted:
        raise click.UsageError("name a group")
    with reported():
        admin = open_admin(data_dir, bootstrap)
    results: dict[str, str] = {}
    refusals: list[Failed] = []
    with admin:
        for name in wanted:
            try:
                with reported(_group_names(admin), wanted=name), telling_how_to_stop(name, data_dir, bootstrap):
                    try:
                        admin.delete_groups([name])
                        results[name] = "deleted"
                    except RemoteError as error:
                        is_missing = error.code == ErrorCode.GROUP_ID_NOT_FOUND
                        results[name] = "does not exist" if is_missing else "kept"
                        if not (if_exists and is_missing):
                            raise
            except Failed as failed:
                refusals.append(failed)
                if failed.exit_code != REFUSED:
                    break  # the next would wait as long for an answer
    if len(wanted) > 1 or not refusals:
        say_done(form, results)
    if refusals:
        lines = [line for refusal in refusals for line in refusal.message.splitlines()]
        raise Failed("\n".join(dict.fromkeys(lines)), refusals[-1].exit_code)


@group.command("offset-delete")
@click.argument("name", metavar="NAME", required=False)
@click.option("--group", "named", metavar="NAME", help="As the argument.")
@click.option("-t", "--topic", "topics", multiple=True, metavar="TOPIC[:P,P]", help="Of this one; may be repeated.")
@bootstrap_option
@format_option
def offset_delete(
    name: str | None,
    named: str | None,
    topics: Sequence[str],
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Forget what a group has committed for topics that no member reads."""
    from ops.cli.group_members import telling_how_to_stop
    from ops.cli.group_places import parse_topics, places_of

    name = name or named
    if name is None:
        raise click.UsageError("name a group")
    if not topics:
        raise click.UsageError("name what to forget with -t TOPIC, or -t TOPIC:0,1 for some partitions")
    with reported():
        admin = open_admin(data_dir, bootstrap)
    with admin, reported(_group_names(admin), wanted=name), telling_how_to_stop(name, data_dir, bootstrap):
        wanted = parse_topics(topics)
        committed = admin.group_offsets(name)
        with reported(lambda: [found.name for found in admin.metadata().topics], wanted=next(iter(wanted))):
            places = places_of(admin, wanted, [], also=committed)
        admin.delete_group_offsets(name, places)
    say_done(form, {f"{t}-{p}": "deleted" if (t, p) in committed else "nothing was committed" for t, p in places})
