"""MQTT topics to topics of the log."""

from __future__ import annotations

import pytest

from edge.mqtt.codes import Reason
from edge.mqtt.mapping import GATEWAY_RULES, Mapping, Route, Rule, Unmapped
from edge.mqtt.topics import match
from ingest.errors import ConfigError


@pytest.mark.parametrize(
    ("pattern", "topic", "found"),
    [
        ("#", "a/b", ["a/b"]),
        ("a/#", "a", [""]),
        ("a/#", "a/b/c", ["b/c"]),
        ("+/b", "a/b", ["a"]),
        ("+", "a/b", None),
        ("+/+", "/b", ["", "b"]),
        ("a/b", "a/b", []),
        ("a/b", "a", None),
        ("a", "a/b", None),
        ("#", "$SYS/x", None),
        ("+/x", "$SYS/x", None),
        ("$SYS/#", "$SYS/x", ["x"]),
        ("a/+/c/#", "a/b/c", ["b", ""]),
    ],
)
def test_filters_match_as_mqtt_says(pattern: str, topic: str, found: list[str] | None) -> None:
    assert match(pattern.split("/"), topic.split("/")) == found


def test_by_default_everything_goes_to_one_topic_by_client() -> None:
    assert Mapping(GATEWAY_RULES).route("a/b", "dev-1") == Route("mqtt", b"dev-1")


def test_the_first_rule_that_matches_wins() -> None:
    mapping = Mapping([Rule("site/+/temp", "temp.{1}", "${topic}"), Rule("site/#", "site", "${clientid}:{1}")])
    assert mapping.route("site/a/temp", "d") == Route("temp.a", b"site/a/temp")
    assert mapping.route("site/a/hum", "d") == Route("site", b"d:a/hum")
    assert isinstance(mapping.route("other", "d"), Unmapped)


def test_slashes_become_dots_and_nothing_else_is_replaced() -> None:
    mapping = Mapping([Rule("#", "${topic}", "")])
    assert mapping.route("a/b/c", "d") == Route("a.b.c", None)
    for topic in ("a b", "ä", "..", "x" * 300, "__consumer_offsets"):
        unmapped = mapping.route(topic, "d")
        assert isinstance(unmapped, Unmapped)
        assert unmapped.reason == Reason.TOPIC_NAME_INVALID


def test_the_client_is_not_remembered_from_one_message_to_the_next() -> None:
    mapping = Mapping([Rule("#", "of.${clientid}", "")])
    assert mapping.route("a", "one") == Route("of.one", None)
    assert mapping.route("a", "two") == Route("of.two", None)


def test_no_more_topics_are_made_than_allowed() -> None:
    mapping = Mapping([Rule("#", "${topic}", "")], topics_max=2)
    assert isinstance(mapping.route("a", ""), Route)
    assert isinstance(mapping.route("b", ""), Route)
    unmapped = mapping.route("c", "")
    assert isinstance(unmapped, Unmapped)
    assert unmapped.reason == Reason.QUOTA_EXCEEDED
    assert isinstance(mapping.route("a", ""), Route)


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (Rule("a/#/b", "t", ""), "'#'"),
        (Rule("a+", "t", ""), "'+'"),
        (Rule("", "t", ""), "empty"),
        (Rule("#", "", ""), "empty"),
        (Rule("#", "../x", ""), "INVALID_TOPIC"),
        (Rule("#", "t.{2}", ""), "{2}"),
        (Rule("#", "t", "{0}"), "{0}"),
        (Rule("#", "t", "${user}"), "${user}"),
        (Rule("#", "t", "$clientid"), "placeholder"),
        (Rule("#", "t{", ""), "placeholder"),
    ],
)
def test_a_rule_that_cannot_be_used_is_named(rule: Rule, word: str) -> None:
    with pytest.raises(ConfigError, match="mapping rule 2") as caught:
        Mapping([Rule("ok", "ok", ""), rule])
    assert word in str(caught.value)


def test_a_bridge_does_not_know_the_client() -> None:
    with pytest.raises(ConfigError, match="clientid"):
        Mapping(GATEWAY_RULES, with_client=False)
