"""The table of topic configs: Kafka's names, defaults and units, and two of ours."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ingest.errors import ConfigError
from ingest.limits import LIMITS

LONG_MAX = 2**63 - 1
DAY_MS = 86_400_000
VALUE_CHARS_MAX = 64  # values are kept as they were written, in every answer of metadata
LIST_CHARS_MAX = 1024

Check = Callable[[Any], str]


class TopicSetting(msgspec.Struct, frozen=True):
    """One topic config.

    Attributes:
        kind: "int", "float" or "string".
        default: As text, the way it travels and is stored.
        check: Says why a parsed value can't be used; empty if it can.
        broker_name: The broker config that sets the default of all topics, empty for none.
        chars_max: Of a value as text.
    """

    name: str
    kind: str
    default: str
    check: Check
    doc: str
    broker_name: str = ""
    chars_max: int = VALUE_CHARS_MAX

    def parse(self, text: str) -> Any:
        """Return the value of `text`.

        Raises:
            ConfigError: naming key, value and what is allowed.
        """
        value: Any = text
        if len(text) > self.chars_max:
            raise ConfigError(f"{self.name}={text[:40]}…: {len(text)} characters > {self.chars_max}")
        if self.kind != "string":
            try:
                value = int(text) if self.kind == "int" else float(text)
            except (ValueError, TypeError):
                noun = "a whole number" if self.kind == "int" else "a number"
                raise ConfigError(f"{self.name}={text}: expected {noun}") from None
        reason = self.check(value)
        if reason:
            raise ConfigError(f"{self.name}={text}: {reason}")
        return value


def _between(low: float, high: float) -> Check:
    def check(value: float) -> str:
        return "" if low <= value <= high else f"expected {low} to {high}"

    return check


def _one_of(*allowed: str, unbuilt: tuple[str, ...] = ()) -> Check:
    def check(value: str) -> str:
        if value in unbuilt:
            return f"{value} is not supported by this version; use {' or '.join(allowed)}"
        return "" if value in allowed else f"expected {' or '.join(allowed)}"

    return check


_REPLICAS = re.compile(r"(?:\*|\d{1,9}:\d{1,9}(?:,\d{1,9}:\d{1,9})*)?")


def _replica_list(value: str) -> str:
    return "" if _REPLICAS.fullmatch(value) else "expected * or partition:broker,partition:broker,…"


# numpy may not be asked about just anything: for "M8[s/0]" it divides by zero, which ends the process
_FIELD = r"[<>=|]?(?:[?biufcSUV]\d{0,5}|[mM]8\[(?:[YMWDhms]|[munpfa]s)\])"
_DTYPE = re.compile(rf"{_FIELD}(?:,{_FIELD})*|bool|u?int(?:8|16|32|64)|float(?:16|32|64)|complex(?:64|128)")


def _dtype(value: str) -> str:
    if not value:
        return ""
    problem = "expected the name of a numpy type such as <f8, float64 or int32"
    if not _DTYPE.fullmatch(value):
        return problem
    import numpy as np

    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError, SyntaxError):
        return problem
    if dtype.hasobject or dtype.itemsize == 0 or dtype.shape:
        return "expected a type of one fixed size"
    return ""


_SETTINGS = (
    TopicSetting(
        "cleanup.policy",
        "string",
        "delete",
        _one_of("delete", "compact", "compact,delete", "delete,compact"),
        "What happens to old records: delete drops segments by time and size, compact keeps the latest of each key.",
        "log.cleanup.policy",
    ),
    TopicSetting(
        "retention.ms",
        "int",
        str(7 * DAY_MS),
        _between(-1, LONG_MAX),
        "How long a segment is kept after its last append, in ms of the machine's running time; -1 for ever.",
        "log.retention.ms",
    ),
    TopicSetting(
        "retention.bytes",
        "int",
        "-1",
        _between(-1, LONG_MAX),
        "How many bytes of a partition are kept; whole segments go; -1 for no bound.",
        "log.retention.bytes",
    ),
    TopicSetting(
        "segment.bytes",
        "int",
        str(1 << 30),
        _between(16 * 1024, 2**31 - 1),
        "A segment that would grow beyond this is rolled.",
        "log.segment.bytes",
    ),
    TopicSetting(
        "segment.ms",
        "int",
        str(7 * DAY_MS),
        _between(1, LONG_MAX),
        "A segment that is not empty is rolled this long after its first append.",
        "log.roll.ms",
    ),
    TopicSetting(
        "index.interval.bytes",
        "int",
        "4096",
        _between(0, 2**31 - 1),
        "About how many bytes of log lie between two index entries.",
        "log.index.interval.bytes",
    ),
    TopicSetting(
        "min.insync.replicas",
        "int",
        "0",
        _between(0, 2**31 - 1),
        "With acks=all a produce is refused while fewer copies than this are in sync; 0: half of them, rounded up.",
        "min.insync.replicas",
    ),
    TopicSetting(
        "unclean.leader.election.enable",
        "string",
        "false",
        _one_of("true", "false"),
        "true: with no in-sync replica left another may lead, and what it lacks is lost.",
        "unclean.leader.election.enable",
    ),
    TopicSetting(
        "max.message.bytes",
        "int",
        "1048588",
        _between(0, LIMITS.batch_bytes_max),
        "The largest batch, header included, that is taken.",
        "message.max.bytes",
    ),
    TopicSetting(
        "compression.type",
        "string",
        "producer",
        _one_of("producer", unbuilt=("uncompressed", "gzip", "snappy", "lz4", "zstd")),
        "producer: batches stay as their producer compressed them.",
        "compression.type",
    ),
    TopicSetting(
        "message.timestamp.type",
        "string",
        "CreateTime",
        _one_of("CreateTime", "LogAppendTime"),
        "Whose clock a record's timestamp is: the producer's or the broker's.",
        "log.message.timestamp.type",
    ),
    TopicSetting(
        "message.timestamp.before.max.ms",
        "int",
        str(LONG_MAX),
        _between(0, LONG_MAX),
        "How far a CreateTime may lie before the broker's clock.",
        "log.message.timestamp.before.max.ms",
    ),
    TopicSetting(
        "message.timestamp.after.max.ms",
        "int",
        # Kafka 4 refuses what is an hour ahead, lest it pins retention. Ours counts running time, which no timestamp
        # can pin, and a box without a clock battery would refuse every device whose clock is right.
        str(LONG_MAX),
        _between(0, LONG_MAX),
        "How far a CreateTime may lie ahead of the broker's clock.",
        "log.message.timestamp.after.max.ms",
    ),
    TopicSetting(
        "delete.retention.ms",
        "int",
        str(DAY_MS),
        _between(0, LONG_MAX),
        "How long a compacted topic keeps deletion markers.",
        "log.cleaner.delete.retention.ms",
    ),
    TopicSetting(
        "min.cleanable.dirty.ratio",
        "float",
        "0.5",
        _between(0, 1),
        "How much of a compacted log is uncompacted before it is cleaned.",
        "log.cleaner.min.cleanable.ratio",
    ),
    TopicSetting(
        "min.compaction.lag.ms",
        "int",
        "0",
        _between(0, LONG_MAX),
        "How long a record stays uncompacted at least.",
        "log.cleaner.min.compaction.lag.ms",
    ),
    TopicSetting(
        "max.compaction.lag.ms",
        "int",
        str(LONG_MAX),
        _between(1, LONG_MAX),
        "How long a record stays uncompacted at most.",
        "log.cleaner.max.compaction.lag.ms",
    ),
    TopicSetting(
        "file.delete.delay.ms",
        "int",
        "60000",
        _between(0, LONG_MAX),
        "How long the files of a deleted partition stay set aside.",
        "log.segment.delete.delay.ms",
    ),
    TopicSetting(
        "leader.replication.throttled.replicas",
        "string",
        "",
        _replica_list,
        "Leaders, as partition:broker,… or * for all, that send to replicas out of sync within "
        "leader.replication.throttled.rate.",
        chars_max=LIST_CHARS_MAX,
    ),
    TopicSetting(
        "follower.replication.throttled.replicas",
        "string",
        "",
        _replica_list,
        "Followers, as partition:broker,… or * for all, that catch up within follower.replication.throttled.rate.",
        chars_max=LIST_CHARS_MAX,
    ),
    TopicSetting(
        "durability",
        "string",
        "fsync",
        _one_of("fsync", "os"),
        "fsync: an ack waits for the disk. os: for the page cache alone; a power cut may lose what was acknowledged.",
        "log.durability",
    ),
    TopicSetting(
        "value.dtype",
        "string",
        "",
        _dtype,
        "The numpy type of every value; readers then get one typed array per batch. Empty: values are bytes.",
    ),
)

TOPIC_SETTINGS: Mapping[str, TopicSetting] = {setting.name: setting for setting in _SETTINGS}


def parse_topic_configs(configs: Mapping[str, str]) -> dict[str, Any]:
    """Return the value of every topic config, those given parsed and checked, the others at their default.

    Raises:
        ConfigError: an unknown key, with the nearest known one, or a value that can't be used.
    """
    for name in configs:
        if name not in TOPIC_SETTINGS:
            near = difflib.get_close_matches(name, TOPIC_SETTINGS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"unknown topic config {name}{hint}")
    values = {name: setting.parse(configs.get(name, setting.default)) for name, setting in TOPIC_SETTINGS.items()}
    least, most = values["min.compaction.lag.ms"], values["max.compaction.lag.ms"]
    if least > most:
        raise ConfigError(f"min.compaction.lag.ms={least}: expected at most max.compaction.lag.ms, {most}")
    return values


def is_compacted(configs: Mapping[str, str]) -> bool:
    """Tell whether a topic with these configs keeps the latest record of each key."""
    return "compact" in configs.get("cleanup.policy", TOPIC_SETTINGS["cleanup.policy"].default)


def topic_defaults(broker_configs: Mapping[str, str]) -> dict[str, str]:
    """Return the topic configs that broker configs set a default for, as text; others are not named.

    `log.retention.hours` counts where `log.retention.ms` is not given, as in Kafka.
    """
    defaults = {
        setting.name: broker_configs[setting.broker_name]
        for setting in _SETTINGS
        if setting.broker_name and setting.broker_name in broker_configs
    }
    hours = broker_configs.get("log.retention.hours")
    if hours is not None and "retention.ms" not in defaults:
        try:
            defaults["retention.ms"] = str(int(hours) * 3_600_000 if int(hours) >= 0 else -1)
        except ValueError:
            raise ConfigError(f"log.retention.hours={hours}: expected a whole number") from None
    return defaults
