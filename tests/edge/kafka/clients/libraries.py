"""The Python libraries: confluent-kafka on librdkafka, aiokafka, kafka-python."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin import NewPartitions as AIONewPartitions
from aiokafka.admin import NewTopic as AIONewTopic
from aiokafka.admin.config_resource import ConfigResource as AIOConfigResource
from aiokafka.admin.config_resource import ConfigResourceType as AIOConfigResourceType

from tests.edge.kafka.clients.client import HEARTBEAT_MS, WAIT_S, Member, ThreadMember, until


class Confluent:
    """confluent-kafka, with the librdkafka in its wheel."""

    name: ClassVar = "confluent-kafka"
    needs: ClassVar = "confluent_kafka"
    lacks: ClassVar[Mapping[str, str]] = {}

    def produce(self, address: str, topic: str, codec: str, values: Sequence[bytes]) -> None:
        from confluent_kafka import Producer

        errors: list[Any] = []
        producer = Producer({"bootstrap.servers": address, "compression.type": codec, "linger.ms": 5})
        for value in values:
            producer.produce(topic, value, on_delivery=lambda error, _: error and errors.append(error))
        assert producer.flush(WAIT_S) == 0
        assert errors == []

    def consume(self, address: str, topic: str, count: int) -> list[bytes]:
        consumer = self._consumer(address, f"all of {topic}")
        consumer.subscribe([topic])
        found: list[bytes] = []
        until(lambda: bool(self._poll(consumer, found) or len(found) >= count))
        consumer.close()
        return found

    def join(self, address: str, topic: str, group: str) -> Member:
        def loop(stopping: Callable[[], bool], values: list[bytes]) -> None:
            consumer = self._consumer(address, group)
            consumer.subscribe([topic])
            while not stopping():
                self._poll(consumer, values)
            consumer.close()

        return ThreadMember(loop)

    @staticmethod
    def _consumer(address: str, group: str) -> Any:
        from confluent_kafka import Consumer

        return Consumer(
            {
                "bootstrap.servers": address,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "heartbeat.interval.ms": HEARTBEAT_MS,
                "check.crcs": True,
            }
        )

    @staticmethod
    def _poll(consumer: Any, values: list[bytes]) -> None:
        for message in consumer.consume(500, 0.05):
            assert message.error() is None, message.error()
            values.append(message.value())

    def offset_at(self, address: str, topic: str, partition: int, at_ms: int) -> int:
        from confluent_kafka import TopicPartition

        consumer = self._consumer(address, "times")
        (found,) = consumer.offsets_for_times([TopicPartition(topic, partition, at_ms)], WAIT_S)
        consumer.close()
        return int(found.offset)

    def administer(self, address: str, name: str) -> None:
        import confluent_kafka
        from confluent_kafka import admin as kinds

        admin = kinds.AdminClient({"bootstrap.servers": address})

        def done(futures: Mapping[Any, Any]) -> list[Any]:
            return [future.result(WAIT_S) for future in futures.values()]

        def partitions() -> int:
            found = admin.list_topics(timeout=WAIT_S).topics
            return len(found[name].partitions) if name in found else 0

        done(admin.create_topics([kinds.NewTopic(name, 2, 1, config={"retention.ms": "100000"})]))
        until(lambda: partitions() == 2)
        with pytest.raises(confluent_kafka.KafkaException) as refused:
            done(admin.create_topics([kinds.NewTopic(name, 2, 1)]))
        assert refused.value.args[0].code() == confluent_kafka.KafkaError.TOPIC_ALREADY_EXISTS
        (described,) = done(admin.describe_configs([kinds.ConfigResource(kinds.RESOURCE_TOPIC, name)]))
        assert described["retention.ms"].value == "100000"
        change = kinds.ConfigEntry("retention.ms", "5000", incremental_operation=kinds.AlterConfigOpType.SET)
        resource = kinds.ConfigResource(kinds.RESOURCE_TOPIC, name, incremental_configs=[change])
        done(admin.incremental_alter_configs([resource]))
        done(admin.create_partitions([kinds.NewPartitions(name, 4)]))
        until(lambda: partitions() == 4)
        assert len(admin.describe_cluster().result(WAIT_S).nodes) == 2
        values = [b"%d" % number for number in range(20)]
        self.produce(address, name, "none", values)
        group = f"all of {name}"
        assert sorted(self.consume(address, name, len(values))) == sorted(values)
        assert group in [one.group_id for one in admin.list_consumer_groups().result(WAIT_S).valid]
        (found,) = done(admin.describe_consumer_groups([group]))
        assert found.state == confluent_kafka.ConsumerGroupState.EMPTY
        asked = confluent_kafka.ConsumerGroupTopicPartitions(group)
        (offsets,) = done(admin.list_consumer_group_offsets([asked]))
        assert sum(one.offset for one in offsets.topic_partitions if one.offset > 0) == len(values)
        cut = [confluent_kafka.TopicPartition(name, number, -1) for number in range(4)]
        assert sum(one.low_watermark for one in done(admin.delete_records(cut))) == len(values)
        done(admin.delete_consumer_groups([group]))
        done(admin.delete_topics([name]))
        until(lambda: partitions() == 0)


class Aiokafka:
    """aiokafka."""

    name: ClassVar = "aiokafka"
    needs: ClassVar = None
    lacks: ClassVar[Mapping[str, str]] = {}

    def produce(self, address: str, topic: str, codec: str, values: Sequence[bytes]) -> None:
        async def run() -> None:
            kind = None if codec == "none" else codec
            async with AIOKafkaProducer(bootstrap_servers=address, compression_type=kind, linger_ms=5) as producer:
                await asyncio.gather(*[await producer.send(topic, value) for value in values])

        asyncio.run(run())

    def consume(self, address: str, topic: str, count: int) -> list[bytes]:
        async def run() -> list[bytes]:
            async with AIOKafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
                return [(await asyncio.wait_for(anext(consumer), WAIT_S)).value for _ in range(count)]

        return asyncio.run(run())

    def join(self, address: str, topic: str, group: str) -> Member:
        def loop(stopping: Callable[[], bool], values: list[bytes]) -> None:
            async def run() -> None:
                async with AIOKafkaConsumer(
                    topic,
                    bootstrap_servers=address,
                    group_id=group,
                    auto_offset_reset="earliest",
                    heartbeat_interval_ms=HEARTBEAT_MS,
                ) as consumer:
                    while not stopping():
                        for records in (await consumer.getmany(timeout_ms=50)).values():
                            values.extend(record.value for record in records)

            asyncio.run(run())

        return ThreadMember(loop)

    def offset_at(self, address: str, topic: str, partition: int, at_ms: int) -> int:
        async def run() -> int:
            async with AIOKafkaConsumer(topic, bootstrap_servers=address) as consumer:
                place = TopicPartition(topic, partition)
                return int((await consumer.offsets_for_times({place: at_ms}))[place].offset)

        return asyncio.run(run())

    def administer(self, address: str, name: str) -> None:
        async def run() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=address)
            await admin.start()
            try:
                created = await admin.create_topics([AIONewTopic(name, 2, 1)])
                assert [error for _, error, *_ in created.topic_errors] == [0]
                assert name in await admin.list_topics()
                resource = AIOConfigResource(AIOConfigResourceType.TOPIC, name, configs={"retention.ms": "5000"})
                await admin.alter_configs([resource])
                (described,) = await admin.describe_configs([AIOConfigResource(AIOConfigResourceType.TOPIC, name)])
                entries = {entry[0]: entry[1] for entry in described.resources[0][4]}
                assert entries["retention.ms"] == "5000"
                await admin.create_partitions({name: AIONewPartitions(3)})
                (topic,) = await admin.describe_topics([name])
                assert len(topic["partitions"]) == 3
                assert len((await admin.describe_cluster())["brokers"]) == 2
                assert await admin.list_consumer_group_offsets("nobody") == {}
                deleted = await admin.delete_topics([name])
                assert deleted.topic_error_codes == [(name, 0)]
            finally:
                await admin.close()

        asyncio.run(run())


class KafkaPython:
    """kafka-python; the gateway's own codec is of the same library, its records and its network code are not."""

    name: ClassVar = "kafka-python"
    needs: ClassVar = None
    lacks: ClassVar[Mapping[str, str]] = {}

    def produce(self, address: str, topic: str, codec: str, values: Sequence[bytes]) -> None:
        from kafka import KafkaProducer

        producer = KafkaProducer(
            bootstrap_servers=address, compression_type=None if codec == "none" else codec, linger_ms=5
        )
        futures = [producer.send(topic, value) for value in values]
        producer.flush(WAIT_S)
        for future in futures:
            future.get(WAIT_S)
        producer.close()

    def consume(self, address: str, topic: str, count: int) -> list[bytes]:
        from kafka import KafkaConsumer

        consumer = KafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest")
        found: list[bytes] = []
        until(lambda: bool(self._poll(consumer, found) or len(found) >= count))
        consumer.close()
        return found

    def join(self, address: str, topic: str, group: str) -> Member:
        from kafka import KafkaConsumer

        def loop(stopping: Callable[[], bool], values: list[bytes]) -> None:
            consumer = KafkaConsumer(
                topic,
                bootstrap_servers=address,
                group_id=group,
                auto_offset_reset="earliest",
                heartbeat_interval_ms=HEARTBEAT_MS,
            )
            while not stopping():
                self._poll(consumer, values)
            consumer.close()

        return ThreadMember(loop)

    @staticmethod
    def _poll(consumer: Any, values: list[bytes]) -> None:
        for records in consumer.poll(timeout_ms=50).values():
            values.extend(record.value for record in records)

    def offset_at(self, address: str, topic: str, partition: int, at_ms: int) -> int:
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=address)
        place = TopicPartition(topic, partition)
        found = consumer.offsets_for_times({place: at_ms})[place]
        consumer.close()
        return int(found.offset)

    def administer(self, address: str, name: str) -> None:
        from kafka import KafkaAdminClient, OffsetAndMetadata, TopicPartition
        from kafka.admin import ConfigResource
        from kafka.errors import TopicAlreadyExistsError

        admin = KafkaAdminClient(bootstrap_servers=address)
        admin.create_topics({name: {"num_partitions": 2, "replication_factor": 1}})
        with pytest.raises(TopicAlreadyExistsError):
            admin.create_topics({name: {"num_partitions": 2, "replication_factor": 1}})
        admin.create_partitions({name: 3})
        until(lambda: len(admin.describe_topics([name])[0]["partitions"]) == 3)
        admin.alter_configs([ConfigResource("TOPIC", name, {"retention.ms": "5000"})])
        described = admin.describe_configs([ConfigResource("TOPIC", name)])
        assert described["topic"][name]["retention.ms"]["value"] == "5000"
        brokers = [one["broker_id"] for one in admin.describe_cluster()["brokers"]]
        assert sorted(brokers) == sorted(one["broker"] for one in admin.describe_log_dirs()) == [1, 2]
        self.produce(address, name, "none", [b"x"] * 10)
        places = [TopicPartition(name, number) for number in range(3)]
        admin.alter_group_offsets("operator", {place: OffsetAndMetadata(0, "", -1) for place in places})
        assert [one["group_id"] for one in admin.list_groups()].count("operator") == 1
        assert admin.list_group_offsets("operator")["operator"].keys() == set(places)
        cut = admin.delete_records(dict.fromkeys(places, -1))
        assert sum(one["low_watermark"] for one in cut.values()) == 10
        admin.elect_leaders(0, [name])
        admin.delete_groups(["operator"])
        admin.delete_topics([name])
        until(lambda: name not in admin.list_topics())
        admin.close()
