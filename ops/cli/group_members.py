"""The members that are in the way of a change, and how to stop them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ingest.errors import ForebayError, RemoteError
from ingest.machine import machine_id
from ingest.wire.codes import ErrorCode
from ops.cli.reached import Failed, hint_of

if TYPE_CHECKING:
    from ingest.admin import Admin
    from ingest.client.groups.described import GroupMember

_IN_THE_WAY = (ErrorCode.NON_EMPTY_GROUP, ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC)


@contextmanager
def telling_how_to_stop(admin: Admin, group: str) -> Iterator[None]:
    """Add to a refusal for the sake of members what would end them.

    Raises:
        Failed: members are in the way.
    """
    try:
        yield
    except RemoteError as error:
        if error.code not in _IN_THE_WAY:
            raise
        raise Failed("\n".join([str(error), *_how(admin, group), hint_of(error.code, group)])) from None


def _how(admin: Admin, group: str) -> list[str]:
    try:
        return how_to_stop(admin.describe_groups([group])[group].members)
    except ForebayError:
        return []


def how_to_stop(members: Sequence[GroupMember]) -> list[str]:
    """Return what to do so that these members end, as lines."""
    here = sorted({member.pid for member in members if member.pid is not None and member.machine == machine_id()})
    lines = [f"Stop what reads on this machine first: kill {' '.join(map(str, here))}"] if here else []
    hosts = {member.host or "an unknown host" for member in members if member.machine != machine_id()}
    if hosts:
        lines.append(f"Stop what reads first, on {', '.join(sorted(hosts))}")
    return lines
