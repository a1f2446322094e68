"""Requests and responses of the native protocol: array-like msgspec Structs, Kafka's names and numbers.

A request is one header frame, the msgpack of `RequestHeader`, and at most 16 payload frames; a response likewise with
`ResponseHeader`. `body` holds the msgpack of the Struct that `REQUESTS` / `RESPONSES` name for the api. Payload frames
hold whole batches and are never copied through msgpack. Fields are only ever added at the end, with a default: a
decoder of version N reads what N-1 wrote.

Source: docs/format/wire.md.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from ingest.wire import group_messages as groups
from ingest.wire.message import Message

EARLIEST_TIMESTAMP = -2
LATEST_TIMESTAMP = -1


class ApiKey(IntEnum):
    """Kafka's api keys, and from 1000 on our own."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    CONTROLLED_SHUTDOWN = 7
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    DESCRIBE_CONFIGS = 32
    ALTER_CONFIGS = 33
    DESCRIBE_LOG_DIRS = 35
    CREATE_PARTITIONS = 37
    DELETE_GROUPS = 42
    ELECT_LEADERS = 43
    ALTER_PARTITION_REASSIGNMENTS = 45
    OFFSET_DELETE = 47
    DESCRIBE_CLIENT_QUOTAS = 48
    ALTER_CLIENT_QUOTAS = 49
    ALTER_PARTITION = 56
    BROKER_REGISTRATION = 62
    BROKER_HEARTBEAT = 63
    ALLOCATE_PRODUCER_IDS = 67
    DRAIN_BROKER = 1000
    OFFSET_LAG = 1001


# Spoken between brokers and the controller alone.
BROKER_APIS = frozenset(
    {
        ApiKey.CONTROLLED_SHUTDOWN,
        ApiKey.ALTER_PARTITION,
        ApiKey.BROKER_REGISTRATION,
        ApiKey.BROKER_HEARTBEAT,
        ApiKey.ALLOCATE_PRODUCER_IDS,
    }
)

VERSION_MIN = 0
VERSION_MAX = 0


class RequestHeader(Message, frozen=True):
    """First frame of a request. `timeout_ms` is what is left until the sender's deadline."""

    api_key: int
    version: int
    correlation_id: int
    timeout_ms: int
    body: msgspec.Raw
    client_id: str = ""


class ResponseHeader(Message, frozen=True):
    """First frame of a response. With a code other than 0 the body may be absent (nil)."""

    correlation_id: int
    error_code: int
    body: msgspec.Raw
    message: str = ""


# ---- Produce ---------------------------------------------------------------------------------------------------------


class ProducePartition(Message, frozen=True):
    """One batch for one partition; the batch is the payload frame of the same index."""

    topic_id: bytes
    partition: int
    leader_epoch: int = -1


class ProduceRequest(Message, frozen=True):
    """`acks`: 0 no answer, 1 the leader has it flushed (appended under durability=os), -1 below the high watermark.

    With `tell_throttle` 0 is answered too, once it is appended: for who heeds a quota.
    """

    acks: int
    partitions: list[ProducePartition]
    tell_throttle: bool = False


class ProducedPartition(Message, frozen=True):
    error_code: int
    base_offset: int = -1
    append_time_ms: int = -1
    log_start_offset: int = -1
    message: str = ""


class ProduceResponse(Message, frozen=True):
    """`throttle_ms`: the client is over its quota; it sends this broker nothing to append for so long (KIP-219).

    `counted`: it has a quota.
    """

    partitions: list[ProducedPartition]
    throttle_ms: int = 0
    counted: bool = False


# ---- Fetch -----------------------------------------------------------------------------------------------------------


class FetchPartition(Message, frozen=True):
    """`last_epoch` is the leader epoch of the record read before `offset`, -1 unknown (KIP-320).

    A follower asks from the end of its log, and says with `flushed_end` how much of it is on its disk, and with
    `cleaned_end` below which offset compaction has left one record of each key there.
    """

    topic_id: bytes
    partition: int
    offset: int
    max_bytes: int
    leader_epoch: int = -1
    last_epoch: int = -1
    flushed_end: int = -1
    cleaned_end: int = 0


class FetchSession(Message, frozen=True):
    """A follower's fetch; it names only the partitions whose position is new since the last one (KIP-227).

    With `epoch` 0 a session begins and all partitions are named; each further fetch raises it by one. `forgotten` are
    partitions it follows no longer.
    """

    broker_id: int
    broker_epoch: int
    session_id: int
    epoch: int
    forgotten: list[tuple[bytes, int]] = []


class FetchRequest(Message, frozen=True):
    """Wait until `min_bytes` are below the high watermark or the time is over.

    With `max_bytes` 0 no records are wanted: the answer comes as soon as any high watermark passes the offset asked
    for. It is the doorbell of readers that map the files. With a `session` a follower asks: it gets what is appended,
    and only the partitions there is news of. Only the socket for brokers takes it. With a `rack` the reader would
    rather be served there: a leader may name another replica, and a follower answers too (KIP-392).
    """

    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    partitions: list[FetchPartition]
    session: FetchSession | None = None
    rack: str = ""


class FetchedPartition(Message, frozen=True):
    """`frame` is the index of the payload frame, -1 for none. `row` is the partition's row on this broker's state page.

    A first batch may start below the offset asked for. With CORRUPT_MESSAGE `next_offset` is the next one to be had.
    `diverging_end_offset` >= 0: the log is not the one that was read; it holds records up to the epoch asked about
    below that offset alone, `diverging_epoch` being the last of them. `preferred_read_replica` >= 0: no records come;
    that broker is to be asked from now on.
    """

    topic_id: bytes
    partition: int
    error_code: int
    high_watermark: int = -1
    log_start_offset: int = -1
    leader_epoch: int = -1
    frame: int = -1
    row: int = -1
    next_offset: int = -1
    diverging_epoch: int = -1
    diverging_end_offset: int = -1
    preferred_read_replica: int = -1


class FetchResponse(Message, frozen=True):
    """`throttle_ms`: the client is over its quota; it fetches nothing from this broker for so long (KIP-219).

    `counted`: it has a quota, and reads no maps of this broker: what it gets is counted.
    """

    partitions: list[FetchedPartition]
    throttle_ms: int = 0
    counted: bool = False


# ---- ListOffsets, OffsetLag, DeleteRecords ---------------------------------------------------------------------------


class ListOffsetsPartition(Message, frozen=True):
    """`timestamp_ms`: -1 the high watermark, -2 the log start, else the first record at or after it."""

    topic_id: bytes
    partition: int
    timestamp_ms: int
    leader_epoch: int = -1


class ListOffsetsRequest(Message, frozen=True):
    partitions: list[ListOffsetsPartition]


class ListedOffset(Message, frozen=True):
    """`offset` -1: no record is that late."""

    error_code: int
    offset: int = -1
    timestamp_ms: int = -1
    leader_epoch: int = -1


class ListOffsetsResponse(Message, frozen=True):
    partitions: list[ListedOffset]


class OffsetLagPartition(Message, frozen=True):
    """`offset` is the next record a reader would read."""

    topic_id: bytes
    partition: int
    offset: int
    leader_epoch: int = -1


OFFSET_LAG_PARTITIONS_MAX = 100  # at some 35 us each: others wait for their leader no longer than 4 ms


class OffsetLagRequest(Message, frozen=True):
    """Ask a leader what readers have not read yet, in OFFSET_LAG_PARTITIONS_MAX partitions at most."""

    partitions: list[OffsetLagPartition]


class OffsetLag(Message, frozen=True):
    """What lies between an offset and the high watermark; what is below the log start does not count.

    `lag_records` are offsets: in a compacted log some are holes. `lag_bytes` are those of the stored batches that hold
    any of them. `lag_ms` is how long ago the oldest was appended at its leader, 0 where nothing is unread.
    """

    error_code: int
    log_start_offset: int = -1
    high_watermark: int = -1
    lag_records: int = -1
    lag_bytes: int = -1
    lag_ms: int = -1


class OffsetLagResponse(Message, frozen=True):
    partitions: list[OffsetLag]


EPOCH_END_PARTITIONS_MAX = 100  # as for OffsetLag: an epoch that was not asked for before costs looks into indexes


class EpochEndPartition(Message, frozen=True):
    """`epoch` is that of records somebody has read, `leader_epoch` that of the leader known to who asks."""

    topic_id: bytes
    partition: int
    epoch: int
    leader_epoch: int = -1


class OffsetForLeaderEpochRequest(Message, frozen=True):
    """Ask a leader where leader epochs end, in EPOCH_END_PARTITIONS_MAX partitions at most (KIP-101, KIP-320)."""

    partitions: list[EpochEndPartition]


class EpochEnd(Message, frozen=True):
    """The greatest epoch up to the one asked for that the log has records of, and where it ends; -1: none is so old."""

    error_code: int
    epoch: int = -1
    end_offset: int = -1


class OffsetForLeaderEpochResponse(Message, frozen=True):
    partitions: list[EpochEnd]


class DescribeLogDirsRequest(Message, frozen=True):
    """Ask one broker what it holds."""


class ReplicaSize(Message, frozen=True):
    """A replica on a broker's disk."""

    topic_id: bytes
    partition: int
    size_bytes: int


class DescribeLogDirsResponse(Message, frozen=True):
    """A broker has one directory. `total_bytes` and `usable_bytes` are those of its file system (KIP-827)."""

    log_dir: str
    total_bytes: int
    usable_bytes: int
    replicas: list[ReplicaSize]


class DeleteRecordsPartition(Message, frozen=True):
    """Delete records below `offset`; -1 is the high watermark."""

    topic_id: bytes
    partition: int
    offset: int


class DeleteRecordsRequest(Message, frozen=True):
    partitions: list[DeleteRecordsPartition]


class DeletedRecords(Message, frozen=True):
    error_code: int
    log_start_offset: int = -1
    message: str = ""


class DeleteRecordsResponse(Message, frozen=True):
    partitions: list[DeletedRecords]


# ---- Metadata --------------------------------------------------------------------------------------------------------


class MetadataRequest(Message, frozen=True):
    """Ask for the cluster as one broker knows it.

    With `known_version` >= 0 the answer waits until there is a newer version or the time is over. `topics` None is all.
    """

    topics: list[str] | None = None
    known_version: int = -1
    allow_auto_topic_creation: bool = False
    max_wait_ms: int = 0


class BrokerMetadata(Message, frozen=True):
    """`machine` is the boot id, `endpoints` what clients connect to, the nearest first (ipc before tcp).

    `peer_endpoints` is the same for other brokers. `site` names the machine as a failure domain, over its reboots.
    `kafka_endpoints` is where its machine's gateway has Kafka's clients find it, as Kafka writes it: PLAINTEXT://host:9092.
    """

    broker_id: int
    broker_epoch: int
    endpoints: list[str]
    machine: str
    log_dir: str
    page_path: str
    incarnation: int
    alive: bool = True
    rack: str = ""
    directory_id: str = ""
    device: int = 0
    peer_endpoints: list[str] = []
    site: str = ""
    draining: bool = False
    kafka_endpoints: list[str] = []


class PartitionMetadata(Message, frozen=True):
    """`leader` is -1 while nobody may lead. From `eligible` on see replicas.state.PartitionState."""

    partition: int
    leader: int
    leader_epoch: int
    replicas: list[int]
    isr: list[int]
    partition_epoch: int = 0
    eligible: list[int] = []
    recovering: list[int] = []
    adding: list[int] = []
    removing: list[int] = []
    unclean_epoch: int = -1
    throttle_bytes_per_s: int = 0


class TopicMetadata(Message, frozen=True):
    name: str
    topic_id: bytes
    partitions: list[PartitionMetadata]
    configs: dict[str, str]
    error_code: int = 0


class MetadataResponse(Message, frozen=True):
    """From `deleted_topic_ids` on it is filled for brokers alone; those are the topics they may erase.

    `client_quotas` are rates by client id, see `ClientQuota`.
    """

    cluster_id: str
    version: int
    controller_epoch: int
    brokers: list[BrokerMetadata]
    topics: list[TopicMetadata]
    deleted_topic_ids: list[bytes] = []
    broker_configs: dict[str, str] = {}
    client_quotas: dict[str, dict[str, int]] = {}


# ---- Administration --------------------------------------------------------------------------------------------------


class ApiVersionsRequest(Message, frozen=True):
    pass


class ApiVersion(Message, frozen=True):
    api_key: int
    min_version: int
    max_version: int


class ApiVersionsResponse(Message, frozen=True):
    api_keys: list[ApiVersion]
    broker_id: int
    cluster_id: str
    incarnation: int = 0


class NewTopic(Message, frozen=True):
    """-1 takes the broker's default (num.partitions, default.replication.factor)."""

    name: str
    partitions: int = -1
    replication_factor: int = -1
    configs: dict[str, str] = {}


class CreateTopicsRequest(Message, frozen=True):
    topics: list[NewTopic]
    validate_only: bool = False


class TopicResult(Message, frozen=True):
    name: str
    error_code: int
    message: str = ""
    topic_id: bytes = b""


class CreateTopicsResponse(Message, frozen=True):
    topics: list[TopicResult]


class DeleteTopicsRequest(Message, frozen=True):
    topics: list[str]


class DeleteTopicsResponse(Message, frozen=True):
    topics: list[TopicResult]


class NewPartitions(Message, frozen=True):
    name: str
    total_count: int


class CreatePartitionsRequest(Message, frozen=True):
    topics: list[NewPartitions]
    validate_only: bool = False


class CreatePartitionsResponse(Message, frozen=True):
    topics: list[TopicResult]


class ResourceType(IntEnum):
    TOPIC = 2
    BROKER = 4


class ConfigResource(Message, frozen=True):
    resource_type: int
    name: str


class DescribeConfigsRequest(Message, frozen=True):
    resources: list[ConfigResource]


class ConfigEntry(Message, frozen=True):
    """`source` is Kafka's ConfigSource: 1 dynamic topic, 2 dynamic broker, 4 static broker, 5 default."""

    name: str
    value: str
    source: int
    read_only: bool = False
    documentation: str = ""


class DescribedConfigs(Message, frozen=True):
    resource: ConfigResource
    error_code: int
    entries: list[ConfigEntry] = []
    message: str = ""


class DescribeConfigsResponse(Message, frozen=True):
    resources: list[DescribedConfigs]


class AlterConfig(Message, frozen=True):
    """Kafka's IncrementalAlterConfigs: a value sets, None puts back the default."""

    name: str
    value: str | None


class AlterConfigsResource(Message, frozen=True):
    resource: ConfigResource
    configs: list[AlterConfig]


class AlterConfigsRequest(Message, frozen=True):
    resources: list[AlterConfigsResource]
    validate_only: bool = False


class AlteredConfigs(Message, frozen=True):
    resource: ConfigResource
    error_code: int
    message: str = ""


class AlterConfigsResponse(Message, frozen=True):
    resources: list[AlteredConfigs]


PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE = "producer_byte_rate", "consumer_byte_rate"


class DescribeClientQuotasRequest(Message, frozen=True):
    """Ask for the quotas of all clients that have one."""


class ClientQuota(Message, frozen=True):
    """What a client id may use of each broker, in bytes a second by Kafka's names.

    The empty `client_id` stands for all that have no such rate of their own.
    """

    client_id: str
    rates: dict[str, int]


class DescribeClientQuotasResponse(Message, frozen=True):
    quotas: list[ClientQuota]


class AlterClientQuota(Message, frozen=True):
    """Rates as text; None removes one."""

    client_id: str
    rates: list[AlterConfig]


class AlterClientQuotasRequest(Message, frozen=True):
    entries: list[AlterClientQuota]
    validate_only: bool = False


class AlteredClientQuota(Message, frozen=True):
    client_id: str
    error_code: int
    message: str = ""


class AlterClientQuotasResponse(Message, frozen=True):
    entries: list[AlteredClientQuota]


class ElectionType(IntEnum):
    PREFERRED = 0
    UNCLEAN = 1


class ElectLeadersRequest(Message, frozen=True):
    """Elect leaders of partitions, (topic, partition); None is all. `election_type` is Kafka's."""

    election_type: int
    partitions: list[tuple[str, int]] | None = None


class PartitionResult(Message, frozen=True):
    topic: str
    partition: int
    error_code: int
    message: str = ""


class ElectLeadersResponse(Message, frozen=True):
    """One result for each partition that was named, or, if none was, for each whose leader changed or should have."""

    partitions: list[PartitionResult]


class Reassignment(Message, frozen=True):
    """The replicas a partition is to have, the preferred leader first; None cancels what is under way."""

    topic: str
    partition: int
    replicas: list[int] | None


class AlterPartitionReassignmentsRequest(Message, frozen=True):
    """`throttle_bytes_per_s`: what each broker may send, and fetch, for replicas that are added; 0: no bound."""

    partitions: list[Reassignment]
    throttle_bytes_per_s: int = 0


class AlterPartitionReassignmentsResponse(Message, frozen=True):
    partitions: list[PartitionResult]


class DrainBrokerRequest(Message, frozen=True):
    """Move everything off a broker, and put nothing new there; `drain` False takes that back."""

    broker_id: int
    drain: bool = True


class DrainBrokerResponse(Message, frozen=True):
    """How many partitions have a replica there that is to move, and how many can't for want of another broker."""

    moving: int
    staying: int


class InitProducerIdRequest(Message, frozen=True):
    """-1 asks for a new id; an id with its epoch asks for the next epoch of it (KIP-360)."""

    producer_id: int = -1
    producer_epoch: int = -1


class InitProducerIdResponse(Message, frozen=True):
    producer_id: int
    producer_epoch: int


# ---- Broker and controller -------------------------------------------------------------------------------------------


class LocalPartition(Message, frozen=True):
    """What a broker found on its disk, so that epochs granted are above every epoch ever used."""

    topic_id: bytes
    partition: int
    leader_epoch: int
    log_end_offset: int


class BrokerRegistrationRequest(Message, frozen=True):
    """One incarnation of a broker asks to join; the answer comes after its new leader epochs are durable.

    `intact`: nothing its logs held is lost: it was closed in good order, or only its process died. `incarnations` are
    those of the processes that had its directory open before; without that of the last one that registered it is an
    older copy of the directory. Empty: not known.
    """

    broker: BrokerMetadata
    cluster_id: str
    partitions: list[LocalPartition]
    producer_id_floor: int = -1
    intact: bool = False
    incarnations: list[int] = []


class BrokerRegistrationResponse(Message, frozen=True):
    """`version` is the metadata version that holds the new epochs."""

    broker_epoch: int
    version: int
    controller_epoch: int


class LeaderlessEnd(Message, frozen=True):
    """Where a log ends while nobody may lead its partition, `leader_epoch` being the last that metadata tells of."""

    topic_id: bytes
    partition: int
    leader_epoch: int
    last_epoch: int
    end_offset: int


class DamagedReplica(Message, frozen=True):
    """A replica that is to be refilled, as long as the partition epoch is this one."""

    topic_id: bytes
    partition: int
    partition_epoch: int


class BrokerHeartbeatRequest(Message, frozen=True):
    """The long poll of a broker: it has applied `applied_version` and wants a newer one.

    `leaderless` are the replicas it has of partitions without a leader in that version, `damaged` those that want to
    give up their seats: all of them, each time. With `disk_full` it wants others to lead.
    """

    broker_id: int
    broker_epoch: int
    applied_version: int
    max_wait_ms: int
    leaderless: list[LeaderlessEnd] = []
    damaged: list[DamagedReplica] = []
    disk_full: bool = False


class BrokerHeartbeatResponse(Message, frozen=True):
    """The metadata version in force; `metadata` None: it is the one the broker has applied."""

    version: int
    controller_epoch: int
    metadata: MetadataResponse | None = None


class InSyncReplica(Message, frozen=True):
    """A member of the set its leader proposes, with the broker epoch under which it fetched."""

    broker_id: int
    broker_epoch: int


class AlterPartition(Message, frozen=True):
    """An in-sync set; it is refused unless both epochs are those the controller has."""

    topic_id: bytes
    partition: int
    leader_epoch: int
    partition_epoch: int
    isr: list[InSyncReplica]


class AlterPartitionRequest(Message, frozen=True):
    """A leader asks for other in-sync sets of partitions it leads. What comes of it arrives as metadata."""

    broker_id: int
    broker_epoch: int
    partitions: list[AlterPartition]


class AlteredPartition(Message, frozen=True):
    topic_id: bytes
    partition: int
    error_code: int


class AlterPartitionResponse(Message, frozen=True):
    partitions: list[AlteredPartition]


class ControlledShutdownRequest(Message, frozen=True):
    """A broker is about to end: let others lead what it leads."""

    broker_id: int
    broker_epoch: int


class ControlledShutdownResponse(Message, frozen=True):
    """How many partitions it still leads, for want of another in-sync replica."""

    remaining: int


class AllocateProducerIdsRequest(Message, frozen=True):
    broker_id: int
    broker_epoch: int


class AllocateProducerIdsResponse(Message, frozen=True):
    producer_id_start: int
    count: int


REQUESTS: dict[int, type[Message]] = {
    ApiKey.PRODUCE: ProduceRequest,
    ApiKey.FETCH: FetchRequest,
    ApiKey.LIST_OFFSETS: ListOffsetsRequest,
    ApiKey.METADATA: MetadataRequest,
    ApiKey.OFFSET_COMMIT: groups.OffsetCommitRequest,
    ApiKey.OFFSET_FETCH: groups.OffsetFetchRequest,
    ApiKey.FIND_COORDINATOR: groups.FindCoordinatorRequest,
    ApiKey.JOIN_GROUP: groups.JoinGroupRequest,
    ApiKey.HEARTBEAT: groups.HeartbeatRequest,
    ApiKey.LEAVE_GROUP: groups.LeaveGroupRequest,
    ApiKey.SYNC_GROUP: groups.SyncGroupRequest,
    ApiKey.DESCRIBE_GROUPS: groups.DescribeGroupsRequest,
    ApiKey.LIST_GROUPS: groups.ListGroupsRequest,
    ApiKey.DELETE_GROUPS: groups.DeleteGroupsRequest,
    ApiKey.OFFSET_DELETE: groups.OffsetDeleteRequest,
    ApiKey.API_VERSIONS: ApiVersionsRequest,
    ApiKey.CREATE_TOPICS: CreateTopicsRequest,
    ApiKey.DELETE_TOPICS: DeleteTopicsRequest,
    ApiKey.DELETE_RECORDS: DeleteRecordsRequest,
    ApiKey.INIT_PRODUCER_ID: InitProducerIdRequest,
    ApiKey.DESCRIBE_CONFIGS: DescribeConfigsRequest,
    ApiKey.ALTER_CONFIGS: AlterConfigsRequest,
    ApiKey.CREATE_PARTITIONS: CreatePartitionsRequest,
    ApiKey.BROKER_REGISTRATION: BrokerRegistrationRequest,
    ApiKey.BROKER_HEARTBEAT: BrokerHeartbeatRequest,
    ApiKey.ALLOCATE_PRODUCER_IDS: AllocateProducerIdsRequest,
    ApiKey.ALTER_PARTITION: AlterPartitionRequest,
    ApiKey.CONTROLLED_SHUTDOWN: ControlledShutdownRequest,
    ApiKey.ELECT_LEADERS: ElectLeadersRequest,
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: AlterPartitionReassignmentsRequest,
    ApiKey.DRAIN_BROKER: DrainBrokerRequest,
    ApiKey.OFFSET_LAG: OffsetLagRequest,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: OffsetForLeaderEpochRequest,
    ApiKey.DESCRIBE_LOG_DIRS: DescribeLogDirsRequest,
    ApiKey.DESCRIBE_CLIENT_QUOTAS: DescribeClientQuotasRequest,
    ApiKey.ALTER_CLIENT_QUOTAS: AlterClientQuotasRequest,
}
RESPONSES: dict[int, type[Message]] = {
    ApiKey.PRODUCE: ProduceResponse,
    ApiKey.FETCH: FetchResponse,
    ApiKey.LIST_OFFSETS: ListOffsetsResponse,
    ApiKey.METADATA: MetadataResponse,
    ApiKey.OFFSET_COMMIT: groups.OffsetCommitResponse,
    ApiKey.OFFSET_FETCH: groups.OffsetFetchResponse,
    ApiKey.FIND_COORDINATOR: groups.FindCoordinatorResponse,
    ApiKey.JOIN_GROUP: groups.JoinGroupResponse,
    ApiKey.HEARTBEAT: groups.HeartbeatResponse,
    ApiKey.LEAVE_GROUP: groups.LeaveGroupResponse,
    ApiKey.SYNC_GROUP: groups.SyncGroupResponse,
    ApiKey.DESCRIBE_GROUPS: groups.DescribeGroupsResponse,
    ApiKey.LIST_GROUPS: groups.ListGroupsResponse,
    ApiKey.DELETE_GROUPS: groups.DeleteGroupsResponse,
    ApiKey.OFFSET_DELETE: groups.OffsetDeleteResponse,
    ApiKey.API_VERSIONS: ApiVersionsResponse,
    ApiKey.CREATE_TOPICS: CreateTopicsResponse,
    ApiKey.DELETE_TOPICS: DeleteTopicsResponse,
    ApiKey.DELETE_RECORDS: DeleteRecordsResponse,
    ApiKey.INIT_PRODUCER_ID: InitProducerIdResponse,
    ApiKey.DESCRIBE_CONFIGS: DescribeConfigsResponse,
    ApiKey.ALTER_CONFIGS: AlterConfigsResponse,
    ApiKey.CREATE_PARTITIONS: CreatePartitionsResponse,
    ApiKey.BROKER_REGISTRATION: BrokerRegistrationResponse,
    ApiKey.BROKER_HEARTBEAT: BrokerHeartbeatResponse,
    ApiKey.ALLOCATE_PRODUCER_IDS: AllocateProducerIdsResponse,
    ApiKey.ALTER_PARTITION: AlterPartitionResponse,
    ApiKey.CONTROLLED_SHUTDOWN: ControlledShutdownResponse,
    ApiKey.ELECT_LEADERS: ElectLeadersResponse,
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: AlterPartitionReassignmentsResponse,
    ApiKey.DRAIN_BROKER: DrainBrokerResponse,
    ApiKey.OFFSET_LAG: OffsetLagResponse,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: OffsetForLeaderEpochResponse,
    ApiKey.DESCRIBE_LOG_DIRS: DescribeLogDirsResponse,
    ApiKey.DESCRIBE_CLIENT_QUOTAS: DescribeClientQuotasResponse,
    ApiKey.ALTER_CLIENT_QUOTAS: AlterClientQuotasResponse,
}
