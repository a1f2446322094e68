"""Requests and responses of consumer groups: Kafka's classic group protocol in the native form.

What members say of themselves, ConsumerProtocol bytes for consumers, is not looked into. It travels in payload frames,
so that it may be larger than a header frame: for JoinGroup one frame a protocol, for SyncGroup one frame with all
assignments. Offsets are named by topic id: a topic that is created anew under its old name has none.

Source: docs/format/wire.md, docs/concepts/groups.md.
"""

from __future__ import annotations

import msgspec

from ingest.wire.message import Message

NO_GENERATION = -1
CONSUMER_PROTOCOL = "consumer"


# ---- FindCoordinator -------------------------------------------------------------------------------------------------


class FindCoordinatorRequest(Message, frozen=True):
    """Ask which broker coordinates each group."""

    groups: list[str]


class FoundCoordinator(Message, frozen=True):
    error_code: int
    broker_id: int = -1
    message: str = ""


class FindCoordinatorResponse(Message, frozen=True):
    coordinators: list[FoundCoordinator]


# ---- membership ------------------------------------------------------------------------------------------------------


class MemberProcess(Message, frozen=True):
    """The process of a member, for a coordinator on the same machine to watch.

    `machine` is the boot id and `pid_namespace` the inode of the namespace in which `pid` means this process;
    `start_ticks` tells it from a later one with the same number.
    """

    machine: str
    pid_namespace: int
    pid: int
    start_ticks: int


class JoinGroupRequest(Message, frozen=True):
    """`protocols` are names, the one liked best first; the metadata of each is the payload frame of the same index.

    `require_known_member_id`: a first join, without a member id, is given one with MEMBER_ID_REQUIRED and comes again
    (KIP-394). `instance_id` makes a static member (KIP-345). `attempt` counts a member's JoinGroups, 0: it is not told.
    One that is overtaken by a later one, on another connection, is out of date: what its member has stands in it.
    """

    group: str
    member_id: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: list[str]
    instance_id: str | None = None
    require_known_member_id: bool = True
    client_host: str = ""
    process: MemberProcess | None = None
    attempt: int = 0


class JoinedMember(Message, frozen=True):
    member_id: str
    instance_id: str | None
    metadata: bytes


class JoinGroupResponse(Message, frozen=True):
    """`members` is filled for the leader alone. With `skip_assignment` it has nothing to assign (KIP-814)."""

    error_code: int
    member_id: str = ""
    generation: int = NO_GENERATION
    protocol_type: str = ""
    protocol: str = ""
    leader: str = ""
    members: list[JoinedMember] = []
    skip_assignment: bool = False
    message: str = ""


class SyncGroupRequest(Message, frozen=True):
    """From the leader one payload frame holds the assignments: msgpack of a list of (member id, bytes)."""

    group: str
    generation: int
    member_id: str
    instance_id: str | None = None
    protocol_type: str = ""
    protocol: str = ""


class SyncGroupResponse(Message, frozen=True):
    error_code: int
    assignment: bytes = b""
    protocol_type: str = ""
    protocol: str = ""
    message: str = ""


class HeartbeatRequest(Message, frozen=True):
    """A member lives. With `max_wait_ms` the answer waits until a rebalance begins, or for so long."""

    group: str
    generation: int
    member_id: str
    instance_id: str | None = None
    max_wait_ms: int = 0


class HeartbeatResponse(Message, frozen=True):
    error_code: int


class LeavingMember(Message, frozen=True):
    """A member by its id, or a static one by its instance id with an empty member id."""

    member_id: str
    instance_id: str | None = None
    reason: str = ""


class LeaveGroupRequest(Message, frozen=True):
    group: str
    members: list[LeavingMember]


class LeaveGroupResponse(Message, frozen=True):
    """`members`: one error code for each that was named."""

    error_code: int
    members: list[int] = []


# ---- offsets ---------------------------------------------------------------------------------------------------------


class CommittedOffset(Message, frozen=True):
    """The next record to read, and the leader epoch of the last one that was read, -1 unknown (KIP-320)."""

    topic_id: bytes
    partition: int
    offset: int
    leader_epoch: int = -1
    metadata: str = ""


class OffsetCommitRequest(Message, frozen=True):
    """Without a generation it is the commit of no member: taken while the group has none."""

    group: str
    offsets: list[CommittedOffset]
    generation: int = NO_GENERATION
    member_id: str = ""
    instance_id: str | None = None


class OffsetCommitResponse(Message, frozen=True):
    """`offsets`: one error code for each that was named."""

    error_code: int
    offsets: list[int] = []
    message: str = ""


class OffsetFetchRequest(Message, frozen=True):
    """`partitions`, (topic id, partition); None is all the group has, in order, from behind `after` on."""

    group: str
    partitions: list[tuple[bytes, int]] | None = None
    generation: int = NO_GENERATION
    member_id: str = ""
    after: tuple[bytes, int] | None = None


class OffsetFetchResponse(Message, frozen=True):
    """An offset of -1: nothing is committed there. `more`: the group has others, `after` the last of these."""

    error_code: int
    offsets: list[CommittedOffset] = []
    message: str = ""
    more: bool = False


class OffsetDeleteRequest(Message, frozen=True):
    group: str
    partitions: list[tuple[bytes, int]]


class OffsetDeleteResponse(Message, frozen=True):
    """`partitions`: one error code for each that was named."""

    error_code: int
    partitions: list[int] = []
    message: str = ""


# ---- administration --------------------------------------------------------------------------------------------------


class ListGroupsRequest(Message, frozen=True):
    """Ask one broker for the groups it coordinates, by name, from behind `after` on; `states` empty is any."""

    states: list[str] = []
    after: str = ""


class ListedGroup(Message, frozen=True):
    """`members`: how many there are."""

    group: str
    protocol_type: str
    state: str
    members: int = 0


class ListGroupsResponse(Message, frozen=True):
    """With COORDINATOR_LOAD_IN_PROGRESS some groups of this broker are not known yet.

    `more`: there are others, `after` the last of these.
    """

    error_code: int
    groups: list[ListedGroup] = []
    more: bool = False


class DescribeGroupsRequest(Message, frozen=True):
    groups: list[str]


class DescribedMember(Message, frozen=True):
    """`process`: that of a member which told of it; `ended`: it is no more, and its static member has not come back.

    `silent_ms`: for how long nothing was heard of it; `gone_in_ms`: it is given up if that goes on for so long; both -1
    if that is not known. `awaited`: a rebalance goes on once it has joined, or once the leader has assigned.
    """

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes
    process: MemberProcess | None = None
    ended: bool = False
    silent_ms: int = -1
    gone_in_ms: int = -1
    awaited: bool = False


class DescribedGroup(Message, frozen=True):
    """`state`: Empty, PreparingRebalance, CompletingRebalance, Stable, or Dead for one that does not exist."""

    error_code: int
    group: str
    state: str = "Dead"
    protocol_type: str = ""
    protocol: str = ""
    generation: int = NO_GENERATION
    leader: str = ""
    members: list[DescribedMember] = []
    message: str = ""


class DescribeGroupsResponse(Message, frozen=True):
    """Each group that was named, once; MESSAGE_TOO_LARGE from where the answer is full."""

    groups: list[DescribedGroup]


class DeleteGroupsRequest(Message, frozen=True):
    groups: list[str]


class DeleteGroupsResponse(Message, frozen=True):
    """`groups`: one error code for each that was named."""

    groups: list[int]


encode_assignments = msgspec.msgpack.Encoder().encode
decode_assignments = msgspec.msgpack.Decoder(list[tuple[str, bytes]]).decode
