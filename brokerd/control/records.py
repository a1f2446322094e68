"""What the cluster remembers: one frozen record per broker, topic, partition and so on, each under a path of its own.

The paths are those of a tree, so that a store may keep them as rows or as nodes. A change puts a record in its place or
takes it away; there is nothing between, so replaying a commit twice does no harm.
"""

from __future__ import annotations

import urllib.parse
import uuid

import msgspec

from replicas.state import PartitionState


class BrokerRecord(msgspec.Struct, frozen=True, tag="broker"):
    """A registered broker; it stays one while it is dead.

    Attributes:
        broker_epoch: Counts its registrations; a request with an older one comes from a dead incarnation.
        incarnation: Of the process that opened the directory; random, so only equality means something.
        directory_id: UUID of its log directory; another one is another, empty, replica.
        past_incarnations: The last ones before; they may not register again.
        site: The machine as a failure domain.
        draining: Nothing new is placed there, and what is there moves away.
        kafka_endpoints: Where Kafka's clients find it, PLAINTEXT://host:port; none without a gateway that they reach.
    """

    broker_id: int
    broker_epoch: int
    incarnation: int
    directory_id: str
    endpoints: list[str]
    machine: str
    log_dir: str
    page_path: str
    rack: str = ""
    device: int = 0
    alive: bool = True
    past_incarnations: list[int] = []
    peer_endpoints: list[str] = []
    site: str = ""
    draining: bool = False
    kafka_endpoints: list[str] = []

    @property
    def path(self) -> str:
        return f"/brokers/{self.broker_id}"


class TopicRecord(msgspec.Struct, frozen=True, tag="topic"):
    """A topic: `topic_id` (16 bytes) for ever, `name` until it is deleted; `configs` are its own settings alone."""

    topic_id: bytes
    name: str
    configs: dict[str, str]

    @property
    def path(self) -> str:
        return f"/topics/{uuid.UUID(bytes=self.topic_id)}"


class PartitionRecord(PartitionState, frozen=True, kw_only=True, tag="partition"):
    """A partition: who leads, under which epoch, and who has copies."""

    topic_id: bytes
    partition: int

    @property
    def path(self) -> str:
        return f"/topics/{uuid.UUID(bytes=self.topic_id)}/partitions/{self.partition}"


class DeletedTopicRecord(msgspec.Struct, frozen=True, tag="deleted-topic"):
    """What may be erased: kept until every registered broker has applied `version`, in which the topic went."""

    topic_id: bytes
    name: str
    version: int

    @property
    def path(self) -> str:
        return f"/deleted_topics/{uuid.UUID(bytes=self.topic_id)}"


class BrokerConfigsRecord(msgspec.Struct, frozen=True, tag="broker-configs"):
    """Settings of all brokers that were changed at run time."""

    configs: dict[str, str]

    @property
    def path(self) -> str:
        return "/config/brokers"


class ClientQuotaRecord(msgspec.Struct, frozen=True, tag="client-quota"):
    """What a client id may use of each broker, in bytes a second by Kafka's names; the empty id: any other."""

    client_id: str
    rates: dict[str, int]

    @property
    def path(self) -> str:
        name = urllib.parse.quote(self.client_id, safe="") if self.client_id else "<default>"
        if not name.strip("."):  # no name of a node
            name = name.replace(".", "%2E")
        return f"/config/clients/{name}"


class ProducerIdsRecord(msgspec.Struct, frozen=True, tag="producer-ids"):
    """The first producer id that no block holds yet."""

    next_producer_id: int

    @property
    def path(self) -> str:
        return "/producer_ids"


class VersionRecord(msgspec.Struct, frozen=True, tag="version"):
    """The metadata version; every change that brokers must hear of raises it."""

    version: int

    @property
    def path(self) -> str:
        return "/version"


Record = (
    BrokerRecord
    | TopicRecord
    | PartitionRecord
    | DeletedTopicRecord
    | BrokerConfigsRecord
    | ClientQuotaRecord
    | ProducerIdsRecord
    | VersionRecord
)


class Put(msgspec.Struct, frozen=True):
    """Put the record at its path, whatever was there."""

    record: Record


class Remove(msgspec.Struct, frozen=True):
    """Remove what is at the record's path."""

    record: Record


Change = Put | Remove

encode_record = msgspec.json.Encoder().encode
decode_record = msgspec.json.Decoder(Record).decode
