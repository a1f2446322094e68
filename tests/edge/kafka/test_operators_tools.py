"""What Java's tools for operators take for granted of a broker."""

from __future__ import annotations

from confluent_kafka import Consumer, TopicPartition

from edge.kafka.codec import APIS
from edge.kafka.gateway import Gateway
from ingest.admin import Admin
from ingest.wire.codes import ErrorCode
from tests.cluster import Cluster
from tests.edge.kafka.test_versions import Client

BROKER, DELETE = 4, 1


def test_log_dirs_are_those_of_the_broker_that_is_asked(gateway: Gateway) -> None:
    first = Client(gateway.port)
    found = {}
    for node in first.ask(3, 8, topics=[], allow_auto_topic_creation=False).brokers:
        client = Client(node.port)
        (one,) = client.ask(35, 2, topics=None).results
        found[node.node_id] = one.log_dir
        client.close()
    first.close()
    assert sorted(found) == [1, 2]
    assert all(directory.endswith(f"/brokers/{broker}") for broker, directory in found.items())


def test_groups_are_listed_by_their_coordinators_alone(cluster: Cluster, address: str, gateway: Gateway) -> None:
    """KafkaJS, kafka-python and librdkafka's first call for it add up what all brokers answer."""
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic("listed", partitions=1)
    groups = {f"listed-{number}" for number in range(8)}
    for name in groups:
        member = Consumer({"bootstrap.servers": address, "group.id": name})
        member.commit(offsets=[TopicPartition("listed", 0, 1)], asynchronous=False)
        member.close()
    first = Client(gateway.port)
    coordinators = {name: first.ask(10, 2, key=name, key_type=0).node_id for name in groups}
    listed: list[tuple[str, int]] = []
    for node in first.ask(3, 8, topics=[], allow_auto_topic_creation=False).brokers:
        client = Client(node.port)
        listed += [(one.group_id, node.node_id) for one in client.ask(16, 0).groups if one.group_id in groups]
        client.close()
    first.close()
    assert sorted(listed) == sorted(coordinators.items())
    assert set(coordinators.values()) == {1, 2}


def test_there_is_no_throttle_of_replication_to_take_back(gateway: Gateway) -> None:
    """As `kafka-reassign-partitions --verify` does."""
    client = Client(gateway.port)
    kind = APIS[44].request.AlterConfigsResource

    def altered(name: str, operation: int) -> int:
        entry = kind.AlterableConfig(name=name, config_operation=operation, value="1")
        resource = kind(resource_type=BROKER, resource_name="1", configs=[entry])
        return client.ask(44, 1, resources=[resource], validate_only=False).responses[0].error_code

    assert altered("leader.replication.throttled.rate", DELETE) == 0
    assert altered("leader.replication.throttled.rate", 0) == ErrorCode.INVALID_REQUEST
    client.close()
