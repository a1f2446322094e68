"""Whether acks=all would succeed now, and why not. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ops.metrics.families import offline_partitions
from ops.metrics.view import View

RUNNING = "running"
NOT_NEEDED = frozenset({"supervisor", "zygote"})  # without them the others go on serving


def reasons(view: View, expected: Sequence[str]) -> list[str]:
    """Return why the appliance is not ready; none if it is.

    Args:
        expected: Names of the processes that must answer.
    """
    found = [f"{one.name} does not answer: {one.reason}" for one in view.silent if one.name not in NOT_NEEDED]
    states = {answer.name: answer.state for answer in view.processes if answer.name not in NOT_NEEDED}
    said = {silence.name for silence in view.silent}
    found += [f"{name} is not there" for name in expected if name not in states and name not in said]
    found += [f"{name} is {state}" for name, state in states.items() if state != RUNNING]
    if not view.brokers:
        found.append("no broker answers")
    no_controller = next((one.waits_for for one in view.controllers.values() if one.waits_for), "")
    for name, broker in view.brokers.items():
        if not broker.registered:
            why = f": {broker.refusal or no_controller}" if broker.refusal or no_controller else ""
            found.append(f"{name} is not registered with the controller{why}")
        if broker.directory_failed:
            found.append(f"{name}: its log directory failed; see `forebay doctor`")
        elif broker.disk_full:
            found.append(f"{name}: its disk is full, appends are refused ({broker.disk_free_bytes} bytes free)")
    if offline := offline_partitions(view):
        found.append(f"{offline} partitions have no leader")
    if too_few := sum(not partition.enough_in_sync for b in view.brokers.values() for partition in b.partitions):
        found.append(f"{too_few} partitions have fewer copies in sync than acks=all needs (min.insync.replicas)")
    return found
