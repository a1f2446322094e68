"""What a broker's registration changes: epochs that no earlier incarnation was granted."""

from __future__ import annotations

import time

import msgspec
import pytest

from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    AllocateProducerIdsRequest,
    BrokerHeartbeatRequest,
    BrokerRegistrationRequest,
    LeaderlessEnd,
    LocalPartition,
    NewTopic,
)
from replicas.state import NO_LEADER
from tests.brokerd.control.driver import SESSION_MS, Driver
from tests.brokerd.control.harness import registration


def with_kafka(endpoints: list[str]) -> BrokerRegistrationRequest:
    found = registration()
    return msgspec.structs.replace(found, broker=msgspec.structs.replace(found.broker, kafka_endpoints=endpoints))


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.register(1)
    return driver


def leader_epochs(driver: Driver) -> list[int]:
    return [partition.leader_epoch for partition in driver.core.image.all_partitions()]


def topic_id_of(driver: Driver, name: str) -> bytes:
    return driver.core.image.topic_ids[name]


def test_a_new_incarnation_gets_a_new_epoch_for_all_it_leads_in_one_commit(driver: Driver) -> None:
    driver.create(NewTopic("t", 5))
    before = driver.commits
    answer = driver.register(1, incarnation=2)
    assert answer.broker_epoch == 2
    assert leader_epochs(driver) == [1] * 5
    assert driver.commits == before + 1
    assert answer.version == driver.core.image.version


def test_the_answer_comes_after_the_commit(driver: Driver) -> None:
    driver.create(NewTopic("t"))
    driver.disk_full = True
    assert driver.refusal(registration(1, incarnation=2), b"broker-1") == ErrorCode.KAFKA_STORAGE_ERROR
    assert leader_epochs(driver) == [0]
    driver.disk_full = False
    driver.register(1, incarnation=2)
    assert leader_epochs(driver) == [1]


def test_epochs_are_above_those_in_the_log_when_the_store_lost_its_last_commit(driver: Driver) -> None:
    driver.create(NewTopic("t", 2))
    found = [LocalPartition(topic_id_of(driver, "t"), 1, 7, 100)]
    driver.register(1, incarnation=2, found=found)
    assert leader_epochs(driver) == [1, 8]


def test_a_copy_ahead_of_the_store_fences_its_leader_elsewhere_too(driver: Driver) -> None:
    driver.create(NewTopic("t"))
    driver.register(2, incarnation=9, found=[LocalPartition(topic_id_of(driver, "t"), 0, 4, 10)])
    assert leader_epochs(driver) == [5]


def test_an_epoch_that_some_log_holds_is_remembered_until_somebody_leads(driver: Driver) -> None:
    driver.register(2)
    driver.create(NewTopic("t", 1, 2))
    driver.later(SESSION_MS)  # all power is cut, and the store is older than the logs
    topic_id = topic_id_of(driver, "t")
    driver.register(1, incarnation=5, found=[LocalPartition(topic_id, 0, 7, 100)])
    assert [p.leader for p in driver.core.image.all_partitions()] == [NO_LEADER]
    driver.register(2, incarnation=5, found=[LocalPartition(topic_id, 0, 3, 60)])
    for broker, last_epoch, end in ((1, 7, 100), (2, 3, 60)):
        (partition,) = driver.core.image.all_partitions()
        ends = [LeaderlessEnd(topic_id, 0, partition.leader_epoch, last_epoch, end)]
        beat = BrokerHeartbeatRequest(broker, driver.epochs[broker], driver.core.image.version, 1000, ends)
        driver.send(beat, b"broker-%d" % broker)
    assert [(p.leader, p.leader_epoch) for p in driver.core.image.all_partitions()] == [(1, 8)]


def test_a_request_sent_twice_is_answered_the_same(driver: Driver) -> None:
    driver.create(NewTopic("t"))
    first = driver.register(1, incarnation=2)
    before = driver.commits
    # by now the broker leads under the epoch it was granted, and its log shows it
    second = driver.register(1, incarnation=2, found=[LocalPartition(topic_id_of(driver, "t"), 0, 1, 0)])
    assert (second, driver.commits) == (first, before)


def test_a_replaced_incarnation_never_registers_again(driver: Driver) -> None:
    driver.register(1, incarnation=2)
    assert driver.refusal(registration(1, incarnation=1)) == ErrorCode.STALE_BROKER_EPOCH
    driver.restart()
    assert driver.refusal(registration(1, incarnation=1)) == ErrorCode.STALE_BROKER_EPOCH


def test_no_other_machine_takes_the_id_of_a_broker(driver: Driver) -> None:
    driver.register(2, site="here")
    stranger = registration(2, incarnation=7, site="there", directory_id="another")
    assert driver.refusal(stranger) == ErrorCode.DUPLICATE_BROKER_REGISTRATION
    driver.later(SESSION_MS)
    assert driver.refusal(stranger) == ErrorCode.DUPLICATE_BROKER_REGISTRATION, "what the dead one keeps is its own"
    driver.register(2, incarnation=8, site="here", directory_id="another")  # its disk was replaced


def test_a_copy_of_a_directory_is_no_broker_while_the_first_is_in_use(driver: Driver) -> None:
    driver.register(2)
    copy = registration(2, incarnation=7)
    copy = msgspec.structs.replace(copy, broker=msgspec.structs.replace(copy.broker, log_dir="/copied/brokers/2"))
    assert driver.refusal(copy) == ErrorCode.DUPLICATE_BROKER_REGISTRATION
    driver.restart()  # a new controller can't know where the old one was, nor that it is not the same that moved
    driver.ask(copy)
    driver.later(SESSION_MS)
    driver.register(2, incarnation=8)  # moved back, once the copy is silent


def test_a_replaced_incarnation_is_fenced_from_everything_else(driver: Driver) -> None:
    driver.register(1, incarnation=2)
    driver.epochs[1] = 1
    (answer,) = driver.heartbeat(1)
    assert answer.code == ErrorCode.STALE_BROKER_EPOCH
    assert driver.refusal(AllocateProducerIdsRequest(1, 1)) == ErrorCode.STALE_BROKER_EPOCH
    assert driver.refusal(AllocateProducerIdsRequest(7, 1)) == ErrorCode.STALE_BROKER_EPOCH


def test_another_directory_is_said_loudly_and_goes_on_under_a_fresh_epoch(driver: Driver) -> None:
    driver.create(NewTopic("t", 3))
    driver.register(1, incarnation=2, directory_id="a-new-disk")
    assert leader_epochs(driver) == [1, 1, 1]
    note, lossy = [note for note in driver.notes if note.level == "error"]
    assert lossy.fields["partitions"] == 3
    assert note.fields["directory_before"] == "directory-1"
    assert note.fields["partitions_lost"] == 3


def test_an_older_copy_of_a_directory_has_no_vote(driver: Driver) -> None:
    driver.register(2, incarnation=1)
    driver.create(NewTopic("t", 2, 2))
    driver.register(1, incarnation=2, incarnations=[1])
    driver.register(2, incarnation=2, incarnations=[1])
    driver.later(SESSION_MS)
    found = [LocalPartition(topic_id_of(driver, "t"), index, 0, 10) for index in range(2)]
    driver.register(1, incarnation=3, found=found, incarnations=[1])  # as it was before its process 2
    assert [p.leader for p in driver.core.image.all_partitions()] == [NO_LEADER] * 2
    assert all(1 not in p.seats for p in driver.core.image.all_partitions())
    assert any("older copy" in note.what and note.fields == {"broker": 1} for note in driver.notes)
    driver.register(2, incarnation=3, incarnations=[1, 2])
    driver.heartbeat(2)
    assert [p.seats for p in driver.core.image.all_partitions()] == [[2]] * 2


def test_a_process_that_was_never_registered_makes_no_older_copy(driver: Driver) -> None:
    driver.create(NewTopic("t", 2))
    driver.register(1, incarnation=5, incarnations=[1, 4])
    driver.register(1, incarnation=6, incarnations=[])  # its checkpoint is gone: it does not know
    assert all(p.isr == [1] for p in driver.core.image.all_partitions())
    assert not any("older copy" in note.what for note in driver.notes)


def test_producer_ids_begin_above_those_in_the_logs(driver: Driver) -> None:
    driver.register(2, incarnation=5, producer_id_floor=41_999)
    block = driver.ask(AllocateProducerIdsRequest(2, 1))
    assert (block.producer_id_start, block.count) == (42_000, 1000)
    driver.register(1, incarnation=6, producer_id_floor=10)
    assert driver.ask(AllocateProducerIdsRequest(2, 1)).producer_id_start == 43_000


def test_a_producer_id_somebody_made_up_keeps_no_broker_out_and_wastes_no_ids(driver: Driver) -> None:
    for incarnation, floor in ((5, 2**63 - 1), (6, 2**62), (7, 2**62 - 1)):
        driver.register(2, incarnation=incarnation, producer_id_floor=floor)
    assert driver.ask(AllocateProducerIdsRequest(2, driver.epochs[2])).producer_id_start < 10_000


def test_producer_ids_are_never_reissued(driver: Driver) -> None:
    seen: set[int] = set()
    for full in (False, True, False, False, True, False):
        driver.disk_full = full
        (answer,) = driver.send(AllocateProducerIdsRequest(1, 1))
        if full:
            assert answer.code == ErrorCode.KAFKA_STORAGE_ERROR
            continue
        block = set(range(answer.body.producer_id_start, answer.body.producer_id_start + answer.body.count))  # type: ignore[union-attr]
        assert not seen & block
        seen |= block
        driver.restart()


def test_where_kafkas_clients_find_a_broker_is_kept_and_told(driver: Driver) -> None:
    driver.ask(with_kafka(["PLAINTEXT://10.0.0.2:9092"]), b"broker-1")
    driver.restart()
    (broker,) = driver.metadata(1).brokers
    assert broker.kafka_endpoints == ["PLAINTEXT://10.0.0.2:9092"]


@pytest.mark.parametrize(
    "request_",
    [
        registration(cluster_id="another"),
        registration(-1),
        registration(2**40),
        registration(incarnation=-3),
        registration(partitions=[LocalPartition(bytes(16), 0, 2**31 - 1, 0)]),
        registration(partitions=[LocalPartition(b"short", 0, 2**60, 0)]),
        registration(directory_id="x" * 5000),
        with_kafka(["PLAINTEXT://a:9092"] * 17),
        with_kafka(["PLAINTEXT://" + "x" * 5000]),
    ],
)
def test_a_malformed_registration_is_refused_and_changes_nothing(driver: Driver, request_: object) -> None:
    before = dict(driver.durable)
    assert driver.refusal(request_) == ErrorCode.INVALID_REQUEST  # type: ignore[arg-type]
    assert driver.durable == before


def test_partitions_of_unknown_topics_are_reported_and_left_alone(driver: Driver) -> None:
    driver.register(1, incarnation=2, found=[LocalPartition(b"?" * 16, 0, 3, 5)])
    assert any(note.level == "warning" and note.fields == {"count": 1} for note in driver.notes)
    assert driver.metadata(1).deleted_topic_ids == []


def test_a_thousand_partitions_get_their_epochs_quickly(driver: Driver) -> None:
    driver.create(NewTopic("t", 1000))
    found = [LocalPartition(topic_id_of(driver, "t"), index, 0, 10) for index in range(1000)]
    before, started = driver.commits, time.perf_counter()
    driver.register(1, incarnation=2, found=found)
    assert leader_epochs(driver) == [1] * 1000
    assert driver.commits == before + 1
    assert time.perf_counter() - started < 10  # some 20 ms


def test_what_a_process_that_runs_already_registers_with_is_not_where_its_logs_end(driver: Driver) -> None:
    """It names the leader epoch it followed, of which its log may hold nothing."""
    driver.register(2)
    driver.create(NewTopic("t", 1, 2))
    topic_id = topic_id_of(driver, "t")
    driver.later(SESSION_MS)
    driver.register(1, incarnation=2, found=[LocalPartition(topic_id, 0, 5, 100)])
    driver.register(2, incarnation=2, found=[LocalPartition(topic_id, 0, 6, 90)])
    (record,) = driver.core.image.all_partitions()
    assert (record.leader, record.leader_epoch, record.recovering) == (NO_LEADER, 6, [1, 2])

    def beat(broker_id: int, last_epoch: int, end_offset: int) -> None:
        end = LeaderlessEnd(topic_id, 0, 6, last_epoch, end_offset)
        version = driver.core.image.version
        driver.send(BrokerHeartbeatRequest(broker_id, driver.epochs[broker_id], version, 1000, [end]))

    beat(2, 6, 90)
    driver.register(1, incarnation=2, found=[LocalPartition(topic_id, 0, 6, 100)])
    beat(1, 5, 100)
    (record,) = driver.core.image.all_partitions()
    assert record.leader == 2
