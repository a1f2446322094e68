"""`forebay topic …`: create, look at, change and delete topics; records in and out (topic_produce, topic_consume)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ingest.errors import RemoteError
from ingest.wire.codes import ErrorCode
from ops.cli.configs import changes_of, changes_options, pairs
from ops.cli.reached import Failed, bootstrap_option, format_option, here, open_admin, print_table, reported, say_done
from ops.cli.topic_consume import consume
from ops.cli.topic_produce import produce

if TYPE_CHECKING:
    from ingest.admin import Admin

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def topic() -> None:
    """Create, look at, change and delete topics; produce and consume records.

    \b
    Exit codes: 0 done, 1 refused or done in part, 2 used wrongly, 3 no answer.
    """


topic.add_command(produce)
topic.add_command(consume)


def _names_argument(command: F) -> F:
    command = click.option("--topic", "more_names", multiple=True, metavar="NAME", help="As the argument.")(command)
    return click.argument("names", nargs=-1, metavar="NAME")(command)


def _named(names: Sequence[str], more_names: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys([*names, *more_names]))
    if not found:
        raise click.UsageError("name a topic")
    return found


def _single(names: Sequence[str], more_names: Sequence[str]) -> str:
    found = _named(names, more_names)
    if len(found) > 1:
        raise click.UsageError(f"one topic at a time, not {', '.join(found)}")
    return found[0]


def _topic_names(admin: Admin) -> Callable[[], list[str]]:
    return lambda: [found.name for found in admin.metadata().topics]


@topic.command()
@_names_argument
@click.option("-p", "--partitions", type=int, default=-1, help="How many.  [default: the brokers' num.partitions]")
@click.option(
    "-r",
    "--replicas",
    "--replication-factor",
    "replicas",
    type=int,
    default=-1,
    help="Copies of each.  [default: one a machine, on a single one one a disk; three at most]",
)
@click.option("-c", "--topic-config", "--config", "configs", multiple=True, metavar="KEY=VALUE", help="A setting.")
@click.option("--if-not-exists", is_flag=True, help="A topic that exists already is fine.")
@click.option("-d", "--dry", "validate_only", is_flag=True, help="Check alone, create nothing.")
@bootstrap_option
@format_option
def create(
    names: Sequence[str],
    more_names: Sequence[str],
    partitions: int,
    replicas: int,
    configs: Sequence[str],
    if_not_exists: bool,
    validate_only: bool,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Create topics."""
    results: list[dict[str, Any]] = []
    failures: list[str] = []
    wanted = _named(names, more_names)
    with reported(wanted=wanted[0]):
        settings = pairs(configs)
        with open_admin(data_dir, bootstrap) as admin:
            for name in wanted:
                result: dict[str, Any] = {"name": name, "created": not validate_only, "error": None}
                try:
                    admin.create_topic(name, partitions, replicas, settings, validate_only=validate_only)
                except RemoteError as error:
                    result["created"] = False
                    if not (if_not_exists and error.code == ErrorCode.TOPIC_ALREADY_EXISTS):
                        if len(wanted) == 1:
                            raise
                        result["error"] = str(error)
                        failures.append(f"{name}: {error}")
                results.append(result)
    if form == "json":
        click.echo(json.dumps(results))
    else:
        for result in results:
            if result["error"] is None:
                verb = "created" if result["created"] else "can be created" if validate_only else "exists already"
                click.echo(f"{result['name']}: {verb}")
    if failures:
        raise Failed("\n".join(failures))


@topic.command("list")
@bootstrap_option
@format_option
def list_topics(data_dir: str | None, bootstrap: str | None, form: str) -> None:
    """List all topics."""
    with reported(), open_admin(data_dir, bootstrap) as admin:
        topics = admin.list_topics()
    rows = [
        (item.name, len(item.partitions), max((len(p.replicas) for p in item.partitions), default=0)) for item in topics
    ]
    if form == "json":
        heads = ("name", "partitions", "replication_factor")
        click.echo(json.dumps([dict(zip(heads, row, strict=True)) for row in rows]))
    elif rows:
        print_table(("NAME", "PARTITIONS", "REPLICAS"), rows)
    else:
        click.echo(f"No topics yet. Create one with: forebay topic create NAME -p 3{here()}", err=True)


@topic.command()
@_names_argument
@click.option("--all", "-a", "all_configs", is_flag=True, help="All settings, those at their default too.")
@bootstrap_option
@format_option
def describe(
    names: Sequence[str],
    more_names: Sequence[str],
    all_configs: bool,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Show a topic's partitions, offsets and settings."""
    from ops.cli.topic_description import describe_topic, print_description

    wanted = _named(names, more_names)
    described = []
    with _admin_reporting(data_dir, bootstrap) as admin:
        for name in wanted:
            with reported(_topic_names(admin), wanted=name):
                described.append(describe_topic(admin, name))
    if form == "json":
        click.echo(json.dumps(described if len(described) > 1 else described[0]))
        return
    for index, description in enumerate(described):
        if index:
            click.echo()
        print_description(description, all_configs=all_configs)


def _admin_reporting(data_dir: str | None, bootstrap: str | None) -> Admin:
    with reported():
        return open_admin(data_dir, bootstrap)


@topic.command("alter-config")
@_names_argument
@changes_options
@bootstrap_option
@format_option
def alter_config(
    names: Sequence[str],
    more_names: Sequence[str],
    sets: Sequence[str],
    deletes: Sequence[str],
    validate_only: bool,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Change settings of topics; what is not named stays."""
    wanted = _named(names, more_names)
    with _admin_reporting(data_dir, bootstrap) as admin:
        for name in wanted:
            with reported(_topic_names(admin), wanted=name):
                admin.alter_configs(name, changes_of(sets, deletes), validate_only=validate_only)
    say_done(form, dict.fromkeys(wanted, "can be changed" if validate_only else "changed"))


@topic.command("add-partitions")
@_names_argument
@click.option("-n", "--num", type=click.IntRange(1), help="How many more.")
@click.option("-p", "--partitions", "total", type=click.IntRange(1), help="How many in all.")
@bootstrap_option
@format_option
def add_partitions(
    names: Sequence[str],
    more_names: Sequence[str],
    num: int | None,
    total: int | None,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Give a topic more partitions. Records stay where they are; keys may go to other partitions from now on."""
    name = _single(names, more_names)
    if (num is None) == (total is None):
        raise click.UsageError("pass --num for how many more, or --partitions for how many in all")
    with _admin_reporting(data_dir, bootstrap) as admin, reported(_topic_names(admin), wanted=name):
        if total is None:
            assert num is not None
            total = len(admin.describe_topic(name).partitions) + num
        admin.create_partitions(name, total)
    say_done(form, {name: f"has {total} partitions"})


@topic.command()
@_names_argument
@click.option("--if-exists", is_flag=True, help="A topic that does not exist is fine.")
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
    """Delete topics with all their records."""
    results = dict.fromkeys(_named(names, more_names), "deleted")
    with _admin_reporting(data_dir, bootstrap) as admin:
        for name in results:
            with reported(_topic_names(admin), wanted=name):
                try:
                    admin.delete_topics([name])
                except RemoteError as error:
                    if not (if_exists and error.code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
                        raise
                    results[name] = "does not exist"
    say_done(form, results)


@topic.command()
@_names_argument
@click.option(
    "-o", "--offset", required=True, metavar="OFFSET", help="First to keep: N, end, -N or @MS, as consume -o."
)
@click.option("-p", "--partition", "--partitions", "partitions", type=int, multiple=True, help="Of these alone.")
@bootstrap_option
@format_option
def trim(
    names: Sequence[str],
    more_names: Sequence[str],
    offset: str,
    partitions: Sequence[int],
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Delete the records below an offset (Kafka's DeleteRecords, rpk's trim-prefix)."""
    from ops.cli.start_offset import offset_of, parse_start_offset

    name = _single(names, more_names)
    with _admin_reporting(data_dir, bootstrap) as admin, reported(_topic_names(admin), wanted=name):
        start = parse_start_offset(offset)
        chosen = list(partitions) or [item.partition for item in admin.describe_topic(name).partitions]
        rows = [(p, admin.delete_records(name, p, offset_of(admin, name, p, start))) for p in chosen]
    if form == "json":
        click.echo(json.dumps([{"topic": name, "partition": p, "log_start_offset": o} for p, o in rows]))
    else:
        print_table(("TOPIC", "PARTITION", "LOG-START-OFFSET"), [(name, p, o) for p, o in rows])


@topic.command()
@_names_argument
@click.option("-p", "--partition", "--partitions", "partitions", type=int, multiple=True, help="Of these alone.")
@click.option(
    "--replicas",
    metavar="ID,ID,…",
    help="Brokers that are to have it, the preferred leader first; of several partitions each begins one further on.",
)
@click.option(
    "--throttle",
    type=click.IntRange(1),
    metavar="BYTES_PER_S",
    help="What each broker may send, and fetch, for the new replicas; it ends with the moves.",
)
@click.option("--cancel", is_flag=True, help="Give up moves that are not over.")
@click.option("--wait", is_flag=True, help="Return once the moves are over.")
@bootstrap_option
@format_option
def reassign(
    names: Sequence[str],
    more_names: Sequence[str],
    partitions: Sequence[int],
    replicas: str | None,
    throttle: int | None,
    cancel: bool,
    wait: bool,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Move partitions to other brokers: the new replicas catch up first, then the old ones go."""
    from ops.cli.topic_reassign import await_moves, brokers_of, spread

    name = _single(names, more_names)
    if (replicas is None) != cancel:
        raise click.UsageError("pass --replicas 1,2,3 to move, or --cancel to give up what moves")
    if throttle is not None and cancel:
        raise click.UsageError("--throttle is of moves that begin; pass it with --replicas")
    with _admin_reporting(data_dir, bootstrap) as admin, reported(_topic_names(admin), wanted=name):
        found = admin.describe_topic(name).partitions
        chosen = list(partitions) or [item.partition for item in found if not cancel or item.adding or item.removing]
        brokers = brokers_of(replicas) if replicas is not None else None
        moves = {(name, p): spread(brokers, index) for index, p in enumerate(chosen)}
        admin.reassign(moves, throttle_bytes_per_s=throttle or 0)
        if wait:
            await_moves(admin, name)
    if cancel and not chosen and form == "text":
        click.echo(f"nothing of {name} moves")
    say_done(form, {f"{name}-{p}": "stays" if cancel else "moved" if wait else "moves" for p in chosen})
