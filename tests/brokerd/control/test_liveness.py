"""Which brokers count as alive, and what their death changes."""

from __future__ import annotations

import pytest

from brokerd.control.controller import NO_QUESTION
from brokerd.control.events import ConnectionLost, PeerGone, Received, Tick
from brokerd.control.sessions import ABSENT_MS
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    ControlledShutdownRequest,
    CreateTopicsRequest,
    NewTopic,
)
from replicas.state import NO_LEADER
from tests.brokerd.control.driver import SESSION_MS, Driver


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.register(1)
    driver.register(2)
    driver.create(NewTopic("t", 4))
    driver.step(ConnectionLost())  # no heartbeat is parked
    return driver


def alive(driver: Driver) -> list[int]:
    return driver.core.image.alive_brokers()


def test_a_silent_broker_is_dead_after_the_session_time_and_keeps_its_partitions(driver: Driver) -> None:
    driver.later(SESSION_MS - 1)
    assert alive(driver) == [1, 2]
    driver.heartbeat(1)
    driver.later(1)
    assert alive(driver) == [1]
    assert {p.leader for p in driver.core.image.all_partitions()} == {1, NO_LEADER}
    assert [p.eligible for p in driver.core.image.all_partitions() if p.leader == NO_LEADER] == [[2], [2]]
    metadata = driver.metadata(1)
    assert [b.alive for b in metadata.brokers] == [True, False]


def test_a_dead_broker_that_speaks_again_is_alive(driver: Driver) -> None:
    driver.later(SESSION_MS)
    assert alive(driver) == []
    driver.heartbeat(2)
    assert alive(driver) == [2]
    driver.register(1, incarnation=7)
    driver.later(1)
    assert alive(driver) == [1, 2]


def test_a_new_controller_waits_a_whole_session_before_it_declares_deaths(driver: Driver) -> None:
    driver.later(SESSION_MS - 1)
    driver.restart()
    driver.later(SESSION_MS - 1)
    assert alive(driver) == [1, 2]
    driver.later(1)
    assert alive(driver) == []


def test_a_broker_whose_machine_reaches_the_store_no_more_has_little_time_to_speak(driver: Driver) -> None:
    driver.restart(absent=[1, 2])
    driver.later(ABSENT_MS - 1)
    driver.heartbeat(2)
    driver.later(1)
    assert alive(driver) == [2]
    driver.later(SESSION_MS - 2)
    assert alive(driver) == [2], "it was heard, and has a session like any other"


def test_an_answer_that_can_not_be_delivered_is_a_death(driver: Driver) -> None:
    driver.step(PeerGone(b"broker-2"))
    assert alive(driver) == [1]
    driver.step(PeerGone(b"broker-2"))
    driver.step(PeerGone(b"client"))
    assert alive(driver) == [1]


def test_a_broker_that_came_back_over_another_connection_is_not_dead(driver: Driver) -> None:
    request = BrokerHeartbeatRequest(2, driver.epochs[2], driver.core.image.version, 1000)
    driver.step(Received(b"broker-2-again", 99, 1000, request))
    driver.step(PeerGone(b"broker-2"))
    assert alive(driver) == [1, 2]


def test_a_lost_connection_has_every_parked_heartbeat_answered(driver: Driver) -> None:
    driver.heartbeat(1)
    driver.heartbeat(2)
    answered = {answer.peer for answer in driver.step(ConnectionLost())}
    assert answered == {b"broker-1", b"broker-2"}


def test_a_lost_connection_of_a_broker_that_stops_is_noticed_though_it_asks_nothing(driver: Driver) -> None:
    driver.step(ConnectionLost())  # no heartbeat is parked: brokers that stop send none after their last answer
    driver.send(ControlledShutdownRequest(2, driver.epochs[2]))
    (sounded,) = driver.step(ConnectionLost())
    assert (sounded.peer, sounded.correlation_id) == (b"broker-2", NO_QUESTION)
    driver.step(PeerGone(b"broker-2"))
    assert driver.step(ConnectionLost()) == [], "the dead are dead"


def test_a_slow_broker_that_connects_anew_is_not_taken_for_dead(driver: Driver) -> None:
    driver.step(ConnectionLost())
    assert driver.step(ConnectionLost()) == [], "it asks nothing, so nothing tells whose connection it was"
    assert alive(driver) == [1, 2]


def test_a_death_releases_answers_that_waited_for_the_dead(driver: Driver) -> None:
    driver.send(CreateTopicsRequest([NewTopic("u")]))
    driver.heartbeat(1)
    answers = driver.step(PeerGone(b"broker-2"))
    assert [answer.peer for answer in answers if answer.peer == b"client"] == [b"client"]


def test_a_controller_that_was_stopped_itself_declares_no_deaths(driver: Driver) -> None:
    driver.now_ms += 10 * SESSION_MS
    driver.step(Tick())
    assert alive(driver) == [1, 2]
    driver.later(SESSION_MS)
    assert alive(driver) == []


@pytest.mark.parametrize("stopped_ms", [1600, 10 * SESSION_MS])
def test_connections_that_ended_while_the_controller_was_stopped_prove_no_deaths(
    driver: Driver, stopped_ms: int
) -> None:
    driver.heartbeat(1)  # answered after a second; it gives up after two, and connects anew
    driver.now_ms += stopped_ms
    assert {answer.peer for answer in driver.step(Tick())} == {b"broker-1"}
    driver.step(PeerGone(b"broker-1"))
    assert alive(driver) == [1, 2]
    driver.heartbeat(1)
    driver.heartbeat(2)
    driver.later(1000)
    driver.step(PeerGone(b"broker-1"))
    assert alive(driver) == [2]


def test_many_deaths_at_once_are_one_commit(driver: Driver) -> None:
    before = driver.commits
    driver.later(SESSION_MS)
    assert driver.commits == before + 1


def test_a_death_that_can_not_be_kept_is_tried_again_later_not_at_once(driver: Driver) -> None:
    driver.disk_full = True
    driver.later(SESSION_MS)
    assert alive(driver) == [1, 2]
    due = driver.core.next_deadline_ms()
    assert due is not None
    assert due >= driver.now_ms + 1000
    driver.disk_full = False
    driver.later(1000)
    assert alive(driver) == []


def test_a_heartbeat_is_parked_until_its_time_or_news(driver: Driver) -> None:
    version = driver.core.image.version
    assert driver.heartbeat(1, wait_ms=700) == []
    (answer,) = driver.later(700)
    assert answer.body == BrokerHeartbeatResponse(version, 1), "what it has is not sent again"
    driver.heartbeat(1, wait_ms=700)
    driver.heartbeat(2, wait_ms=700)
    answers = driver.send(CreateTopicsRequest([NewTopic("u")]))
    assert {answer.peer for answer in answers} == {b"broker-1", b"broker-2"}
    assert all(answer.body.metadata.version == version + 1 for answer in answers)  # type: ignore[union-attr]


def test_a_second_heartbeat_takes_the_place_of_the_first(driver: Driver) -> None:
    driver.heartbeat(1)
    (answer,) = driver.heartbeat(1)
    assert answer.peer == b"broker-1"
    assert len(driver.later(1000)) == 1


def test_a_broker_ahead_of_the_store_must_register_again(driver: Driver) -> None:
    (answer,) = driver.heartbeat(1, applied=driver.core.image.version + 1)
    assert answer.code == ErrorCode.STALE_BROKER_EPOCH


def test_an_election_that_could_not_be_kept_is_tried_again_without_other_news() -> None:
    driver = Driver()
    driver.register(1)
    driver.register(2)
    driver.create(NewTopic("t", 1, 2, {"min.insync.replicas": "2"}))
    (record,) = driver.core.image.all_partitions()
    leader, follower = record.replicas
    driver.step(ConnectionLost())
    driver.restart(absent=[leader])
    driver.later(ABSENT_MS)
    (record,) = driver.core.image.all_partitions()
    assert record.leader == NO_LEADER, "the follower was not heard yet"
    driver.disk_full = True
    driver.heartbeat(follower)
    driver.disk_full = False
    driver.later(1500)
    (record,) = driver.core.image.all_partitions()
    assert record.leader == follower
