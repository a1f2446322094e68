"""Creating, growing and deleting topics, validated as Kafka does."""

from __future__ import annotations

from collections import Counter

import pytest

from brokerd.control.events import Respond
from brokerd.control.limits import ControlLimits
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    FetchRequest,
    MetadataRequest,
    MetadataResponse,
    NewPartitions,
    NewTopic,
)
from tests.brokerd.control.driver import Driver


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    for broker_id in (1, 2, 3):
        driver.register(broker_id)
    return driver


def names(driver: Driver) -> set[str]:
    return set(driver.core.image.topic_ids)


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        (NewTopic(""), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic("."), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic(".."), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic("../x"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic("a/b"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic("a\0b"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic("a\n"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic("sensör"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic("x" * 250), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic("x" * 300), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic("__transaction_state"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic("site.temperature"), ErrorCode.INVALID_TOPIC_EXCEPTION),  # site_temperature is there
        (NewTopic("site_temperature"), ErrorCode.TOPIC_ALREADY_EXISTS),
        (NewTopic("t", 0), ErrorCode.INVALID_PARTITIONS),
        (NewTopic("t", -2), ErrorCode.INVALID_PARTITIONS),
        (NewTopic("t", 2**31), ErrorCode.INVALID_PARTITIONS),
        (NewTopic("t", 1, 0), ErrorCode.INVALID_REPLICATION_FACTOR),
        (NewTopic("t", 1, 4), ErrorCode.INVALID_REPLICATION_FACTOR),
        (NewTopic("t", configs={"retention.mss": "1"}), ErrorCode.INVALID_CONFIG),
        (NewTopic("t", configs={"retention.ms": "week"}), ErrorCode.INVALID_CONFIG),
        (NewTopic("t", configs={"durability": "maybe"}), ErrorCode.INVALID_CONFIG),
        (NewTopic("t", configs={"min.insync.replicas": "2"}), ErrorCode.INVALID_CONFIG),
    ],
)
def test_a_topic_that_can_not_be_is_refused_with_a_reason_and_the_others_are_made(
    driver: Driver, topic: NewTopic, code: ErrorCode
) -> None:
    driver.create(NewTopic("site_temperature"))
    bad, good = driver.create(topic, NewTopic("good"))
    assert bad.error_code == code
    assert bad.message
    assert bad.topic_id == b""
    assert good.error_code == ErrorCode.NONE
    assert names(driver) == {"site_temperature", "good"}


def test_the_longest_legal_name_is_taken(driver: Driver) -> None:
    (result,) = driver.create(NewTopic("x" * 249))
    assert result.error_code == ErrorCode.NONE


def test_a_topic_named_twice_or_colliding_in_one_request_is_refused(driver: Driver) -> None:
    results = driver.create(NewTopic("a"), NewTopic("a"), NewTopic("b.c"), NewTopic("b_c"))
    assert [result.error_code for result in results] == [
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.NONE,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
    ]


def test_validate_only_creates_nothing(driver: Driver) -> None:
    before = driver.commits
    body = driver.ask(CreateTopicsRequest([NewTopic("t", 3), NewTopic("")], validate_only=True))
    assert [t.error_code for t in body.topics] == [ErrorCode.NONE, ErrorCode.INVALID_TOPIC_EXCEPTION]
    assert (names(driver), driver.commits) == (set(), before)


def test_a_topic_without_brokers_is_refused() -> None:
    driver = Driver()
    (result,) = driver.ask(CreateTopicsRequest([NewTopic("t")])).topics
    assert result.error_code == ErrorCode.INVALID_REPLICATION_FACTOR


def test_defaults_come_from_the_brokers_settings() -> None:
    driver = Driver(broker_configs={"num.partitions": "4", "log.retention.ms": "5000", "log.durability": "os"})
    driver.register()
    driver.create(NewTopic("t", configs={"durability": "fsync"}))
    (topic,) = driver.metadata().topics
    assert len(topic.partitions) == 4
    assert topic.configs == {"retention.ms": "5000", "durability": "fsync"}


def test_the_cluster_takes_no_more_partitions_than_its_limit() -> None:
    driver = Driver(limits=ControlLimits(partitions_max=10))
    driver.register()
    first, second = driver.create(NewTopic("a", 6), NewTopic("b", 5))
    assert (first.error_code, second.error_code) == (ErrorCode.NONE, ErrorCode.INVALID_PARTITIONS)
    (grown,) = driver.ask(CreatePartitionsRequest([NewPartitions("a", 11)])).topics
    assert grown.error_code == ErrorCode.INVALID_PARTITIONS


@pytest.mark.parametrize("start", [0, 1, 2, 77])
def test_leaders_are_spread_evenly_within_a_topic_and_over_topics(driver: Driver, start: int) -> None:
    driver.create(NewTopic("a", 7), NewTopic("b", 1), NewTopic("c", 1), NewTopic("d", 3), start=start)
    image = driver.core.image
    assert sorted(Counter(p.leader for p in image.all_partitions()).values()) == [4, 4, 4]
    for partitions in image.partitions.values():
        counts = Counter(partition.leader for partition in partitions)
        assert max(counts.values()) - min(counts.get(broker, 0) for broker in (1, 2, 3)) <= 1


def test_new_partitions_go_where_the_topic_has_fewest(driver: Driver) -> None:
    driver.create(NewTopic("t", 2))
    (result,) = driver.change(CreatePartitionsRequest([NewPartitions("t", 6)]))
    assert result.error_code == ErrorCode.NONE
    partitions = driver.core.image.partitions[result.topic_id]
    assert [p.partition for p in partitions] == list(range(6))
    assert sorted(Counter(p.leader for p in partitions).values()) == [2, 2, 2]


def test_the_dead_get_no_partitions(driver: Driver) -> None:
    driver.heartbeat(1)
    driver.heartbeat(3)
    driver.later(8000)
    driver.heartbeat(1)
    driver.heartbeat(3)
    driver.later(2000)
    driver.create(NewTopic("t", 4))
    assert {p.leader for p in driver.core.image.all_partitions()} == {1, 3}


@pytest.mark.parametrize(("name", "count", "code"), [("t", 2, 37), ("t", 1, 37), ("t", -1, 37), ("u", 3, 3)])
def test_partitions_are_only_ever_added(driver: Driver, name: str, count: int, code: int) -> None:
    driver.create(NewTopic("t", 2))
    (result,) = driver.ask(CreatePartitionsRequest([NewPartitions(name, count)])).topics
    assert (result.error_code, bool(result.message)) == (code, True)


def test_a_deleted_topic_may_be_erased_until_every_registered_broker_did(driver: Driver) -> None:
    (created,) = driver.create(NewTopic("t", 3))
    assert answers_to_client(driver.send(DeleteTopicsRequest(["t"]))) == []
    version = driver.core.image.version
    for broker_id in (1, 2):
        driver.heartbeat(broker_id, applied=version)
    assert driver.metadata(3).deleted_topic_ids == [created.topic_id]
    driver.restart()  # the mark outlives the controller
    assert driver.metadata(3).deleted_topic_ids == [created.topic_id]
    driver.heartbeat(1)
    driver.heartbeat(2)
    assert driver.core.image.deleted_topics
    driver.heartbeat(3)
    assert not driver.core.image.deleted_topics
    assert not [path for path in driver.durable if "deleted" in path or path.startswith("/topics")]


def test_the_mark_waits_for_a_broker_that_is_away(driver: Driver) -> None:
    (created,) = driver.create(NewTopic("t", 3))
    driver.register(2, incarnation=5)  # restarts, and has applied nothing since
    driver.send(DeleteTopicsRequest(["t"]))
    driver.later(20_000)
    driver.heartbeat(1)
    driver.heartbeat(3)
    assert created.topic_id in driver.core.image.deleted_topics
    driver.heartbeat(2)
    driver.heartbeat(2)
    assert not driver.core.image.deleted_topics


def test_a_topic_recreated_under_its_name_is_another_one(driver: Driver) -> None:
    (first,) = driver.create(NewTopic("t"))
    driver.send(DeleteTopicsRequest(["t"]))
    driver.send(CreateTopicsRequest([NewTopic("t")]))
    metadata = driver.metadata(1)
    assert metadata.deleted_topic_ids == [first.topic_id]
    assert [t.name for t in metadata.topics] == ["t"]
    assert metadata.topics[0].topic_id != first.topic_id


def test_deleting_what_is_not_there_is_refused(driver: Driver) -> None:
    driver.create(NewTopic("t"), NewTopic("u"))
    results = driver.change(DeleteTopicsRequest(["t", "nope", "u", "u"]))
    assert [result.error_code for result in results] == [0, 3, 42, 42]
    assert names(driver) == {"u"}


def test_marks_of_deleted_topics_are_bounded() -> None:
    driver = Driver(limits=ControlLimits(deleted_topics_max=2))
    driver.register(1)
    driver.register(2)
    driver.create(*(NewTopic(f"t{index}") for index in range(3)))
    (answer,) = answers_to_client(driver.send(DeleteTopicsRequest(["t0", "t1", "t2"]), timeout_ms=0))
    assert [result.error_code for result in answer.body.topics] == [0, 0, ErrorCode.THROTTLING_QUOTA_EXCEEDED]  # type: ignore[union-attr]


# ---- when the answer comes -------------------------------------------------------------------------------------------


def answers_to_client(answers: list[Respond]) -> list[Respond]:
    return [answer for answer in answers if answer.peer == b"client"]


def test_an_answer_waits_until_every_live_broker_acts_by_the_change(driver: Driver) -> None:
    assert answers_to_client(driver.send(CreateTopicsRequest([NewTopic("t")]))) == []
    assert answers_to_client(driver.heartbeat(1)) == []
    assert answers_to_client(driver.heartbeat(2)) == []
    (answer,) = answers_to_client(driver.heartbeat(3))
    assert answer.body.topics[0].error_code == ErrorCode.NONE  # type: ignore[union-attr]


def test_an_answer_waits_a_second_at_most(driver: Driver) -> None:
    driver.send(CreateTopicsRequest([NewTopic("t")]))
    driver.heartbeat(1)
    assert driver.core.next_deadline_ms() == driver.now_ms + 1000
    assert answers_to_client(driver.later(999)) == []
    (answer,) = answers_to_client(driver.later(1))
    assert answer.body.topics[0].error_code == ErrorCode.NONE  # type: ignore[union-attr]


def test_an_answer_waits_no_longer_than_its_sender(driver: Driver) -> None:
    driver.send(CreateTopicsRequest([NewTopic("t")]), timeout_ms=200)
    assert len(answers_to_client(driver.later(200))) == 1


def test_a_full_disk_is_a_clean_refusal_and_later_it_works(driver: Driver) -> None:
    driver.disk_full = True
    before = dict(driver.durable)
    assert driver.refusal(CreateTopicsRequest([NewTopic("t")])) == ErrorCode.KAFKA_STORAGE_ERROR
    assert (names(driver), driver.durable) == (set(), before)
    assert driver.metadata(1).topics == []  # brokers are answered all the while
    driver.disk_full = False
    (result,) = driver.create(NewTopic("t"))
    assert result.error_code == ErrorCode.NONE


def test_waiting_requests_are_bounded() -> None:
    driver = Driver(limits=ControlLimits(parked_max=2))
    driver.register()
    version = driver.core.image.version
    for _ in range(2):
        assert driver.send(MetadataRequest(known_version=version, max_wait_ms=1000)) == []
    assert driver.refusal(CreateTopicsRequest([NewTopic("t")])) == ErrorCode.THROTTLING_QUOTA_EXCEEDED
    assert driver.refusal(MetadataRequest(known_version=version, max_wait_ms=9)) == ErrorCode.THROTTLING_QUOTA_EXCEEDED


# ---- metadata --------------------------------------------------------------------------------------------------------


def test_clients_may_ask_for_topics_by_name(driver: Driver) -> None:
    driver.create(NewTopic("t"), NewTopic("u"))
    metadata: MetadataResponse = driver.ask(MetadataRequest(topics=["u", "nope"]))
    assert [(t.name, t.error_code) for t in metadata.topics] == [("u", 0), ("nope", 3)]
    assert [b.broker_id for b in metadata.brokers] == [1, 2, 3]
    assert metadata.broker_configs == {}


def test_metadata_waits_for_a_newer_version(driver: Driver) -> None:
    version = driver.core.image.version
    assert driver.send(MetadataRequest(known_version=version, max_wait_ms=500), b"viewer") == []
    answers = driver.send(CreateTopicsRequest([NewTopic("t")]))
    (answer,) = [a for a in answers if a.peer == b"viewer"]
    assert [t.name for t in answer.body.topics] == ["t"]  # type: ignore[union-attr]
    driver.send(MetadataRequest(known_version=version + 1, max_wait_ms=500), b"viewer")
    (answer,) = [a for a in driver.later(500) if a.peer == b"viewer"]
    assert answer.body.version == version + 1  # type: ignore[union-attr]


def test_what_brokers_serve_is_refused_here(driver: Driver) -> None:
    assert driver.refusal(FetchRequest(0, 0, 0, [])) == ErrorCode.UNSUPPORTED_VERSION
