"""Describe and alter the settings of topics and of all brokers; pure. Source: KIP-133, KIP-226, KIP-339."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from brokerd.control.broker_settings import BROKER_SETTINGS, EffectiveConfigs, check_broker_config
from brokerd.control.limits import ControlLimits
from brokerd.control.records import BrokerConfigsRecord, Change, Put, TopicRecord
from brokerd.control.topics import Cluster, Refused, check_own_configs, check_topic_configs
from ingest.errors import ConfigError
from ingest.topic_config import TOPIC_SETTINGS, parse_topic_configs, topic_defaults
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    AlterConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    AlteredConfigs,
    ConfigEntry,
    ConfigResource,
    DescribeConfigsRequest,
    DescribedConfigs,
    ResourceType,
)

DYNAMIC_TOPIC, DYNAMIC_BROKER, STATIC_BROKER, DEFAULT = 1, 2, 4, 5  # Kafka's ConfigSource


DESCRIBED_MAX = 1_000  # resources in one request: some 3 MB of answer


@dataclass(slots=True)
class ConfigsDecision:
    changes: list[Change] = field(default_factory=list)
    results: list[AlteredConfigs] = field(default_factory=list)


def describe(cluster: Cluster, request: DescribeConfigsRequest) -> list[DescribedConfigs]:
    """Return every config of each resource, with its value in force and where that comes from."""
    described = []
    seen: set[tuple[int, str]] = set()
    for resource in request.resources:
        key = (resource.resource_type, resource.name)
        try:
            if key in seen or len(seen) >= DESCRIBED_MAX:
                raise Refused(ErrorCode.INVALID_REQUEST, f"named twice, or more than {DESCRIBED_MAX} resources")
            seen.add(key)
            described.append(DescribedConfigs(resource, int(ErrorCode.NONE), _entries(cluster, resource)))
        except Refused as refused:
            described.append(DescribedConfigs(resource, int(refused.code), message=str(refused)))
    return described


def alter(cluster: Cluster, request: AlterConfigsRequest) -> ConfigsDecision:
    """Set and reset single configs; a resource is changed as a whole or not at all."""
    decision = ConfigsDecision()
    seen: set[tuple[int, str]] = set()
    for item in request.resources:
        key = (item.resource.resource_type, item.resource.name)
        try:
            if key in seen:
                raise Refused(ErrorCode.INVALID_REQUEST, "the request names this resource twice")
            seen.add(key)
            decision.changes.append(Put(_altered(cluster, item)))
        except Refused as refused:
            decision.results.append(AlteredConfigs(item.resource, int(refused.code), str(refused)))
            continue
        decision.results.append(AlteredConfigs(item.resource, int(ErrorCode.NONE)))
    if request.validate_only:
        decision.changes.clear()
    return decision


def check_broker_configs(configs: EffectiveConfigs, limits: ControlLimits) -> None:
    """Refuse broker configs that make defaults no topic can have.

    Raises:
        ConfigError: naming key and value.
    """
    for name, value in configs.broker().items():
        if name in BROKER_SETTINGS:
            check_broker_config(name, value)
    parse_topic_configs(configs.topic({}))
    factor = configs.number("default.replication.factor")
    if factor > limits.replication_factor_max:
        raise ConfigError(f"default.replication.factor={factor}: expected 0 to {limits.replication_factor_max}")


def _altered(cluster: Cluster, item: AlterConfigsResource) -> TopicRecord | BrokerConfigsRecord:
    names = [config.name for config in item.configs]
    if len(set(names)) != len(names):
        raise Refused(ErrorCode.INVALID_REQUEST, "the request names a config twice")
    match item.resource.resource_type:
        case ResourceType.TOPIC:
            topic = _topic(cluster, item.resource)
            _known(names)
            own = _merged(topic.configs, item.configs)
            check_own_configs(topic.name, topic.configs, own)
            factor = len(cluster.image.partitions[topic.topic_id][0].replicas)
            check_topic_configs(cluster.configs, topic.name, own, factor)
            return TopicRecord(topic.topic_id, topic.name, own)
        case ResourceType.BROKER:
            if item.resource.name:
                raise Refused(
                    ErrorCode.INVALID_REQUEST,
                    "settings of one broker come from its configuration file; the empty name sets all brokers",
                )
            try:
                for config in item.configs:
                    check_broker_config(
                        config.name, BROKER_SETTINGS[config.name].default if _resets(config) else config.value or ""
                    )
                merged = _merged(cluster.image.broker_configs, item.configs)
                check_broker_configs(EffectiveConfigs(cluster.configs.file, merged), cluster.limits)
            except ConfigError as error:
                raise Refused(ErrorCode.INVALID_CONFIG, str(error)) from None
            return BrokerConfigsRecord(merged)
        case _:
            raise _no_such_type(item.resource)


def _resets(config: AlterConfig) -> bool:
    return config.value is None and config.name in BROKER_SETTINGS


def _entries(cluster: Cluster, resource: ConfigResource) -> list[ConfigEntry]:
    match resource.resource_type:
        case ResourceType.TOPIC:
            return _topic_entries(cluster.configs, _topic(cluster, resource))
        case ResourceType.BROKER:
            if resource.name and not (resource.name.isdecimal() and int(resource.name) in cluster.image.brokers):
                raise Refused(ErrorCode.INVALID_REQUEST, f"there is no broker {resource.name[:20]}")
            return _broker_entries(cluster.configs)
        case _:
            raise _no_such_type(resource)


def _topic_entries(configs: EffectiveConfigs, topic: TopicRecord) -> list[ConfigEntry]:
    dynamic, static = topic_defaults(configs.dynamic), topic_defaults(configs.broker())
    entries = []
    for name, setting in TOPIC_SETTINGS.items():
        if name in topic.configs:
            value, source = topic.configs[name], DYNAMIC_TOPIC
        elif name in static:
            value, source = static[name], DYNAMIC_BROKER if dynamic.get(name) == static[name] else STATIC_BROKER
        else:
            value, source = setting.default, DEFAULT
        entries.append(ConfigEntry(name, value, source, documentation=setting.doc))
    return entries


def _broker_entries(configs: EffectiveConfigs) -> list[ConfigEntry]:
    entries = []
    for name in sorted({*BROKER_SETTINGS, *configs.file}):
        setting = BROKER_SETTINGS.get(name)
        if name in configs.dynamic:
            value, source = configs.dynamic[name], DYNAMIC_BROKER
        elif name in configs.file:
            value, source = configs.file[name], STATIC_BROKER
        else:
            assert setting is not None
            value, source = setting.default, DEFAULT
        doc = "" if setting is None else setting.doc
        entries.append(ConfigEntry(name, value, source, read_only=setting is None, documentation=doc))
    return entries


def _topic(cluster: Cluster, resource: ConfigResource) -> TopicRecord:
    topic = cluster.image.topic(resource.name)
    if topic is None:
        raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "there is no such topic")
    return topic


def _known(names: list[str]) -> None:
    """Refuse unknown names, those to reset included."""
    try:
        parse_topic_configs({name: TOPIC_SETTINGS[name].default if name in TOPIC_SETTINGS else "" for name in names})
    except ConfigError as error:
        raise Refused(ErrorCode.INVALID_CONFIG, str(error)) from None


def _merged(before: Mapping[str, str], changes: list[AlterConfig]) -> dict[str, str]:
    merged = dict(before)
    for config in changes:
        if config.value is None:
            merged.pop(config.name, None)
        else:
            merged[config.name] = config.value
    return merged


def _no_such_type(resource: ConfigResource) -> Refused:
    return Refused(
        ErrorCode.INVALID_REQUEST, f"resource type {resource.resource_type}: expected 2 (topic) or 4 (broker)"
    )
