"""What `group describe` shows: Kafka's columns, with the lag in seconds and bytes behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ops.cli.group_presence import state_of_process, whom_it_waits_for, why_kept
from ops.cli.reached import print_table, printable

if TYPE_CHECKING:
    from ingest.client.groups.described import GroupDescription, PartitionLag
    from ingest.wire.group_messages import DescribedMember

OFFSETS = (
    "group",
    "topic",
    "partition",
    "current_offset",
    "log_end_offset",
    "lag",
    "consumer_id",
    "host",
    "client_id",
    "lag_seconds",
    "lag_bytes",
    "metadata",
)
MEMBERS = ("group", "consumer_id", "instance_id", "host", "client_id", "pid", "process", "partitions", "assignment")
STATE = ("group", "coordinator", "assignment_strategy", "state", "members", "generation")


def offset_rows(group: GroupDescription, lags: Sequence[PartitionLag]) -> list[dict[str, Any]]:
    """Return a row a partition, and one for each member that reads nothing."""
    rows = []
    for item in lags:
        member, lag = item.member, item.lag
        values = (
            group.group,
            item.topic,
            item.partition,
            item.current_offset,
            item.log_end_offset,
            None if lag is None else lag.records,
            None if member is None else member.member_id,
            None if member is None else member.host,
            None if member is None else member.client_id,
            None if lag is None else lag.seconds,
            None if lag is None else lag.bytes,
            None if item.current_offset is None else item.metadata,
        )
        rows.append(dict(zip(OFFSETS, values, strict=True)))
    for member in group.members:
        if not member.assignment:
            reader = {"group": group.group, "consumer_id": member.member_id}
            reader |= {"host": member.host, "client_id": member.client_id}
            rows.append(dict.fromkeys(OFFSETS) | reader)
    return rows


def member_rows(group: GroupDescription, known: Sequence[DescribedMember]) -> list[dict[str, Any]]:
    """Return a row a member, with what is known of its process."""
    processes = {member.member_id: state_of_process(member) for member in known}
    rows = []
    for member in group.members:
        by_topic: dict[str, list[int]] = {}
        for topic, partition in member.assignment:
            by_topic.setdefault(topic, []).append(partition)
        values = (
            group.group,
            member.member_id,
            member.instance_id,
            member.host,
            member.client_id,
            member.pid,
            processes.get(member.member_id),
            len(member.assignment),
            by_topic,
        )
        rows.append(dict(zip(MEMBERS, values, strict=True)))
    return rows


def state_row(group: GroupDescription) -> dict[str, Any]:
    """Return a group's row."""
    values = (group.group, group.coordinator, group.protocol, group.state, len(group.members), group.generation)
    return dict(zip(STATE, values, strict=True))


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows of one kind as a table; what is not known, or nobody's, is a dash. Of texts no table has the room."""
    rows = [{head: value for head, value in row.items() if head != "metadata"} for row in rows]
    if rows:
        heads = ["#" + head if head in ("partitions", "members") else head for head in rows[0]]
        print_table([head.upper().replace("_", "-") for head in heads], [[*map(_cell, row.values())] for row in rows])


def _cell(value: Any) -> str:
    match value:
        case None | "":
            return "-"
        case float():
            return f"{value:.1f}"
        case dict():
            return " ".join(f"{topic}({','.join(map(str, numbers))})" for topic, numbers in value.items()) or "-"
        case _:
            return str(value)


def say_who_is_there(group: GroupDescription, known: Sequence[DescribedMember]) -> None:
    """Say on stderr what a table leaves open: who does not read though it is there, and what a rebalance waits for."""
    name = printable(group.group)
    if group.state == "Empty":
        click.echo(f"Group {name} has no members: nobody reads for it now.", err=True)
    elif group.state != "Stable":
        settling = f"Group {name} is {group.state}: who reads what is being settled."
        click.echo(" ".join(filter(None, [settling, whom_it_waits_for(known)])), err=True)
    if kept := why_kept(known):
        click.echo(kept, err=True)
