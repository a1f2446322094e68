"""`forebay group seek`: move what a group has committed, so that its members go on elsewhere when they start."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ingest.errors import RemoteError, UsageError
from ingest.wire.codes import ErrorCode
from ops.cli.reached import Failed, bootstrap_option, format_option, here, open_admin, print_table, reported

if TYPE_CHECKING:
    from ingest.admin import Admin
    from ingest.client.groups.committed import Committed
    from ops.cli.group_destination import Shift
    from ops.cli.start_offset import StartOffset

TopicPartition = tuple[str, int]
HEADS = ("group", "topic", "partition", "old_offset", "new_offset")


@click.command()
@click.argument("name", metavar="NAME", required=False)
@click.option("--group", "named", metavar="NAME", help="As the argument.")
@click.option("--to", "to", metavar="WHERE", help="start, end, current, N, +N, -N, @MS or a date and time.")
@click.option("--to-earliest", is_flag=True, help="As --to start.")
@click.option("--to-latest", is_flag=True, help="As --to end.")
@click.option("--to-current", is_flag=True, help="As --to current.")
@click.option("--to-datetime", "datetime", metavar="TIME", help="As --to TIME: 2026-01-31T08:00:00.000, UTC.")
@click.option("--to-offset", type=click.IntRange(0), help="To this offset, however large.")
@click.option("--shift-by", type=int, metavar="N", help="N records on, back where N is negative.")
@click.option("--to-file", "--from-file", "file", metavar="FILE", help="To the lines topic,partition,offset of a file.")
@click.option("--topics", "lists", multiple=True, metavar="T,T", help="In these topics alone, all their partitions.")
@click.option("--topic", "topics", multiple=True, metavar="T[:P,P]", help="In this topic; may be repeated.")
@click.option("--all-topics", is_flag=True, help="Where the group has committed.  [default]")
@click.option("-p", "--partitions", "numbers", multiple=True, metavar="P,P", help="In these partitions alone.")
@click.option("-d", "--dry", "--dry-run", "dry", is_flag=True, help="Show what would be, change nothing.")
@click.option("--execute", is_flag=True, hidden=True, help="Kafka's; the opposite of --dry-run.")
@click.option("--export", is_flag=True, help="Print lines for --from-file instead, change nothing.")
@bootstrap_option
@format_option
def seek(
    name: str | None,
    named: str | None,
    to: str | None,
    to_earliest: bool,
    to_latest: bool,
    to_current: bool,
    datetime: str | None,
    to_offset: int | None,
    shift_by: int | None,
    file: str | None,
    lists: Sequence[str],
    topics: Sequence[str],
    all_topics: bool,
    numbers: Sequence[str],
    dry: bool,
    execute: bool,
    export: bool,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Move what a group has committed. It must have no members: they would go on from where they are.

    \b
      forebay group seek dash --to start --dry-run
      forebay group seek dash --to @1767225600000 --topics sensors
      forebay group seek dash --to current --export > before.csv
      forebay group seek dash --from-file before.csv

    \b
    --to: start, end; N an offset; +N after the start, -N before the end;
          @MS, or a number of 13 digits, a time in ms since 1970: the first
          record not before it; 2026-01-31T08:00:00Z (UTC without a zone);
          current where the group is.
    Without --topics: in all partitions that the group has committed to.
    """
    from ops.cli.group_destination import as_lines
    from ops.cli.group_members import telling_how_to_stop

    name = name or named
    if name is None:
        raise click.UsageError("name a group")
    ways: dict[str, Any] = {
        "--to": to,
        "--to-earliest": "start" if to_earliest else None,
        "--to-latest": "end" if to_latest else None,
        "--to-current": "current" if to_current else None,
        "--to-datetime": datetime,
        "--to-offset": to_offset,
        "--shift-by": shift_by,
        "--from-file": file,
    }
    given = [way for way, value in ways.items() if value is not None]
    if len(given) != 1:
        said = f", not {' and '.join(given)}" if given else ""
        raise click.UsageError(f"say where to with --to start|end|OFFSET|@MS, or --from-file FILE{said}")
    with reported():
        text = None if given[0] in ("--to-offset", "--shift-by", "--from-file") else ways[given[0]]
        where = _where(text, to_offset, shift_by)
        admin = open_admin(data_dir, bootstrap)
    with admin:
        with reported(lambda: [topic.name for topic in admin.metadata().topics]):
            committed = admin.group_offsets(name)
            old: dict[TopicPartition, int] = {(t, p): item.offset for (t, p), item in committed.items()}
            if where is None:
                assert file is not None
                new = _from_file(admin, file, name, bool(lists or topics or numbers))
            else:
                new = _moved(admin, _chosen(admin, name, old, topics, lists, numbers), where, old)
        if export:
            click.echo(as_lines(new), nl=False)
            return
        if not dry and new:
            with reported(wanted=name), telling_how_to_stop(name, data_dir, bootstrap):
                wanted: dict[TopicPartition, int | Committed] = {**new}
                wanted.update((place, item) for place, item in committed.items() if new.get(place) == item.offset)
                admin.alter_group_offsets(name, wanted)  # where an offset stays, the text beside it does
        elif dry:
            with reported():
                _warn_of_members(admin, name)
    rows = [(name, *place, old.get(place), offset) for place, offset in sorted(new.items())]
    if form == "json":
        click.echo(json.dumps([dict(zip(HEADS, row, strict=True)) for row in rows]))
        return
    table = [["-" if cell is None else cell for cell in row] for row in rows]
    print_table([head.upper().replace("_", "-") for head in HEADS], table)
    if dry:
        click.echo("Nothing was changed. Leave --dry-run out to do it.", err=True)


def _where(to: str | None, to_offset: int | None, shift_by: int | None) -> StartOffset | Shift | None:
    """Return the destination, None: a file says."""
    from ops.cli.group_destination import OFFSET_MAX, Shift, parse_destination
    from ops.cli.start_offset import StartOffset, Whence

    if to is not None:
        return parse_destination(to)
    if shift_by is not None:
        return Shift(shift_by)
    if to_offset is not None and to_offset > OFFSET_MAX:
        raise UsageError(f"--to-offset {to_offset} is larger than any offset")
    return None if to_offset is None else StartOffset(Whence.OFFSET, to_offset)


def _chosen(
    admin: Admin,
    group: str,
    old: dict[TopicPartition, int],
    topics: Sequence[str],
    lists: Sequence[str],
    numbers: Sequence[str],
) -> list[TopicPartition]:
    """Return the partitions to move in: those of the topics named, or where the group has committed.

    Raises:
        Failed: it has committed nowhere.
    """
    from ops.cli.group_places import parse_partitions, parse_topics, places_of

    partitions = parse_partitions(numbers)
    if topics or lists:
        return places_of(admin, parse_topics(topics, lists), partitions)
    if not old:
        with reported(lambda: [found.group for found in admin.list_groups()], wanted=group):
            admin.describe_groups([group])  # a name mistyped is more likely
        raise Failed(f"group {group} has committed nothing; say where to move it with --topics TOPIC")
    chosen = [place for place in old if not partitions or place[1] in partitions]
    if not chosen:
        raise Failed(
            f"group {group} has committed nothing to partition {', '.join(map(str, partitions))} of any topic\n"
            f"See what it has with: forebay group describe {group}{here()}"
        )
    there = {(topic.name, item.partition) for topic in admin.metadata().topics for item in topic.partitions}
    for topic, number in [place for place in chosen if place not in there]:
        said = f"{topic}-{number} does not exist, and is left out. Forget what is committed there with: forebay group"
        click.echo(f"{said} offset-delete {group} -t {topic}:{number}{here()}", err=True)
    return [place for place in chosen if place in there]


def _moved(
    admin: Admin, places: Sequence[TopicPartition], where: StartOffset | Shift, old: dict[TopicPartition, int]
) -> dict[TopicPartition, int]:
    from ops.cli.group_destination import new_offset

    new = {}
    for place in places:
        offset, said = new_offset(admin, place, where, old.get(place))
        if said:
            click.echo(said, err=True)
        if offset is not None:
            new[place] = offset
    return new


def _from_file(admin: Admin, file: str, group: str, narrowed: bool) -> dict[TopicPartition, int]:
    from ops.cli.group_destination import read_offsets, within
    from ops.cli.group_places import places_of

    if narrowed:
        raise UsageError("a file says which partitions; leave --topics, --topic and --partitions out")
    wanted = read_offsets(file, group)
    by_topic: dict[str, list[int] | None] = {}
    for topic, partition in wanted:
        by_topic[topic] = [*(by_topic.get(topic) or ()), partition]
    places_of(admin, by_topic, [])
    new = {}
    for place, offset in wanted.items():
        new[place], said = within(admin, place, offset)
        if said:
            click.echo(said, err=True)
    return new


def _warn_of_members(admin: Admin, group: str) -> None:
    try:
        members = admin.describe_groups([group])[group].members
    except RemoteError as error:
        if error.code != ErrorCode.GROUP_ID_NOT_FOUND:
            raise
        click.echo(f"There is no group {group} yet; it would be made.", err=True)
        return
    if members:
        click.echo(f"Group {group} has {len(members)} members now; as long as it has any, this is refused.", err=True)
