"""Describing and altering the settings of topics and brokers."""

from __future__ import annotations

import pytest

from ingest.topic_config import TOPIC_SETTINGS
from ingest.topic_name import CONSUMER_OFFSETS
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    AlterConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    ConfigEntry,
    ConfigResource,
    DescribeConfigsRequest,
    NewTopic,
    ResourceType,
)
from tests.brokerd.control.driver import Driver

TOPIC = ConfigResource(ResourceType.TOPIC, "t")
BROKERS = ConfigResource(ResourceType.BROKER, "")


@pytest.fixture
def driver() -> Driver:
    driver = Driver(broker_configs={"log.segment.bytes": "1048576", "listeners": "ipc://x"})
    driver.register()
    driver.create(NewTopic("t", configs={"retention.ms": "60000"}))
    return driver


def alter(driver: Driver, resource: ConfigResource, **configs: str | None) -> object:
    changes = [AlterConfig(name.replace("_", "."), value) for name, value in configs.items()]
    (result,) = driver.change(AlterConfigsRequest([AlterConfigsResource(resource, changes)]))
    assert bool(result.error_code) == bool(result.message)
    return result.error_code


def entries(driver: Driver, resource: ConfigResource) -> dict[str, ConfigEntry]:
    (described,) = driver.ask(DescribeConfigsRequest([resource])).resources
    assert described.error_code == ErrorCode.NONE, described
    return {entry.name: entry for entry in described.entries}


def values(driver: Driver, resource: ConfigResource, *names: str) -> list[tuple[str, int]]:
    found = entries(driver, resource)
    return [(found[name].value, found[name].source) for name in names]


def test_every_setting_of_a_topic_is_described_with_its_source(driver: Driver) -> None:
    assert set(entries(driver, TOPIC)) == set(TOPIC_SETTINGS)
    alter(driver, BROKERS, log_roll_ms="7000")
    assert values(driver, TOPIC, "retention.ms", "segment.bytes", "segment.ms", "durability") == [
        ("60000", 1),
        ("1048576", 4),
        ("7000", 2),
        ("fsync", 5),
    ]


def test_altered_configs_reach_the_brokers_and_none_puts_the_default_back(driver: Driver) -> None:
    assert alter(driver, TOPIC, retention_ms="5", durability="os") == 0
    (topic,) = driver.metadata().topics
    assert topic.configs == {"segment.bytes": "1048576", "retention.ms": "5", "durability": "os"}
    assert alter(driver, TOPIC, retention_ms=None) == 0
    (topic,) = driver.metadata().topics
    assert topic.configs == {"segment.bytes": "1048576", "durability": "os"}
    assert topic.partitions[0].leader_epoch == 0


def test_settings_of_all_brokers_are_the_topics_defaults_and_survive_the_controller(driver: Driver) -> None:
    assert alter(driver, BROKERS, log_retention_ms="123", num_partitions="3") == 0
    driver.restart()
    driver.create(NewTopic("u"))
    topic = {t.name: t for t in driver.metadata().topics}["u"]
    assert (len(topic.partitions), topic.configs["retention.ms"]) == (3, "123")
    assert driver.metadata().broker_configs["log.retention.ms"] == "123"
    found = entries(driver, ConfigResource(ResourceType.BROKER, "1"))
    assert (found["log.retention.ms"].value, found["log.retention.ms"].source) == ("123", 2)
    assert (
        found["log.segment.bytes"].source,
        found["durability" if "durability" in found else "log.durability"].source,
    ) == (4, 5)
    assert found["listeners"].read_only


@pytest.mark.parametrize(
    ("resource", "name", "value", "code"),
    [
        (TOPIC, "retention.mss", "1", ErrorCode.INVALID_CONFIG),
        (TOPIC, "retention.mss", None, ErrorCode.INVALID_CONFIG),
        (TOPIC, "retention.ms", "-2", ErrorCode.INVALID_CONFIG),
        (TOPIC, "segment.bytes", "many", ErrorCode.INVALID_CONFIG),
        (TOPIC, "min.insync.replicas", "2", ErrorCode.INVALID_CONFIG),
        (TOPIC, "max.message.bytes", str(2**40), ErrorCode.INVALID_CONFIG),
        (BROKERS, "listeners", "ipc://y", ErrorCode.INVALID_CONFIG),
        (BROKERS, "num.partitions", "0", ErrorCode.INVALID_CONFIG),
        (BROKERS, "default.replication.factor", "33", ErrorCode.INVALID_CONFIG),
        (BROKERS, "log.durability", "maybe", ErrorCode.INVALID_CONFIG),
        (BROKERS, "nonsense", None, ErrorCode.INVALID_CONFIG),
        (ConfigResource(ResourceType.BROKER, "1"), "num.partitions", "2", ErrorCode.INVALID_REQUEST),
        (ConfigResource(ResourceType.TOPIC, "nope"), "retention.ms", "1", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (ConfigResource(8, "x"), "retention.ms", "1", ErrorCode.INVALID_REQUEST),
    ],
)
def test_what_can_not_be_set_is_refused_and_changes_nothing(
    driver: Driver, resource: ConfigResource, name: str, value: str | None, code: ErrorCode
) -> None:
    before = dict(driver.durable)
    good = AlterConfig("retention.ms" if resource is TOPIC else "log.retention.ms", "77")
    request = AlterConfigsRequest([AlterConfigsResource(resource, [good, AlterConfig(name, value)])])
    (result,) = driver.ask(request).resources
    if name == good.name:
        assert result.error_code in (code, ErrorCode.INVALID_REQUEST)
    else:
        assert result.error_code == code
    assert result.message
    assert driver.durable == before


def test_validate_only_alters_nothing(driver: Driver) -> None:
    before = driver.commits
    resource = AlterConfigsResource(TOPIC, [AlterConfig("retention.ms", "5")])
    (result,) = driver.ask(AlterConfigsRequest([resource], validate_only=True)).resources
    assert (result.error_code, driver.commits) == (0, before)


def test_describing_what_is_not_there_is_refused(driver: Driver) -> None:
    resources = [
        ConfigResource(ResourceType.TOPIC, "nope"),
        ConfigResource(ResourceType.BROKER, "9"),
        ConfigResource(0, ""),
    ]
    described = driver.ask(DescribeConfigsRequest(resources)).resources
    assert [d.error_code for d in described] == [3, 42, 42]
    assert all(d.message and not d.entries for d in described)


def test_the_topic_of_committed_offsets_always_takes_batches_as_large_as_coordinators_make(driver: Driver) -> None:
    offsets = ConfigResource(ResourceType.TOPIC, CONSUMER_OFFSETS)
    assert alter(driver, BROKERS, message_max_bytes="1000") == 0
    driver.create(NewTopic(CONSUMER_OFFSETS))
    assert values(driver, offsets, "max.message.bytes") == [("1048588", 1)]
    for refused in ("1000", None):
        assert alter(driver, offsets, max_message_bytes=refused) == ErrorCode.INVALID_CONFIG
    assert alter(driver, offsets, max_message_bytes="2000000") == 0


def test_the_topic_of_committed_offsets_keeps_what_would_have_them_forgotten(driver: Driver) -> None:
    offsets = ConfigResource(ResourceType.TOPIC, CONSUMER_OFFSETS)
    driver.create(NewTopic(CONSUMER_OFFSETS))
    names = ("cleanup.policy", "retention.ms", "retention.bytes", "delete.retention.ms")
    before = values(driver, offsets, *names)
    for name, value in zip(names, ("compact,delete", "1000", "1000", "1"), strict=True):
        changes = [AlterConfig(name, value), AlterConfig("segment.bytes", "1048576")]
        (result,) = driver.change(AlterConfigsRequest([AlterConfigsResource(offsets, changes)]))
        assert result.error_code == ErrorCode.INVALID_CONFIG
        assert result.message.startswith(f"{CONSUMER_OFFSETS} is the brokers' own: with another {name} ")
    assert alter(driver, offsets, cleanup_policy=None) == ErrorCode.INVALID_CONFIG
    assert values(driver, offsets, *names) == before
    assert alter(driver, offsets, cleanup_policy="compact", retention_ms=None, segment_bytes="1048576") == 0
    assert alter(driver, TOPIC, cleanup_policy="compact,delete", retention_ms="1") == 0
