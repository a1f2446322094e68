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

EARLIEST_TIMESTAMP = -2
LATEST_TIMESTAMP = -1


class ApiKey(IntEnum):
    """Kafka's api keys; 62 and up are spoken between broker and controller only."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    DESCRIBE_CONFIGS = 32
    ALTER_CONFIGS = 33
    CREATE_PARTITIONS = 37
    BROKER_REGISTRATION = 62
    BROKER_HEARTBEAT = 63
    ALLOCATE_PRODUCER_IDS = 67


VERSION_MIN = 0
VERSION_MAX = 0


class Message(msgspec.Struct, array_like=True, frozen=True):
    """Base of everything that crosses a socket."""


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
    """`acks`: 0 no answer, 1 the leader has it flushed (appended under durability=os), -1 below the high watermark."""

    acks: int
    partitions: list[ProducePartition]


class ProducedPartition(Message, frozen=True):
    error_code: int
    base_offset: int = -1
    append_time_ms: int = -1
    log_start_offset: int = -1
    message: str = ""


class ProduceResponse(Message, frozen=True):
    partitions: list[ProducedPartition]


# ---- Fetch -----------------------------------------------------------------------------------------------------------


class FetchPartition(Message, frozen=True):
    """`last_epoch` is the leader epoch of the record read before `offset`, -1 unknown (KIP-320)."""

    topic_id: bytes
    partition: int
    offset: int
    max_bytes: int
    leader_epoch: int = -1
    last_epoch: int = -1


class FetchRequest(Message, frozen=True):
    """Wait until `min_bytes` are below the high watermark or the time is over.

    With `max_bytes` 0 no records are wanted: the answer comes as soon as any high watermark passes the offset asked
    for. It is the doorbell of readers that map the files.
    """

    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    partitions: list[FetchPartition]


class FetchedPartition(Message, frozen=True):
    """`frame` is the index of the payload frame, -1 for none. `row` is the partition's row on the leader's state page.

    A first batch may start below the offset asked for. With CORRUPT_MESSAGE `next_offset` is the next one to be had.
    `diverging_end_offset` >= 0: the log is not the one that was read; it holds records up to the epoch asked about
    below that offset alone, `diverging_epoch` being the last of them.
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


class FetchResponse(Message, frozen=True):
    partitions: list[FetchedPartition]


# ---- ListOffsets, DeleteRecords --------------------------------------------------------------------------------------


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
    """`machine` is the boot id, `endpoints` what clients connect to, the nearest first (ipc before tcp)."""

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


class PartitionMetadata(Message, frozen=True):
    partition: int
    leader: int
    leader_epoch: int
    replicas: list[int]
    isr: list[int]
    partition_epoch: int = 0


class TopicMetadata(Message, frozen=True):
    name: str
    topic_id: bytes
    partitions: list[PartitionMetadata]
    configs: dict[str, str]
    error_code: int = 0


class MetadataResponse(Message, frozen=True):
    """`deleted_topic_ids` is filled for brokers alone: what they may erase, by id."""

    cluster_id: str
    version: int
    controller_epoch: int
    brokers: list[BrokerMetadata]
    topics: list[TopicMetadata]
    deleted_topic_ids: list[bytes] = []
    broker_configs: dict[str, str] = {}


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
    """One incarnation of a broker asks to join; the answer comes after its new leader epochs are durable."""

    broker: BrokerMetadata
    cluster_id: str
    partitions: list[LocalPartition]
    producer_id_floor: int = -1


class BrokerRegistrationResponse(Message, frozen=True):
    """`version` is the metadata version that holds the new epochs."""

    broker_epoch: int
    version: int
    controller_epoch: int


class BrokerHeartbeatRequest(Message, frozen=True):
    """The long poll of a broker: it has applied `applied_version` and wants a newer one."""

    broker_id: int
    broker_epoch: int
    applied_version: int
    max_wait_ms: int


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
}
RESPONSES: dict[int, type[Message]] = {
    ApiKey.PRODUCE: ProduceResponse,
    ApiKey.FETCH: FetchResponse,
    ApiKey.LIST_OFFSETS: ListOffsetsResponse,
    ApiKey.METADATA: MetadataResponse,
    ApiKey.API_VERSIONS: ApiVersionsResponse,
    ApiKey.CREATE_TOPICS: CreateTopicsResponse,
    ApiKey.DELETE_TOPICS: DeleteTopicsResponse,
    ApiKey.DELETE_RECORDS: DeleteRecordsResponse,
    ApiKey.INIT_PRODUCER_ID: InitProducerIdResponse,
    ApiKey.DESCRIBE_CONFIGS: DescribeConfigsResponse,
    ApiKey.ALTER_CONFIGS: AlterConfigsResponse,
    ApiKey.CREATE_PARTITIONS: CreatePartitionsResponse,
    ApiKey.BROKER_REGISTRATION: BrokerRegistrationResponse,
    ApiKey.BROKER_HEARTBEAT: MetadataResponse,
    ApiKey.ALLOCATE_PRODUCER_IDS: AllocateProducerIdsResponse,
}
