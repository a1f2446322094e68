"""Consumer groups at a broker: requests to the shards of the partitions of `__consumer_offsets` that are led here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from brokerd.groups.config import GroupConfig
from brokerd.groups.member import Watch
from brokerd.groups.records import partition_of
from brokerd.serving.group_deletion import GroupDeletion
from brokerd.serving.group_shards import GroupCounts, HostedShard
from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.partition import Partition
from ingest.client.groups.consumer_protocol import decode_subscription
from ingest.errors import ProtocolError
from ingest.limits import MIB
from ingest.topic_name import CONSUMER_OFFSETS
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request
from ingest.wire.group_messages import (
    DeleteGroupsRequest,
    DescribedGroup,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    FoundCoordinator,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListedGroup,
    ListGroupsRequest,
    ListGroupsResponse,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
    SyncGroupRequest,
    decode_assignments,
)
from ingest.wire.messages import ApiKey, MetadataResponse, TopicMetadata

if TYPE_CHECKING:
    from brokerd.groups.shard import Shard

PAYLOAD_BYTES_MAX = 4 * MIB  # what members say of themselves in one request
DESCRIBED_BYTES = MIB  # after so many no further group is described, or listed, in one answer
LISTED_BYTES = 40  # the most a group takes in a list, beside its name and protocol type
WAITING_MAX = 100_000  # answers of one partition that wait for a commit
WAITING_ITEMS_MAX = 500_000  # offsets and members that those name: some 100 bytes each

GROUP_APIS = frozenset(
    {
        ApiKey.FIND_COORDINATOR,
        ApiKey.JOIN_GROUP,
        ApiKey.SYNC_GROUP,
        ApiKey.HEARTBEAT,
        ApiKey.LEAVE_GROUP,
        ApiKey.OFFSET_COMMIT,
        ApiKey.OFFSET_FETCH,
        ApiKey.OFFSET_DELETE,
        ApiKey.LIST_GROUPS,
        ApiKey.DESCRIBE_GROUPS,
        ApiKey.DELETE_GROUPS,
    }
)


class GroupRoom:
    """Serve groups. Thread: the broker loop.

    Args:
        member_prefix: Makes the member ids of this process different from those of any other.

    Attributes:
        touched: Partitions appended to; the owner takes them, flushes them and moves their high watermark.
        damaged: Partitions in which damage was met, and where; the owner takes them.
        wanted: Somebody asked for a group, and the topic does not exist yet; the owner creates it.
        counts: What has happened to groups here.
        topic_names: Of all topics, by id; replaced whole.
    """

    def __init__(self, outbox: Outbox, member_prefix: str) -> None:
        self._outbox = outbox
        self._member_prefix = member_prefix
        self._members_named = 0
        self._config = GroupConfig()
        self._shards: dict[int, HostedShard] = {}
        self._topic: TopicMetadata | None = None
        self.counts = GroupCounts()
        self.topic_names: Mapping[bytes, str] = {}
        self._partition_counts: dict[bytes, int] = {}
        self._deleted_topics: frozenset[bytes] = frozenset()
        self._topic_ids: dict[str, bytes] = {}
        self._unwatched: list[Watch] = []
        self.touched: dict[Partition, None] = {}
        self.damaged: dict[Partition, str] = {}
        self.wanted = False

    # ---- which groups are here ---------------------------------------------------------------------------------------

    def update(self, snapshot: MetadataResponse) -> None:
        """Take newer metadata: settings, where groups are, and which topics are no more."""
        config = _group_config(snapshot.broker_configs)
        if config != self._config:
            self._config = config
            for hosted in self._shards.values():
                hosted.configure(config)
        self._topic = next((topic for topic in snapshot.topics if topic.name == CONSUMER_OFFSETS), None)
        self._topic_ids = {topic.name: topic.topic_id for topic in snapshot.topics}
        self.topic_names = {topic_id: name for name, topic_id in self._topic_ids.items()}
        self._partition_counts = {topic.topic_id: len(topic.partitions) for topic in snapshot.topics}
        self._deleted_topics = frozenset(snapshot.deleted_topic_ids)
        for hosted in self._shards.values() if self._deleted_topics else ():
            if hosted.shard is not None:
                hosted.take(hosted.shard.topics_deleted(self._deleted_topics))

    def lead(self, partition: Partition) -> None:
        """Coordinate the groups of a partition that is led here, perhaps under a new epoch."""
        known = self._shards.get(partition.log.partition)
        if known is not None:
            if known.is_current:
                return
            self._drop(known, ErrorCode.NOT_COORDINATOR)
        self._shards[partition.log.partition] = HostedShard(partition, self._config, self._outbox, self.counts)

    def end(self, partition: Partition) -> None:
        """Coordinate the groups of a partition no longer."""
        known = self._shards.pop(partition.log.partition, None)
        if known is not None:
            self._drop(known, ErrorCode.NOT_COORDINATOR)

    def _drop(self, hosted: HostedShard, code: ErrorCode) -> None:
        if hosted.shard is not None:
            for group in hosted.shard.groups.values():
                self._unwatched += [Watch(group.name, member_id, None) for member_id in group.members]
        hosted.abandon(code)

    @property
    def loading(self) -> bool:
        """Whether groups are being read that may be asked for."""
        return any(hosted.shard is None for hosted in self._shards.values())

    def load_some(self, now_ms: int) -> None:
        """Go on reading what is stored of the first groups that are due: others do not wait for those that can't be."""
        for hosted in self._shards.values():
            if hosted.shard is None and hosted.load_at_ms <= now_ms:
                hosted.load_some(now_ms, self._deleted_topics)
                if hosted.damage:
                    self.damaged[hosted.partition], hosted.damage = hosted.damage, ""
                return

    # ---- requests ----------------------------------------------------------------------------------------------------

    def handle(self, peer: Peer, request: Request, now_ms: int, wall_ms: int) -> None:
        """Serve one request; its answer comes now, when it is committed, or when a rebalance goes on."""
        if sum(memoryview(frame).nbytes for frame in request.payload) > PAYLOAD_BYTES_MAX:
            self._refuse(peer, request, ErrorCode.INVALID_REQUEST, "members say too much of themselves")
            return
        match request.body:
            case FindCoordinatorRequest() as body:
                found = [self._coordinator(group) for group in body.groups]
                self._outbox.answer(peer, request.correlation_id, FindCoordinatorResponse(found))
            case ListGroupsRequest() as body:
                self._list(peer, request, body)
            case DescribeGroupsRequest() as body:
                self._describe(peer, request, body, now_ms)
            case DeleteGroupsRequest() as body:
                self._delete(peer, request, body)
            case body:
                hosted = self._hosted(body.group)
                if isinstance(hosted, ErrorCode):
                    self._refuse(peer, request, hosted, self._why_no_group(body.group) or f"group {body.group!r}")
                elif hosted.waiting >= WAITING_MAX or hosted.waiting_items >= WAITING_ITEMS_MAX:
                    self._refuse(peer, request, ErrorCode.THROTTLING_QUOTA_EXCEEDED, "too many wait already")
                else:
                    assert hosted.shard is not None
                    self._handle(hosted, hosted.shard, peer, request, now_ms, wall_ms)

    def _handle(
        self, hosted: HostedShard, shard: Shard, peer: Peer, request: Request, now_ms: int, wall_ms: int
    ) -> None:
        token = (peer, request.correlation_id)
        match request.body:
            case HeartbeatRequest() as body:
                hosted.take(shard.heartbeat(body, token, now_ms))
            case OffsetFetchRequest() as body:
                hosted.answer(peer, request.correlation_id, shard.fetch(body))
            case _ if hosted.refusal:
                self._refuse(peer, request, ErrorCode.COORDINATOR_NOT_AVAILABLE, hosted.refusal)
            case JoinGroupRequest() as body if len(request.payload) != len(body.protocols):
                self._refuse(peer, request, ErrorCode.INVALID_REQUEST, "one payload frame for each protocol is due")
            case JoinGroupRequest() as body:
                metadata = [bytes(frame) for frame in request.payload]
                member_id = self._new_member_id(request.client_id)
                hosted.take(shard.join(body, metadata, token, member_id, client_id=request.client_id, now_ms=now_ms))
            case SyncGroupRequest() as body:
                try:
                    assignments = dict(decode_assignments(request.payload[0])) if request.payload else {}
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    self._refuse(peer, request, ErrorCode.INVALID_REQUEST, f"assignments: {error}")
                    return
                hosted.take(shard.sync(body, assignments, token, now_ms=now_ms))
            case LeaveGroupRequest() as body:
                hosted.take(shard.leave(body, token, now_ms))
            case OffsetCommitRequest() as body:
                places = [(item.topic_id, item.partition) for item in body.offsets]
                counts = self._partition_counts
                topics = {topic_id for topic_id, _ in places if topic_id not in counts}
                unknown = {place for place in places if not 0 <= place[1] < counts.get(place[0], 0)}
                commit = shard.commit(body, topics, token, wall_ms=wall_ms, now_ms=now_ms, unknown_places=unknown)
                hosted.take(commit)
            case OffsetDeleteRequest() as body:
                subscribed = self._subscribed(shard, body.group)
                no_topics = {topic_id for topic_id, _ in body.partitions} - self.topic_names.keys()
                hosted.take(shard.delete_offsets(body, subscribed, token, unknown_topics=no_topics))

    def _subscribed(self, shard: Shard, group: str) -> set[bytes]:
        """Return the topics whose offsets a group goes on to use; all of them where members do not say which."""
        known = shard.groups.get(group)
        if known is None or not known.members:
            return set()
        try:
            metadata = [data for member in known.members.values() for _, data in member.protocols]
            names = {name for data in metadata for name in decode_subscription(data).topics}
        except ProtocolError:
            return {topic_id for topic_id, _ in shard.offsets.of(group)}
        return {self._topic_ids[name] for name in names if name in self._topic_ids}

    def _new_member_id(self, client_id: str) -> str:
        self._members_named += 1
        return f"{client_id or 'member'}-{self._member_prefix}-{self._members_named}"

    def _refuse(self, peer: Peer, request: Request, code: ErrorCode, message: str) -> None:
        self._outbox.refuse(peer, request.correlation_id, code, message)

    # ---- where groups are --------------------------------------------------------------------------------------------

    def _partition_of(self, group: str) -> int | ErrorCode:
        if self._why_no_group(group):
            return ErrorCode.INVALID_GROUP_ID
        if self._topic is None:
            self.wanted = True
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        return partition_of(group, len(self._topic.partitions))

    def _why_no_group(self, group: str) -> str:
        """Return why no group can have this id, or an empty string."""
        if not group:
            return "a group id can't be empty"
        if len(group) > self._config.group_chars_max:
            return f"a group id of {len(group)} characters: at most {self._config.group_chars_max} are allowed"
        return ""

    def _coordinator(self, group: str) -> FoundCoordinator:
        partition = self._partition_of(group)
        if isinstance(partition, ErrorCode):
            return FoundCoordinator(int(partition), message=self._why_no_group(group))
        assert self._topic is not None
        leader = self._topic.partitions[partition].leader
        if leader < 0:
            return FoundCoordinator(int(ErrorCode.COORDINATOR_NOT_AVAILABLE))
        return FoundCoordinator(0, leader)

    def _hosted(self, group: str) -> HostedShard | ErrorCode:
        """Return the shard that coordinates a group, or why it is not to be had here."""
        partition = self._partition_of(group)
        if isinstance(partition, ErrorCode):
            return partition
        hosted = self._shards.get(partition)
        if hosted is None or not hosted.is_current:
            return ErrorCode.NOT_COORDINATOR
        return hosted if hosted.shard is not None else ErrorCode.COORDINATOR_LOAD_IN_PROGRESS

    # ---- administration ----------------------------------------------------------------------------------------------

    def _list(self, peer: Peer, request: Request, body: ListGroupsRequest) -> None:
        """List the next groups, as many as there is room for. Cost: a look at all names."""
        shards = [hosted.shard for hosted in self._shards.values() if hosted.shard is not None]
        names = sorted((name, at) for at, shard in enumerate(shards) for name in shard.names() if name > body.after)
        listed: list[ListedGroup] = []
        size, more = 0, False
        for name, at in names:
            group = shards[at].listed(name)
            if body.states and group.state not in body.states:
                continue
            size += LISTED_BYTES + len(name.encode()) + len(group.protocol_type.encode())
            more = size > DESCRIBED_BYTES and bool(listed)
            if more:
                break
            listed.append(group)
        code = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if self.loading else ErrorCode.NONE
        self._outbox.answer(peer, request.correlation_id, ListGroupsResponse(int(code), listed, more))

    def _describe(self, peer: Peer, request: Request, body: DescribeGroupsRequest, now_ms: int) -> None:
        """Describe each group once, as far as there is room: a request of 64 KiB can name thousands of large ones."""
        described = []
        size = 0
        for group in dict.fromkeys(body.groups):
            hosted = self._hosted(group)
            if isinstance(hosted, ErrorCode):
                described.append(DescribedGroup(int(hosted), group, message=self._why_no_group(group)))
            elif size >= DESCRIBED_BYTES:
                text = "the answer is full: ask for fewer groups"
                described.append(DescribedGroup(int(ErrorCode.MESSAGE_TOO_LARGE), group, state="", message=text))
            else:
                assert hosted.shard is not None
                described.append(hosted.shard.describe(group, now_ms))
                size += len(msgspec.msgpack.encode(described[-1]))
        self._outbox.answer(peer, request.correlation_id, DescribeGroupsResponse(described))

    def _delete(self, peer: Peer, request: Request, body: DeleteGroupsRequest) -> None:
        """Delete groups of one coordinator; others are named by their codes."""
        codes = [ErrorCode.NONE] * len(body.groups)
        here: dict[HostedShard, list[int]] = defaultdict(list)
        for index, group in enumerate(body.groups):
            hosted = self._hosted(group)
            if isinstance(hosted, ErrorCode):
                codes[index] = hosted
            elif hosted.refusal:
                codes[index] = ErrorCode.COORDINATOR_NOT_AVAILABLE
            elif hosted.waiting >= WAITING_MAX:
                codes[index] = ErrorCode.THROTTLING_QUOTA_EXCEEDED
            else:
                here[hosted].append(index)
        for hosted, indexes in here.items():
            assert hosted.shard is not None
            deleted, effects = hosted.shard.delete([body.groups[index] for index in indexes])
            for index, code in zip(indexes, deleted, strict=True):
                codes[index] = code
            hosted.take(effects)
        deletion = GroupDeletion(self._outbox, peer, request.correlation_id, codes, len(here))
        for hosted, indexes in here.items():
            hosted.then(partial(deletion.settle, indexes))

    # ---- time and the log --------------------------------------------------------------------------------------------

    def process_ended(self, group: str, member_id: str, now_ms: int) -> None:
        """The process of a member has ended."""
        self._with_shard(group, lambda hosted, shard: hosted.take(shard.process_ended(group, member_id, now_ms)))

    def process_watched(self, group: str, member_id: str) -> None:
        """The process of a member is seen to live."""
        self._with_shard(group, lambda _, shard: shard.watched(group, member_id))

    def _with_shard(self, group: str, act: Callable[[HostedShard, Any], None]) -> None:
        hosted = self._hosted(group)
        if isinstance(hosted, HostedShard) and hosted.shard is not None:
            act(hosted, hosted.shard)

    def tick(self, now_ms: int) -> None:
        """Let time pass for groups."""
        for hosted in self._shards.values():
            if hosted.full and hosted.partition.enough_in_sync:
                hosted.probe(now_ms)
            elif hosted.shard is not None and hosted.shard.next_ms() <= now_ms and not hosted.refusal:
                hosted.take(hosted.shard.tick(now_ms))

    def take_watches(self) -> list[Watch]:
        """Return the processes to watch, and no longer to watch, since the last call."""
        watches, self._unwatched = self._unwatched, []
        for hosted in self._shards.values():
            watches += hosted.watches
            hosted.watches = []
        return watches

    def store(self, wall_ms: int) -> None:
        """Append what was decided since the last call, and let answers wait for its commit."""
        for number, hosted in self._shards.items():
            if not hosted.is_current or not hosted.has_news:
                continue
            self.touched[hosted.partition] = None
            if not hosted.store(wall_ms):
                self._drop(hosted, ErrorCode.COORDINATOR_NOT_AVAILABLE)
                self._shards[number] = HostedShard(hosted.partition, self._config, self._outbox, self.counts, full=True)

    def committed(self, partition: Partition) -> None:
        """Answer what waited for the partition's high watermark, which has moved."""
        hosted = self._shards.get(partition.log.partition)
        if hosted is not None and hosted.partition is partition:
            hosted.committed()

    def next_deadline_ms(self) -> int | None:
        """Return when `tick` or `load_some` is due at the latest."""
        times = [
            hosted.next_ms
            for hosted in self._shards.values()
            if hosted.shard is None or hosted.partition.enough_in_sync
        ]
        return min(times, default=None)

    # ---- looking -----------------------------------------------------------------------------------------------------

    def shards(self) -> Mapping[int, Shard]:
        """Return the loaded shards by partition. Thread: any."""
        hosted = list(self._shards.items())  # in one step, since the loop may go on meanwhile
        return {number: shard for number, one in hosted if (shard := one.shard) is not None}


def _group_config(configs: Mapping[str, str]) -> GroupConfig:
    """Return what the cluster's settings say of groups."""
    default = GroupConfig()
    minutes = int(configs.get("offsets.retention.minutes", default.offsets_retention_ms // 60_000))
    return msgspec.structs.replace(
        default,
        initial_rebalance_delay_ms=int(
            configs.get("group.initial.rebalance.delay.ms", default.initial_rebalance_delay_ms)
        ),
        session_timeout_ms_min=int(configs.get("group.min.session.timeout.ms", default.session_timeout_ms_min)),
        session_timeout_ms_max=int(configs.get("group.max.session.timeout.ms", default.session_timeout_ms_max)),
        members_max=int(configs.get("group.max.size", default.members_max)),
        metadata_chars_max=int(configs.get("offset.metadata.max.bytes", default.metadata_chars_max)),
        offsets_retention_ms=-1 if minutes < 0 else minutes * 60_000,
    )
