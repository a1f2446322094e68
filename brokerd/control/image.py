"""The state of the cluster in memory: all records, indexed; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from brokerd.control.records import (
    BrokerConfigsRecord,
    BrokerRecord,
    Change,
    ClientQuotaRecord,
    DeletedTopicRecord,
    PartitionRecord,
    ProducerIdsRecord,
    Put,
    Record,
    TopicRecord,
    VersionRecord,
)
from replicas.domains import Domains, Place
from replicas.placement import Load


class ClusterImage:
    """What the store holds, as of the last commit. Changes come through `apply` alone, after they are durable.

    Attributes:
        client_quotas: Rates by client id, the default under the empty one.
        topic_ids: Of the topics that are there, by name.
        partitions: Of each topic, in order.
        taken: The version with which a broker lost its replica, by (topic id, partition, broker): since this image was
            made, and until it is to have one again.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.version = 0
        self.next_producer_id = 0
        self.brokers: dict[int, BrokerRecord] = {}
        self.topics: dict[bytes, TopicRecord] = {}
        self.topic_ids: dict[str, bytes] = {}
        self.partitions: dict[bytes, list[PartitionRecord]] = {}
        self.deleted_topics: dict[bytes, DeletedTopicRecord] = {}
        self.broker_configs: Mapping[str, str] = {}
        self.client_quotas: dict[str, Mapping[str, int]] = {}
        self.taken: dict[tuple[bytes, int, int], int] = {}
        for record in sorted(records, key=_partitions_in_order):
            self._put(record)
        self.check()

    def apply(self, changes: Iterable[Change]) -> None:
        """Take one commit over. Cost: by the number of changes."""
        for change in changes:
            if isinstance(change, Put):
                self._put(change.record)
            else:
                self._remove(change.record)

    def records(self) -> Iterator[Record]:
        """Yield every record: what a store that saw the same changes holds."""
        yield VersionRecord(self.version)
        yield ProducerIdsRecord(self.next_producer_id)
        yield BrokerConfigsRecord(dict(self.broker_configs))
        yield from self.brokers.values()
        yield from self.topics.values()
        for partitions in self.partitions.values():
            yield from partitions
        yield from self.deleted_topics.values()
        for client_id, rates in self.client_quotas.items():
            yield ClientQuotaRecord(client_id, dict(rates))

    def topic(self, name: str) -> TopicRecord | None:
        topic_id = self.topic_ids.get(name)
        return None if topic_id is None else self.topics[topic_id]

    def alive_brokers(self) -> list[int]:
        return sorted(broker.broker_id for broker in self.brokers.values() if broker.alive)

    def all_partitions(self) -> Iterator[PartitionRecord]:
        for partitions in self.partitions.values():
            yield from partitions

    def partition_count(self) -> int:
        return sum(map(len, self.partitions.values()))

    def load(self) -> Load:
        """Count the partitions each broker leads, and its replicas."""
        load = Load()
        for partition in self.all_partitions():
            load.add(partition.replicas)
        return load

    def domains(self) -> Domains:
        """Return where the brokers keep their copies."""
        return Domains({b.broker_id: Place(b.site, b.device, b.rack) for b in self.brokers.values()})

    def placeable_brokers(self) -> list[int]:
        """Return the brokers that may get new replicas."""
        return sorted(b.broker_id for b in self.brokers.values() if b.alive and not b.draining)

    def check(self) -> None:
        """Assert what must hold of any image. Cost: all partitions."""
        assert set(self.topics) == set(self.partitions), "a topic without partitions, or partitions without a topic"
        assert self.topic_ids == {topic.name: topic_id for topic_id, topic in self.topics.items()}
        assert not set(self.topics) & set(self.deleted_topics), "a topic id came back after its deletion"
        for topic_id, partitions in self.partitions.items():
            assert [p.partition for p in partitions] == list(range(len(partitions))), f"hole in {topic_id.hex()}"
            for p in partitions:
                p.check()
        for deleted in self.deleted_topics.values():
            assert deleted.version <= self.version

    def _put(self, record: Record) -> None:
        match record:
            case BrokerRecord():
                self.brokers[record.broker_id] = record
            case TopicRecord():
                assert self.topic_ids.get(record.name, record.topic_id) == record.topic_id, "two topics of one name"
                self.topics[record.topic_id] = record
                self.topic_ids[record.name] = record.topic_id
                self.partitions.setdefault(record.topic_id, [])
            case PartitionRecord():
                partitions = self.partitions.setdefault(record.topic_id, [])
                if record.partition < len(partitions):
                    before = partitions[record.partition]
                    assert record.leader_epoch >= before.leader_epoch, "a leader epoch went back"
                    assert record.partition_epoch > before.partition_epoch, "a change without a new partition epoch"
                    partitions[record.partition] = record
                    self._note_taken(before, record)
                else:
                    assert record.partition == len(partitions), "partitions are added in order"
                    partitions.append(record)
            case DeletedTopicRecord():
                self.deleted_topics[record.topic_id] = record
            case BrokerConfigsRecord():
                self.broker_configs = record.configs
            case ClientQuotaRecord():
                self.client_quotas[record.client_id] = record.rates
            case ProducerIdsRecord():
                assert record.next_producer_id >= self.next_producer_id, "producer ids went back"
                self.next_producer_id = record.next_producer_id
            case VersionRecord():
                assert record.version >= self.version, "the metadata version went back"
                self.version = record.version

    def _note_taken(self, before: PartitionRecord, after: PartitionRecord) -> None:
        place = after.topic_id, after.partition
        for broker in set(before.replicas) - set(after.replicas):
            self.taken[*place, broker] = self.version + 1  # the version comes last in a commit
        for broker in set(after.replicas) - set(before.replicas):
            self.taken.pop((*place, broker), None)

    def _remove(self, record: Record) -> None:
        match record:
            case TopicRecord():
                del self.topics[record.topic_id]
                del self.topic_ids[record.name]
                self.partitions.pop(record.topic_id, None)
                self.taken = {key: version for key, version in self.taken.items() if key[0] != record.topic_id}
            case PartitionRecord():
                # goes with its topic, whose removal comes first or last in the same commit
                self.partitions.pop(record.topic_id, None)
            case DeletedTopicRecord():
                del self.deleted_topics[record.topic_id]
            case ClientQuotaRecord():
                del self.client_quotas[record.client_id]
            case _:
                raise AssertionError(f"{record.path} is never removed")


def _partitions_in_order(record: Record) -> tuple[int, bytes, int]:
    return (1, record.topic_id, record.partition) if isinstance(record, PartitionRecord) else (0, b"", 0)
