"""Which topic of the log, and which key, a message of an MQTT topic gets: ordered rules, the first match wins.

Templates know `${topic}` (the whole MQTT topic), `${clientid}` and `{1}`, `{2}` … (what the filter's wildcards stand
for). In topic names '/' becomes '.'; nothing else is replaced, since two MQTT topics must not meet by accident.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from edge.mqtt.codes import Reason
from edge.mqtt.topics import filter_problem, match, wildcard_count
from ingest.errors import ConfigError, RemoteError
from ingest.topic_name import check_topic_name

TOPICS_MAX = 1000
_CACHED_MAX = 10_000
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}|\{(\d+)\}")
_BRACES = re.compile(r"[{}$]")


class Rule(msgspec.Struct, frozen=True):
    """MQTT filter → topic template, key template; an empty key is no key."""

    filter: str
    topic: str
    key: str


GATEWAY_RULES = (Rule("#", "mqtt", "${clientid}"),)
BRIDGE_RULES = (Rule("#", "mqtt", "${topic}"),)  # a bridge never sees who published


class Route(msgspec.Struct, frozen=True, gc=False):
    """Where a message goes."""

    topic: str
    key: bytes | None


class Unmapped(msgspec.Struct, frozen=True, gc=False):
    """Why a message goes nowhere."""

    reason: Reason
    text: str


class _Template:
    """A text with placeholders, cut into literal parts and names."""

    def __init__(self, text: str, wildcards: int, known: frozenset[str], place: str) -> None:
        self.parts: list[str | int] = []
        at = 0
        self.by_client = False
        for found in _PLACEHOLDER.finditer(text):
            self._literal(text[at : found.start()], text, place)
            at = found.end()
            if found[2] is not None:
                number = int(found[2])
                if not 1 <= number <= wildcards:
                    raise ConfigError(f"{place}: {found[0]} in {text!r}, but the filter has {wildcards} wildcards")
                self.parts.append(number)
                continue
            if found[1] not in known:
                names = ", ".join(f"${{{name}}}" for name in sorted(known))
                raise ConfigError(f"{place}: unknown placeholder {found[0]} in {text!r}; there are {names}, {{1}} …")
            self.parts.append(0 if found[1] == "topic" else -1)
            self.by_client |= found[1] == "clientid"
        self._literal(text[at:], text, place)

    def _literal(self, part: str, text: str, place: str) -> None:
        if _BRACES.search(part):
            raise ConfigError(f"{place}: {text!r} has a brace or '$' that begins no placeholder")
        if part:
            self.parts.append(part)

    def fill(self, topic: str, client_id: str, found: list[str]) -> str:
        out = []
        for part in self.parts:
            if isinstance(part, str):
                out.append(part)
            else:
                out.append(topic if part == 0 else client_id if part < 0 else found[part - 1])
        return "".join(out)


class _CompiledRule:
    def __init__(self, rule: Rule, known: frozenset[str], place: str) -> None:
        if problem := filter_problem(rule.filter):
            raise ConfigError(f"{place}: {problem}")
        wildcards = wildcard_count(rule.filter)
        self.levels = rule.filter.split("/")
        if not rule.topic:
            raise ConfigError(f"{place}: the topic is empty")
        self.topic = _Template(rule.topic, wildcards, known, place)
        self.key = _Template(rule.key, wildcards, known, place)
        if all(isinstance(part, str) for part in self.topic.parts):
            try:
                check_topic_name(rule.topic)
            except RemoteError as error:
                raise ConfigError(f"{place}: {error}") from None


class Mapping:
    """The rules, compiled, with what they gave before. Thread: one.

    Args:
        with_client: `${clientid}` can be used: the publisher is known.
    Raises:
        ConfigError: a rule can't be used; the message names it.
    """

    def __init__(self, rules: Sequence[Rule], *, topics_max: int = TOPICS_MAX, with_client: bool = True) -> None:
        known = frozenset({"topic", "clientid"} if with_client else {"topic"})
        self._rules = [_CompiledRule(rule, known, f"mapping rule {n}") for n, rule in enumerate(rules, 1)]
        self._topics_max = topics_max
        self._topics: set[str] = set()
        self._cache: dict[str, Route | Unmapped] = {}

    def route(self, topic: str, client_id: str) -> Route | Unmapped:
        """Return where a message published by this client under this topic goes."""
        known = self._cache.get(topic)
        if known is not None:
            return known
        levels = topic.split("/")
        if topic.startswith("$"):
            return Unmapped(Reason.TOPIC_NAME_INVALID, f"topic {topic[:80]!r} is the server's own")
        for rule in self._rules:
            found = match(rule.levels, levels)
            if found is not None:
                route = self._fill(rule, topic, client_id, found)
                by_client = rule.topic.by_client or rule.key.by_client
                break
        else:
            route, by_client = Unmapped(Reason.TOPIC_NAME_INVALID, f"no mapping rule for topic {topic[:80]!r}"), False
        if not by_client:
            if len(self._cache) >= _CACHED_MAX:
                self._cache.clear()
            self._cache[topic] = route
        return route

    def _fill(self, rule: _CompiledRule, topic: str, client_id: str, found: list[str]) -> Route | Unmapped:
        name = rule.topic.fill(topic, client_id, found).replace("/", ".")
        if name not in self._topics:
            try:
                check_topic_name(name)
            except RemoteError as error:
                return Unmapped(Reason.TOPIC_NAME_INVALID, str(error))
            if name.startswith("__"):
                return Unmapped(Reason.TOPIC_NAME_INVALID, f"topic {name[:80]!r} is internal")
            if len(self._topics) >= self._topics_max:
                return Unmapped(Reason.QUOTA_EXCEEDED, f"the mapping has made {self._topics_max} topics already")
            self._topics.add(name)
        key = rule.key.fill(topic, client_id, found)
        return Route(name, key.encode() if key else None)
