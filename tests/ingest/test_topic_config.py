"""Topic configs: Kafka's defaults, and errors that name key, value and what is allowed."""

from __future__ import annotations

import pytest

from brokerd.storage.config import LogConfig
from ingest.errors import ConfigError
from ingest.topic_config import TOPIC_SETTINGS, is_compacted, parse_topic_configs, topic_defaults


def test_the_defaults_are_kafkas_but_for_durability() -> None:
    values = parse_topic_configs({})
    assert values["segment.bytes"] == 1 << 30
    assert values["retention.ms"] == 168 * 3_600_000
    assert values["retention.bytes"] == -1
    assert values["max.message.bytes"] == 1_048_588
    assert values["durability"] == "fsync"
    assert LogConfig.from_topic_configs({}) == LogConfig()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("retention.ms", "soon", "whole number"),
        ("retention.ms", "-2", "-1 to"),
        ("segment.bytes", "10", "16384"),
        ("durability", "maybe", "fsync or os"),
        ("cleanup.policy", "shrink", "delete or compact"),
        ("compression.type", "zstd", "not supported"),
        ("value.dtype", "object", "numpy"),
        ("value.dtype", "S0", "fixed size"),
        ("value.dtype", "M8[s/0]", "numpy"),  # numpy divides by zero for it
        ("retention.ms", "0" * 4000 + "1", "4001 characters"),
        ("value.dtype", "no type", "numpy"),
        ("leader.replication.throttled.replicas", "1", "partition:broker"),
        ("follower.replication.throttled.replicas", "0:1,", "partition:broker"),
        ("follower.replication.throttled.replicas", "0:1," * 300 + "0:1", "1203 characters"),
        ("retention.mss", "1", r"did you mean retention\.ms"),
        ("nonsense", "1", "unknown topic config nonsense"),
    ],
)
def test_a_bad_setting_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        parse_topic_configs({name: value})
    assert name in str(refused.value)


@pytest.mark.parametrize("value", ["", "*", "0:1", "0:1,0:2,12:3"])
def test_a_list_of_replicas_is_a_setting(value: str) -> None:
    assert parse_topic_configs({"leader.replication.throttled.replicas": value})


def test_every_default_passes_its_own_check() -> None:
    for setting in TOPIC_SETTINGS.values():
        setting.parse(setting.default)
        assert setting.doc.endswith(".")


def test_broker_configs_set_the_defaults_of_topics() -> None:
    assert topic_defaults({"log.retention.hours": "2", "log.durability": "os", "node.id": "1"}) == {
        "retention.ms": "7200000",
        "durability": "os",
    }
    assert topic_defaults({"log.retention.hours": "2", "log.retention.ms": "5"}) == {"retention.ms": "5"}
    with pytest.raises(ConfigError):
        topic_defaults({"log.retention.hours": "two"})


def test_a_dtype_of_one_size_is_taken() -> None:
    for name in ("<f8", "float64", "i4", "uint16", "S12", "M8[ms]", "<f8,<i4", "?", "bool"):
        assert parse_topic_configs({"value.dtype": name})["value.dtype"] == name


@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete,compact", "delete"])
def test_each_policy_of_kafka_is_a_setting(policy: str) -> None:
    configs = {"cleanup.policy": policy, "min.compaction.lag.ms": "5", "max.compaction.lag.ms": "10"}
    config = LogConfig.from_topic_configs(configs)
    assert is_compacted(configs) == config.compacts == ("compact" in policy)
    assert config.deletes == ("delete" in policy)
    assert (config.min_compaction_lag_ms, config.max_compaction_lag_ms) == (5, 10)


def test_a_record_can_not_have_to_stay_longer_than_it_may() -> None:
    with pytest.raises(ConfigError, match=r"min\.compaction\.lag\.ms=11: expected at most"):
        parse_topic_configs({"min.compaction.lag.ms": "11", "max.compaction.lag.ms": "10"})
