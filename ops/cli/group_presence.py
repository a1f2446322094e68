"""Which members of a group are there, which have gone, and whom a rebalance waits for: what their coordinator knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ingest.machine import PID_MAX, has_ended, machine_id, pid_namespace
from ops.cli.reached import TIMEOUT_MS, resolve_bootstrap

if TYPE_CHECKING:
    from ingest.wire.group_messages import DescribedMember, MemberProcess

NAMED_MAX = 5


@contextmanager
def asking_coordinators(
    data_dir: str | None, bootstrap: str | None
) -> Iterator[Callable[[str], list[DescribedMember]]]:
    """Give what returns the members of a group as its coordinator describes them, over one connection for all.

    Raises (each call of it):
        ForebayError: there is no such group, or its coordinator can't be asked.
    """
    from ingest.client.cluster import Cluster
    from ingest.client.groups.coordinator import Coordinator
    from ingest.wire.group_messages import DescribeGroupsRequest, DescribeGroupsResponse

    cluster = Cluster(resolve_bootstrap(data_dir, bootstrap), client_id="forebay-cli")

    def members_of(group: str) -> list[DescribedMember]:
        request = DescribeGroupsRequest([group])
        found: DescribeGroupsResponse = Coordinator(cluster, group).call(request, timeout_ms=TIMEOUT_MS)
        return found.groups[0].members

    try:
        yield members_of
    finally:
        cluster.close()


def is_here(process: MemberProcess | None) -> bool:
    """Tell whether a process is one of this machine, that its pid means here too."""
    return (
        process is not None
        and (process.machine, process.pid_namespace) == (machine_id(), pid_namespace())
        and 0 < process.pid <= PID_MAX
    )


def has_gone(member: DescribedMember) -> bool:
    """Tell whether a member's process is no more, as its coordinator has seen, or as is seen here."""
    process = member.process
    if member.ended or process is None or not is_here(process):
        return member.ended
    return bool(has_ended(process.pid, process.start_ticks))


def state_of_process(member: DescribedMember) -> str | None:
    """Return "ended", "running" where that is seen from here, or None."""
    if has_gone(member):
        return "ended"
    return "running" if is_here(member.process) else None


def why_kept(members: Iterable[DescribedMember]) -> str:
    """Return a sentence on the members that have gone and count all the same, empty if there are none."""
    gone = [member for member in members if has_gone(member)]
    if not gone:
        return ""
    left_s = math.ceil(max(member.gone_in_ms for member in gone) / 1000)
    verb = "has" if len(gone) == 1 else "have"
    return (
        f"{_named(gone)} {verb} ended already and may come back: kept until the session is over, in {left_s} s at most."
    )


def whom_it_waits_for(members: Iterable[DescribedMember]) -> str:
    """Return a sentence on the members that hold a rebalance up, empty if none does."""
    awaited = [member for member in members if member.awaited]
    return f"It waits for {_named(awaited)}." if awaited else ""


def _named(members: Sequence[DescribedMember]) -> str:
    names = [(member.instance_id or member.member_id) + _known_of(member) for member in members[:NAMED_MAX]]
    return ", ".join(names) + (f" and {len(members) - NAMED_MAX} more" if len(members) > NAMED_MAX else "")


def _known_of(member: DescribedMember) -> str:
    known = [] if member.process is None else [f"pid {member.process.pid}"]
    if member.awaited and has_gone(member):
        known.append("ended")
    elif member.awaited and member.silent_ms >= 1000:
        known.append(f"not heard of for {member.silent_ms // 1000} s")
    return f" ({', '.join(known)})" if known else ""
