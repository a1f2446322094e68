"""The table of all settings: brokers under Kafka's names, defaults of topics, and the fields of each edge's config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec

from brokerd.config import BrokerConfig
from brokerd.control.broker_settings import BROKER_SETTINGS, BrokerSetting
from brokerd.control.config import SESSION_TIMEOUT_MS
from edge.kafka.config import KafkaConfig
from edge.mqtt.config import BridgeConfig, MqttConfig
from ingest.limits import LIMITS, MIB
from ingest.topic_config import TOPIC_SETTINGS, TopicSetting
from ops.config.setting import Setting, as_text, boolean, one_of, typed, whole
from ops.metrics.config import MonitorConfig

INT_MAX = 2**31 - 1
BROKERS_MAX = 64

# what Kafka has and this version does not: key, Kafka's default
_UNBUILT = {
    "node.id": "-1",
    "log.flush.interval.messages": str(2**63 - 1),
    "log.flush.interval.ms": "",
    "producer.id.expiration.ms": "86400000",
}

# fields that ops fills in itself
_OWN_FIELDS = {
    "mqtt": {"bootstrap"},
    "kafka": {"bootstrap", "broker_ports", "broker_tls_ports"},
    "bridge": {"bootstrap", "state_dir"},
}


def _checked(setting: BrokerSetting) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        setting.check(as_text(value))
        return as_text(value)

    return parse


def _topic_default(setting: TopicSetting) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        setting.parse(as_text(value))
        return as_text(value)

    return parse


def _broker() -> list[Setting]:
    config = {field.name: field.default for field in msgspec.structs.fields(BrokerConfig)}
    found = [
        Setting(section="broker", key=key, default=setting.default, parse=_checked(setting), doc=setting.doc)
        for key, setting in BROKER_SETTINGS.items()
    ]
    rows: list[tuple[str, str, Callable[[Any], str], str]] = [
        (
            "brokers",
            "",
            whole(1, BROKERS_MAX),
            "How many broker processes; default: as many as there were, or 1 to 2 by cores.",
        ),
        ("auto.create.topics.enable", "true", boolean, "A topic that is first produced to comes to be."),
        ("broker.rack", "", as_text, "Where the machine is, for placement and nearest reads."),
        (
            "local.read",
            config["local_read"],
            one_of("group", "off"),
            "group: others of the directory's group may read the files of the log; off: its owner alone.",
        ),
        (
            "log.dirs",
            "",
            as_text,
            "dir,dir: disks for new brokers of this machine, by turns; default: the data directory.",
        ),
        (
            "socket.request.max.bytes",
            str(config["request_bytes_max"]),
            whole(LIMITS.batch_bytes_max + MIB, INT_MAX),
            "The largest request that is taken.",
        ),
        (
            "listeners",
            "",
            as_text,
            "tcp://host:port for clients on other machines; broker n listens on port + 2 (n - 1).",
        ),
        (
            "advertised.listeners",
            "",
            as_text,
            "tcp://host:port that clients on other machines are told; default: listeners.",
        ),
        (
            "zookeeper.connect",
            "",
            as_text,
            "host:2181,host:2181/folder: several machines are one cluster, whose metadata is there.",
        ),
        (
            "zookeeper.session.timeout.ms",
            str(SESSION_TIMEOUT_MS),
            whole(1000, 600_000),
            "A machine that the servers have not heard for so long is gone.",
        ),
        ("zookeeper.password.file", "", as_text, "A file of mode 0600 with user:password; the nodes are that user's."),
        ("allow.insecure.listeners", "false", boolean, "Listen beyond loopback although nothing is encrypted."),
    ]
    found += [Setting(section="broker", key=k, default=d, parse=p, doc=doc) for k, d, p, doc in rows]
    found += [
        Setting(section="broker", key=key, default=default, parse=as_text, doc="Kafka's; not built yet.", built=False)
        for key, default in _UNBUILT.items()
    ]
    return found


def _topic_defaults() -> list[Setting]:
    return [
        Setting(
            section="topic-defaults", key=name, default=setting.default, parse=_topic_default(setting), doc=setting.doc
        )
        for name, setting in TOPIC_SETTINGS.items()
        if setting.broker_name
    ]


def _edge(section: str, config: type[msgspec.Struct]) -> list[Setting]:
    return [
        Setting(section=section, key=field.name, default=field.default, parse=typed(field.type))
        for field in msgspec.structs.fields(config)
        if field.name not in _OWN_FIELDS[section]
    ]


def _others() -> list[Setting]:
    monitor = {field.name: field.default for field in msgspec.structs.fields(MonitorConfig)}
    rows: list[tuple[str, str, Any, type, str]] = [
        ("http", "host", monitor["http_host"], str, "Where /metrics and health are served."),
        ("http", "port", monitor["http_port"], int, "0: any free one."),
        ("http", "scrape_ms", monitor["scrape_ms"], int, "How often processes are asked when nobody asks the monitor."),
        ("http", "topics_max", monitor["topics_max"], int, "Topics with metrics of their own."),
        ("http", "groups_max", monitor["groups_max"], int, "Consumer groups with metrics."),
        ("http", "allow_insecure", False, bool, "Listen beyond loopback although nobody has to log in."),
    ]
    return [Setting(section=s, key=k, default=d, parse=typed(t), doc=doc) for s, k, d, t, doc in rows]


@cache
def settings() -> Mapping[tuple[str, str], Setting]:
    """Return every setting by section and key, in the order they are shown."""
    found = [
        *_broker(),
        *_topic_defaults(),
        Setting(section="mqtt", key="enable", default=True, parse=typed(bool), doc="Run the MQTT gateway."),
        *_edge("mqtt", MqttConfig),
        *_edge("kafka", KafkaConfig),
        Setting(
            section="bridge",
            key="enable",
            default=None,
            parse=typed(bool),
            doc="Run the MQTT bridge; default: if it has any setting.",
        ),
        *_edge("bridge", BridgeConfig),
        *_others(),
    ]
    table = {(setting.section, setting.key): setting for setting in found}
    assert len(table) == len(found), "a setting stands twice"
    return table
