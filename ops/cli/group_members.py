"""The members that are in the way of a change, and how to stop them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ingest.errors import ForebayError, RemoteError
from ingest.wire.codes import ErrorCode
from ops.cli.group_presence import asking_coordinators, has_gone, is_here, why_kept
from ops.cli.reached import Failed, hint_of

if TYPE_CHECKING:
    from ingest.wire.group_messages import DescribedMember

_IN_THE_WAY = (ErrorCode.NON_EMPTY_GROUP, ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC)


@contextmanager
def telling_how_to_stop(group: str, data_dir: str | None, bootstrap: str | None) -> Iterator[None]:
    """Add to a refusal for the sake of members what would end them.

    Raises:
        Failed: members are in the way.
    """
    try:
        yield
    except RemoteError as error:
        if error.code not in _IN_THE_WAY:
            raise
        try:
            with asking_coordinators(data_dir, bootstrap) as members_of:
                lines = how_to_stop(members_of(group))
        except ForebayError:
            lines = []
        raise Failed("\n".join([str(error), *lines, hint_of(error.code, group)])) from None


def how_to_stop(members: Sequence[DescribedMember]) -> list[str]:
    """Return what to do so that these members end, as lines."""
    there = [member for member in members if not has_gone(member)]
    here = sorted({member.process.pid for member in there if member.process is not None and is_here(member.process)})
    lines = [f"Stop what reads on this machine first: kill {' '.join(map(str, here))}"] if here else []
    hosts = {member.client_host or "an unknown host" for member in there if not is_here(member.process)}
    if hosts:
        lines.append(f"Stop what reads first, on {', '.join(sorted(hosts))}")
    if any(member.instance_id is not None for member in there):
        lines.append("Static members (group.instance.id) are kept until their session is over, even then.")
    kept = why_kept(members)
    return [*lines, f"{kept} Try again then."] if kept else lines
