"""Groups as an administrator sees them: frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.client.groups.consumer_protocol import PROTOCOL_TYPE, decode_assignment, decode_subscription
from ingest.client.lag import Lag
from ingest.client.positions import TopicPartition
from ingest.errors import ProtocolError, UsageError
from ingest.wire.group_messages import DescribedGroup, DescribedMember

STATES = ("Empty", "PreparingRebalance", "CompletingRebalance", "Stable")  # Kafka's names
_MEMBERS_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class GroupListing:
    """One group in a list of all.

    Attributes:
        coordinator: Id of the broker that coordinates it.
    """

    group: str
    state: str
    protocol_type: str
    members: int
    coordinator: int


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member of a group.

    Attributes:
        host: What the member calls its machine.
        pid: Of its process; None: it does not say.
        machine: The boot id of the machine that pid belongs to.
        topics: It has subscribed to these; of a consumer's group alone.
        assignment: It reads these; none while the group rebalances.
    """

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    pid: int | None
    machine: str
    topics: tuple[str, ...]
    assignment: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """A group and who is in it.

    Attributes:
        protocol: The assignor that was chosen; empty while there is no assignment.
        leader: Member id of the one that assigns.
    """

    group: str
    state: str
    protocol_type: str
    protocol: str
    generation: int
    leader: str
    coordinator: int
    members: tuple[GroupMember, ...]


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a group is in one partition, and who reads it.

    Attributes:
        current_offset: What is committed; None: nothing is.
        metadata: The text that was committed with it.
        log_end_offset: The high watermark; None: no leader could be asked.
        lag: None where nothing is committed, or no leader could be asked.
        member: Who reads it; None: nobody does now.
    """

    topic: str
    partition: int
    current_offset: int | None
    metadata: str
    log_start_offset: int | None
    log_end_offset: int | None
    lag: Lag | None
    member: GroupMember | None


def description_of(found: DescribedGroup, coordinator: int) -> GroupDescription:
    """Return a group as its coordinator describes it, with what members say decoded."""
    members = tuple(_member_of(one, found.protocol_type) for one in found.members)
    return GroupDescription(
        found.group,
        found.state,
        found.protocol_type,
        found.protocol,
        found.generation,
        found.leader,
        coordinator,
        tuple(sorted(members, key=lambda member: member.member_id)),
    )


def _member_of(found: DescribedMember, protocol_type: str) -> GroupMember:
    topics: tuple[str, ...] = ()
    assignment: tuple[TopicPartition, ...] = ()
    if protocol_type == PROTOCOL_TYPE:
        try:
            topics = decode_subscription(found.metadata).topics
            assignment = decode_assignment(found.assignment).partitions if found.assignment else ()
        except ProtocolError:  # some client's own kind of bytes: what it reads is not known
            pass
    process = found.process
    return GroupMember(
        found.member_id,
        found.instance_id,
        found.client_id,
        found.client_host,
        None if process is None else process.pid,
        "" if process is None else process.machine,
        topics,
        tuple(sorted(assignment)),
    )


def who(members: tuple[GroupMember, ...]) -> str:
    """Return a few members as a sentence names them."""
    named = [
        f"{member.instance_id or member.member_id} on {member.host or 'an unknown host'}"
        + (f" (pid {member.pid})" if member.pid is not None else "")
        for member in members[:_MEMBERS_NAMED_MAX]
    ]
    more = len(members) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def check_states(states: tuple[str, ...]) -> list[str]:
    """Return states under Kafka's names, whatever case they were given in.

    Raises:
        UsageError: there is no such state.
    """
    by_lower = {state.lower(): state for state in STATES}
    for state in states:
        if state.lower() not in by_lower:
            raise UsageError(f"state {state!r} is not {', '.join(STATES)}")
    return [by_lower[state.lower()] for state in states]
