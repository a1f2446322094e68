"""Administration: topics, partitions, configs, offsets, groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from ingest.client.cluster import ANY_BROKER, Cluster, monotonic_ms
from ingest.client.positions import listed
from ingest.errors import ConfigError, ForebayError, RemoteError, TransportError, UsageError
from ingest.topic_name import check_topic_name
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.messages import (
    AlterClientQuota,
    AlterClientQuotasRequest,
    AlterConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterPartitionReassignmentsRequest,
    BrokerMetadata,
    ConfigEntry,
    ConfigResource,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
    DescribeClientQuotasRequest,
    DescribeConfigsRequest,
    DrainBrokerRequest,
    ElectionType,
    ElectLeadersRequest,
    MetadataRequest,
    MetadataResponse,
    NewPartitions,
    NewTopic,
    PartitionResult,
    Reassignment,
    ResourceType,
    TopicMetadata,
)

if TYPE_CHECKING:
    from ingest.client.groups.administration import GroupAdmin, Offset
    from ingest.client.groups.committed import Committed
    from ingest.client.groups.described import GroupDescription, GroupListing, PartitionLag
    from ingest.client.positions import TopicPartition

__all__ = ["Admin", "NewTopic"]

T = TypeVar("T")
RETRY_MS = 20
READ_MS = 1000  # a broker answers from memory; one that stands still does not, and another can be asked


class Admin:
    """Create, change and look at what the cluster keeps. Thread: one at a time, the caller sees to it.

    Args:
        bootstrap: A data directory on this machine, or "tcp://host:port,…".
        timeout_ms: How long each call may take, retries included.
    Raises (each call):
        RemoteError: the cluster refused; `code` is Kafka's.
        TransportError: no answer; a change may have been made.
    """

    def __init__(self, bootstrap: str, *, timeout_ms: int = 15_000, client_id: str = "admin") -> None:
        self._timeout_ms = timeout_ms
        self._cluster = Cluster(bootstrap, client_id=client_id, all_topics=True)

    # ---- topics ------------------------------------------------------------------------------------------------------

    def metadata(self, topics: list[str] | None = None) -> MetadataResponse:
        """Return the cluster as one broker knows it now."""
        body: MetadataResponse = self._ask(MetadataRequest(topics))
        return body

    def brokers(self) -> list[BrokerMetadata]:
        return self.metadata([]).brokers

    def list_topics(self) -> list[TopicMetadata]:
        """Return all topics, by name."""
        return sorted(self.metadata().topics, key=lambda topic: topic.name)

    def describe_topic(self, name: str) -> TopicMetadata:
        """Return one topic's partitions and the configs set on it."""
        (topic,) = self.metadata([name]).topics
        if topic.error_code:
            raise error_from_code(topic.error_code, f"topic {name} does not exist")
        return topic

    def create_topic(
        self,
        name: str,
        partitions: int = -1,
        replication_factor: int = -1,
        configs: Mapping[str, str] | None = None,
        *,
        validate_only: bool = False,
    ) -> bytes:
        """Create a topic and return its id; -1 takes the brokers' default."""
        return self.create_topics(
            [NewTopic(name, partitions, replication_factor, dict(configs or {}))], validate_only=validate_only
        )[0]

    def create_topics(self, topics: Iterable[NewTopic], *, validate_only: bool = False) -> list[bytes]:
        """Create topics and return their ids; raises for the first that was refused, the others are created."""
        wanted = list(topics)
        for topic in wanted:
            check_topic_name(topic.name)
        body, again = self._change(CreateTopicsRequest(wanted, validate_only))
        ids = []
        for result in body.topics:
            if again and result.error_code == ErrorCode.TOPIC_ALREADY_EXISTS:
                ids.append(self.describe_topic(result.name).topic_id)  # by the try whose answer was lost
            else:
                ids.append(_checked(result).topic_id)
        return ids

    def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics and their records; raises for the first that was refused, the others are deleted."""
        body, again = self._change(DeleteTopicsRequest(listed(names, "names")))
        for result in body.topics:
            if not (again and result.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
                _checked(result)

    def create_partitions(self, name: str, total_count: int, *, validate_only: bool = False) -> None:
        """Grow a topic to `total_count` partitions. Keys may move to other partitions from then on."""
        request = CreatePartitionsRequest([NewPartitions(name, total_count)], validate_only)
        body, again = self._change(request)
        for result in body.topics:
            if not (again and result.error_code == ErrorCode.INVALID_PARTITIONS):
                _checked(result)

    # ---- leaders and replicas ----------------------------------------------------------------------------------------

    def elect_leaders(
        self, partitions: Sequence[tuple[str, int]] | None = None, *, unclean: bool = False
    ) -> list[PartitionResult]:
        """Give partitions, (topic, partition), back to their preferred leaders; None is all that have another.

        Args:
            unclean: Elect some replica where nobody may lead; what it lacks is lost.
        Returns:
            One result for each partition named, with an error where nothing was to be done or could be.
        """
        kind = ElectionType.UNCLEAN if unclean else ElectionType.PREFERRED
        body = self._ask(ElectLeadersRequest(int(kind), None if partitions is None else list(partitions)))
        results: list[PartitionResult] = body.partitions
        return results

    def reassign(
        self, replicas: Mapping[tuple[str, int], Sequence[int] | None], *, throttle_bytes_per_s: int = 0
    ) -> None:
        """Move partitions, (topic, partition), to other brokers, the preferred leader first; None cancels a move.

        The answer comes when the moves have begun; they are over when metadata shows nothing that is added or removed.

        Args:
            throttle_bytes_per_s: What each broker may send, and fetch, for the replicas that are added; 0: no bound.
                It ends with the moves.
        Raises:
            RemoteError: for the first that was refused; the others have begun.
        """
        items = [Reassignment(*where, None if to is None else list(to)) for where, to in replicas.items()]
        deadline_ms = monotonic_ms() + self._timeout_ms
        refused: list[PartitionResult] = []
        while items:
            results = self._ask(AlterPartitionReassignmentsRequest(items, throttle_bytes_per_s)).partitions
            early = {(one.topic, one.partition) for one in results if one.error_code == ErrorCode.REPLICA_NOT_AVAILABLE}
            if monotonic_ms() >= deadline_ms:
                early = set()  # a broker still has not applied that a replica was taken from it
            refused += [one for one in results if one.error_code and (one.topic, one.partition) not in early]
            items = [item for item in items if (item.topic, item.partition) in early]
            if items:
                self._pause()
        for result in refused:
            _checked(result)

    def drain_broker(self, broker_id: int, *, drain: bool = True) -> tuple[int, int]:
        """Move everything off a broker, or let new replicas come to it again; return how many move, and stay."""
        body = self._ask(DrainBrokerRequest(broker_id, drain))
        return body.moving, body.staying

    # ---- configs -----------------------------------------------------------------------------------------------------

    def describe_configs(self, name: str, kind: ResourceType = ResourceType.TOPIC) -> list[ConfigEntry]:
        """Return all settings of a topic or a broker ("" for all brokers), each with its source."""
        resource = ConfigResource(int(kind), name)
        (described,) = self._ask(DescribeConfigsRequest([resource])).resources
        if described.error_code:
            raise error_from_code(described.error_code, described.message)
        entries: list[ConfigEntry] = described.entries
        return entries

    def alter_configs(
        self,
        name: str,
        configs: Mapping[str, str | None],
        kind: ResourceType = ResourceType.TOPIC,
        *,
        validate_only: bool = False,
    ) -> None:
        """Set settings; None puts back the default. What is not named stays."""
        changes = [AlterConfig(key, value) for key, value in configs.items()]
        resource = AlterConfigsResource(ConfigResource(int(kind), name), changes)
        (altered,) = self._ask(AlterConfigsRequest([resource], validate_only)).resources
        if altered.error_code:
            raise error_from_code(altered.error_code, altered.message)

    # ---- quotas ------------------------------------------------------------------------------------------------------

    def client_quotas(self) -> dict[str, dict[str, int]]:
        """Return rates in bytes a second by client id; "" stands for all ids that have no such rate of their own."""
        return {quota.client_id: quota.rates for quota in self._ask(DescribeClientQuotasRequest()).quotas}

    def alter_client_quota(
        self, client_id: str, rates: Mapping[str, int | str | None], *, validate_only: bool = False
    ) -> None:
        """Set `producer_byte_rate` and `consumer_byte_rate` of a client id, "" for all others; None removes one."""
        changes = [AlterConfig(name, None if rate is None else str(rate)) for name, rate in rates.items()]
        entry = AlterClientQuota(client_id, changes)
        (altered,) = self._ask(AlterClientQuotasRequest([entry], validate_only)).entries
        if altered.error_code:
            raise error_from_code(altered.error_code, altered.message)

    # ---- records -----------------------------------------------------------------------------------------------------

    def delete_records(self, topic: str, partition: int, offset: int) -> int:
        """Delete the records below `offset` (-1: all below the high watermark); return the new log start."""

        def ask(found: TopicMetadata, leader: int, left_ms: int) -> Any:
            item = DeleteRecordsPartition(found.topic_id, partition, offset)
            return self._cluster.call(leader, DeleteRecordsRequest([item]), timeout_ms=left_ms).partitions[0]

        start: int = self._ask_leader(topic, partition, ask).log_start_offset
        return start

    def list_offset(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """Return an offset by time: -2 the log start, -1 the high watermark, else the first at or after; -1: none."""
        from ingest.client.offsets import find_offset  # needs numpy, 100 ms of import that `topic list` does not

        return find_offset(self._cluster, topic, partition, timestamp_ms, self._timeout_ms)[0]

    # ---- groups ------------------------------------------------------------------------------------------------------

    @cached_property
    def _groups(self) -> GroupAdmin:
        from ingest.client.groups.administration import GroupAdmin  # who looks at topics alone does not wait for it

        return GroupAdmin(self._cluster, self.metadata, self._timeout_ms)

    def list_groups(self, states: Iterable[str] = ()) -> list[GroupListing]:
        """Return all groups by name, or those in these states (Kafka's names). Every broker is asked.

        Raises:
            UsageError: there is no such state.
        """
        return self._groups.list_groups(listed(states, "states"))

    def describe_groups(self, names: Iterable[str]) -> dict[str, GroupDescription]:
        """Return groups with their members; raises for the first that does not exist."""
        return self._groups.describe_groups(listed(names, "names"))

    def group_offsets(self, group: str) -> dict[TopicPartition, Committed]:
        """Return what a group has committed, with the text kept beside it; nothing for one that does not exist."""
        return self._groups.offsets(group)

    def group_lag(self, group: str) -> list[PartitionLag]:
        """Return how far a group is in each partition that it has committed to or that a member is to read.

        Raises:
            RemoteError: GROUP_ID_NOT_FOUND.
        Cost: a request to the coordinator for members and one for offsets, and leaders are asked for the lag.
        """
        return self._groups.lag(group)

    def alter_group_offsets(self, group: str, offsets: Mapping[tuple[str, int], Offset]) -> None:
        """Commit offsets, by (topic, partition), in the place of a group without members; it may be a new one.

        Args:
            offsets: The next record to read, or that and some text.
        Raises:
            RemoteError: NON_EMPTY_GROUP: members would go on from where they are; the message names them.
                UNKNOWN_TOPIC_OR_PARTITION: nothing was committed.
        """
        self._groups.alter_offsets(group, offsets)

    def delete_groups(self, names: Iterable[str]) -> None:
        """Delete groups without members, with what they have committed; raises for the first that was refused."""
        self._groups.delete_groups(listed(names, "names"))

    def delete_group_offsets(self, group: str, partitions: Iterable[tuple[str, int]]) -> None:
        """Delete what a group has committed for these (topic, partition); raises for the first that was refused.

        Raises:
            RemoteError: GROUP_SUBSCRIBED_TO_TOPIC: members read that topic; the message names them.
        """
        self._groups.delete_offsets(group, partitions)

    # ---- asking leaders ----------------------------------------------------------------------------------------------

    def _ask_leader(self, topic: str, partition: int, ask: Any) -> Any:
        deadline_ms = monotonic_ms() + self._timeout_ms
        while True:
            found = self.describe_topic(topic)
            item = next((p for p in found.partitions if p.partition == partition), None)
            if item is None:
                raise UsageError(f"{topic} has no partition {partition}; it has {len(found.partitions)}")
            left_ms = max(1, deadline_ms - monotonic_ms())
            try:
                self._learn(left_ms)
                answer = ask(found, item.leader, left_ms)
                if not answer.error_code:
                    return answer
                error: ForebayError = error_from_code(answer.error_code, getattr(answer, "message", ""))
                if not getattr(error, "retriable", False):
                    raise error
            except TransportError as transport_error:
                error = transport_error
            if monotonic_ms() >= deadline_ms:
                raise error
            self._pause()

    def _learn(self, timeout_ms: int) -> None:
        """Hold metadata of the brokers, so that they can be asked by id."""
        deadline_ms = monotonic_ms() + timeout_ms
        self._cluster.refresh()
        while not self._cluster.brokers:
            if monotonic_ms() >= deadline_ms:
                raise TransportError("no broker answers")
            self._cluster.poll()
            self._cluster.wait(5)

    # ---- asking ------------------------------------------------------------------------------------------------------

    def _ask(self, body: Any) -> Any:
        """Ask any broker, again until the time is over."""
        return self._change(body)[0]

    def _change(self, body: Any) -> tuple[Any, bool]:
        """Ask any broker, again until the time is over; tell whether an earlier try may have done it already."""
        deadline_ms = monotonic_ms() + self._timeout_ms
        again = False
        while True:
            left_ms = max(1, deadline_ms - monotonic_ms())
            if isinstance(body, MetadataRequest | DescribeConfigsRequest | DescribeClientQuotasRequest):
                left_ms = min(left_ms, READ_MS)
            try:
                return self._cluster.call(ANY_BROKER, body, timeout_ms=left_ms), again
            except (RemoteError, TransportError) as error:
                if isinstance(error, RemoteError) and not error.retriable:
                    raise
                if monotonic_ms() >= deadline_ms:
                    raise
                again = again or not getattr(error, "definite", False)
            self._pause()

    def _pause(self) -> None:
        self._cluster.poll()
        self._cluster.wait(RETRY_MS)

    def close(self) -> None:
        self._cluster.close()

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _checked(result: Any) -> Any:
    if result.error_code == ErrorCode.NONE:
        return result
    if result.error_code == ErrorCode.INVALID_CONFIG:
        raise ConfigError(result.message)
    raise error_from_code(result.error_code, result.message)
