"""Settings of all brokers that the controller keeps: defaults of topics, and what it decides itself; pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from ingest.errors import ConfigError
from ingest.topic_config import TOPIC_SETTINGS, TopicSetting, topic_defaults
from replicas.selector import SELECTORS
from replicas.throttle import UNBOUNDED


class BrokerSetting(msgspec.Struct, frozen=True):
    """One broker config that can be changed while the cluster runs. `check` raises ConfigError."""

    name: str
    default: str
    doc: str
    check: Callable[[str], object]


def _whole(name: str, low: int, high: int) -> Callable[[str], object]:
    def check(text: str) -> object:
        try:
            value = int(text)
        except ValueError:
            raise ConfigError(f"{name}={text}: expected a whole number") from None
        if not low <= value <= high:
            raise ConfigError(f"{name}={text}: expected {low} to {high}")
        return value

    return check


def _rate(name: str) -> Callable[[str], object]:
    def check(text: str) -> object:
        try:
            value = float(text)
        except ValueError:
            raise ConfigError(f"{name}={text}: expected a number") from None
        if not value >= 1024:
            raise ConfigError(f"{name}={text}: expected 1024 or more")
        return value

    return check


def _flag(name: str) -> Callable[[str], object]:
    def check(text: str) -> object:
        if text not in ("true", "false"):
            raise ConfigError(f"{name}={text}: expected true or false")
        return text == "true"

    return check


def _one_of(name: str, allowed: Sequence[str]) -> Callable[[str], object]:
    def check(text: str) -> object:
        if text not in allowed:
            raise ConfigError(f"{name}={text}: expected {' or '.join(filter(None, allowed))}, or nothing")
        return text

    return check


def _default_of(setting: TopicSetting) -> BrokerSetting:
    def check(text: str) -> object:
        try:
            return setting.parse(text)
        except ConfigError as error:
            raise ConfigError(str(error).replace(setting.name, setting.broker_name, 1)) from None

    return BrokerSetting(setting.broker_name, setting.default, f"Default of {setting.name}. {setting.doc}", check)


_OWN = (
    BrokerSetting(
        "num.partitions",
        "1",
        "How many partitions a topic gets that is created without a number.",
        _whole("num.partitions", 1, 10_000),
    ),
    BrokerSetting(
        "default.replication.factor",
        "0",
        "How many copies the partitions of a topic get that is created without a number; 0: as many as there are "
        "machines, or on one machine disks, up to 3.",
        _whole("default.replication.factor", 0, 32_767),
    ),
    BrokerSetting(
        "replica.lag.time.max.ms",
        "3000",
        "A follower that lacks something for longer than this is out of sync.",
        _whole("replica.lag.time.max.ms", 100, 2**31 - 1),
    ),
    BrokerSetting(
        "auto.leader.rebalance.enable",
        "true",
        "Whether leadership goes back to the preferred leaders by itself.",
        _flag("auto.leader.rebalance.enable"),
    ),
    BrokerSetting(
        "leader.imbalance.check.interval.seconds",
        "300",
        "How often the controller looks whether leadership is to go back.",
        _whole("leader.imbalance.check.interval.seconds", 1, 2**31 - 1),
    ),
    BrokerSetting(
        "leader.imbalance.per.broker.percentage",
        "10",
        "Leadership goes back where a broker lacks more than this part of the partitions it is preferred for.",
        _whole("leader.imbalance.per.broker.percentage", 0, 100),
    ),
    BrokerSetting(
        "replica.fetch.max.bytes",
        "1048576",
        "How much of a partition a follower is sent at once; one batch at least.",
        _whole("replica.fetch.max.bytes", 1, 2**31 - 1),
    ),
    BrokerSetting(
        "replica.fetch.wait.max.ms",
        "500",
        "How long a follower's fetch waits at the leader for something to come.",
        _whole("replica.fetch.wait.max.ms", 1, 60_000),
    ),
    BrokerSetting(
        "leader.replication.throttled.rate",
        str(UNBOUNDED),
        "What a broker may send to throttled replicas that are not in sync, in bytes a second.",
        _whole("leader.replication.throttled.rate", 1, UNBOUNDED),
    ),
    BrokerSetting(
        "follower.replication.throttled.rate",
        str(UNBOUNDED),
        "What a broker may fetch for its throttled replicas that are not in sync, in bytes a second.",
        _whole("follower.replication.throttled.rate", 1, UNBOUNDED),
    ),
    BrokerSetting(
        "replica.selector.class",
        "",
        "RackAwareReplicaSelector: consumers with a client.rack read from an in-sync replica whose broker.rack it is. "
        "Empty: from leaders alone.",
        _one_of("replica.selector.class", SELECTORS),
    ),
    BrokerSetting(
        "offsets.topic.num.partitions",
        "12",
        "How many partitions the topic of committed offsets gets when it is created; groups spread over their leaders.",
        _whole("offsets.topic.num.partitions", 1, 1000),
    ),
    BrokerSetting(
        "offsets.topic.replication.factor",
        "0",
        "How many copies the topic of committed offsets gets when it is created; 0: as default.replication.factor.",
        _whole("offsets.topic.replication.factor", 0, 32_767),
    ),
    BrokerSetting(
        "offsets.retention.minutes",
        "10080",
        "For how long the offsets of a group without members are kept, in the cluster's running time; -1: for ever.",
        _whole("offsets.retention.minutes", -1, 2**31 - 1),
    ),
    BrokerSetting(
        "offset.metadata.max.bytes",
        "4096",
        "How many characters a member may keep with a committed offset.",
        _whole("offset.metadata.max.bytes", 0, 65_536),
    ),
    BrokerSetting(
        "group.initial.rebalance.delay.ms",
        "100",
        "How long the first generation of a group waits for more members than the first.",
        _whole("group.initial.rebalance.delay.ms", 0, 300_000),
    ),
    BrokerSetting(
        "group.min.session.timeout.ms",
        "6000",
        "The least session.timeout.ms a member of a group may ask for.",
        _whole("group.min.session.timeout.ms", 1, 2**31 - 1),
    ),
    BrokerSetting(
        "group.max.session.timeout.ms",
        "1800000",
        "The greatest session.timeout.ms a member of a group may ask for.",
        _whole("group.max.session.timeout.ms", 1, 2**31 - 1),
    ),
    BrokerSetting(
        "group.max.size",
        "1000",
        "How many members a group may have.",
        _whole("group.max.size", 1, 10_000),
    ),
    BrokerSetting(
        "log.cleaner.enable",
        "true",
        "Whether logs of topics with cleanup.policy=compact are compacted.",
        _flag("log.cleaner.enable"),
    ),
    BrokerSetting(
        "log.cleaner.io.max.bytes.per.second",
        "1.7976931348623157E308",
        "What a broker reads and writes at the most to compact logs, in bytes a second.",
        _rate("log.cleaner.io.max.bytes.per.second"),
    ),
    BrokerSetting(
        "log.cleaner.dedupe.buffer.size",
        "67108864",
        "Bytes for the table of keys of a compaction run, 24 for each of those that fit it to 70 %.",
        _whole("log.cleaner.dedupe.buffer.size", 1 << 20, 1 << 34),
    ),
    BrokerSetting(
        "log.cleaner.backoff.ms",
        "15000",
        "How often a broker looks for a log to compact.",
        _whole("log.cleaner.backoff.ms", 100, 2**31 - 1),
    ),
    BrokerSetting(
        "log.retention.hours",
        "168",
        "Default of retention.ms in hours, where log.retention.ms is not given.",
        _whole("log.retention.hours", -1, 2**31 - 1),
    ),
)

BROKER_SETTINGS: Mapping[str, BrokerSetting] = {
    setting.name: setting
    for setting in (*_OWN, *(_default_of(topic) for topic in TOPIC_SETTINGS.values() if topic.broker_name))
}


def check_broker_config(name: str, value: str) -> None:
    """Refuse what can't be set for all brokers at run time.

    Raises:
        ConfigError: naming the key and what is wrong.
    """
    setting = BROKER_SETTINGS.get(name)
    if setting is None:
        near = difflib.get_close_matches(name, BROKER_SETTINGS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{name} is no broker config that can be changed while the cluster runs{hint}")
    setting.check(value)


class EffectiveConfigs(msgspec.Struct, frozen=True):
    """Where settings come from, the later over the earlier: the file's, those set at run time, a topic's own."""

    file: Mapping[str, str]
    dynamic: Mapping[str, str]

    def broker(self) -> dict[str, str]:
        """Return the broker configs in force, those at their default left out."""
        return {**self.file, **self.dynamic}

    def number(self, name: str) -> int:
        """Return a broker config that is a whole number."""
        return int(self.broker().get(name, BROKER_SETTINGS[name].default))

    def flag(self, name: str) -> bool:
        """Return a broker config that is true or false."""
        return self.broker().get(name, BROKER_SETTINGS[name].default) == "true"

    def topic_value(self, name: str, own: Mapping[str, str]) -> str:
        """Return a topic config in force, as text."""
        return self.topic(own).get(name, TOPIC_SETTINGS[name].default)

    def topic(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return the topic configs in force, those at their default left out."""
        return {**topic_defaults(self.broker()), **own}
