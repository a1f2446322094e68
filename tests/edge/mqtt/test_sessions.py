"""Who comes back, who takes over whom, what ends when."""

from __future__ import annotations

from typing import Any

import msgspec

from edge.mqtt.codes import Reason
from edge.mqtt.config import MqttConfig
from edge.mqtt.connect import Refused
from edge.mqtt.events import Lost, Received, Settled
from edge.mqtt.mapping import GATEWAY_RULES, Mapping
from edge.mqtt.packets import Connect, Publish, Will
from edge.mqtt.properties import Property
from edge.mqtt.session import Session
from edge.mqtt.sessions import (
    WILL_BYTES_MAX,
    Accepted,
    Arrived,
    Departed,
    Effect,
    Passed,
    PublishWill,
    Sessions,
    TakeOver,
)
from edge.mqtt.stats import Counters

WILL = Will("w", b"gone", 1, False)


class House:
    """All sessions, and a clock."""

    def __init__(self, **config: Any) -> None:
        self.counters = Counters()
        self.config = MqttConfig(bootstrap="x", **config)
        self.sessions = Sessions(Mapping(GATEWAY_RULES), self.config, self.counters)
        self.now_ms = 0

    def arrive(self, connection: object, connect: Connect, *, user: str | None = None) -> list[Effect]:
        return self.sessions.step(Arrived(connection, connect, connect.client_id, user), self.now_ms)

    def accepted(self, connection: object, connect: Connect) -> tuple[Session, bool]:
        effect = self.arrive(connection, connect)[-1]
        assert isinstance(effect, Accepted)
        return effect.session, effect.present

    def depart(self, session: Session) -> list[Effect]:
        return self.sessions.step(Departed(session, Lost()), self.now_ms)

    def after(self, ms: int) -> list[Effect]:
        self.now_ms += ms
        return self.sessions.step(Passed(), self.now_ms)


def five(expiry_s: int = 0, *, clean: bool = False, will: Will | None = None) -> Connect:
    return Connect(5, "dev", clean, 0, None, None, will, {Property.SESSION_EXPIRY_INTERVAL: expiry_s})


def delayed(seconds: int) -> Will:
    return Will("w", b"gone", 0, False, {Property.WILL_DELAY_INTERVAL: seconds})


def test_a_session_is_present_until_it_expires() -> None:
    house = House()
    session, present = house.accepted(1, five(10))
    assert not present
    house.depart(session)
    house.now_ms += 9_999
    again, present = house.accepted(2, five(10))
    assert present
    assert again is session
    house.depart(session)
    house.after(10_000)
    assert house.counters.sessions == 0
    assert house.accepted(3, five(10))[1] is False


def test_what_is_unanswered_when_its_session_ends_leaves_the_balance() -> None:
    house = House(sessions_max=1)
    for number, end in enumerate((lambda: house.after(10_000), lambda: house.arrive(9, five())), 1):
        session, _ = house.accepted(number, msgspec.structs.replace(five(10), client_id=f"dev-{number}"))
        message = Publish(0x32, b"a", b"\0\1", b"x")
        session.step(Received([message]), house.now_ms)
        house.depart(session)
        message.outcome = 0
        session.step(Settled([message]), house.now_ms)
        assert house.counters.stats().in_flight == 1
        end()
        stats = house.counters.stats()
        assert (stats.unanswered_total, stats.refused_total, stats.in_flight) == (number, number, 0)


def test_a_clean_start_begins_anew() -> None:
    house = House()
    session, _ = house.accepted(1, five(10))
    house.depart(session)
    assert house.accepted(2, five(10, clean=True))[1] is False


def test_mqtt_311_sessions_live_as_long_as_the_gateway_keeps_any() -> None:
    house = House(session_expiry_s_max=60)
    session, _ = house.accepted(1, Connect(4, "dev", clean_start=False))
    house.depart(session)
    house.after(59_000)
    assert house.accepted(2, Connect(4, "dev", clean_start=False))[1] is True


def test_a_newcomer_takes_over_the_connection_of_its_client_id() -> None:
    house = House()
    session, _ = house.accepted("old", five(10))
    assert house.arrive("new", five(10)) == [TakeOver("old")]
    house.depart(session)
    assert house.accepted("new", five(10)) == (session, True)
    assert house.counters.takeovers == 1


def test_nobody_takes_over_the_session_of_another_user() -> None:
    house = House()
    [effect] = house.arrive(1, five(10), user="alice")
    assert isinstance(effect, Accepted)
    for _ in range(2):
        [refused] = house.arrive(2, five(10), user="bob")
        assert isinstance(refused, Refused)
        assert refused.reason == Reason.CLIENT_IDENTIFIER_NOT_VALID
        if effect.session.connected:
            house.depart(effect.session)
    house.after(10_000)
    assert isinstance(house.arrive(2, five(10), user="bob")[-1], Accepted)


def test_a_will_is_published_when_its_client_is_gone() -> None:
    house = House()
    session, _ = house.accepted(1, five(will=WILL))
    [effect] = house.depart(session)
    assert isinstance(effect, PublishWill)
    assert effect.publication.payload == b"gone"


def test_a_will_that_was_taken_back_is_not_published() -> None:
    house = House()
    session, _ = house.accepted(1, five(will=WILL))
    session.will = None
    assert house.depart(session) == []


def test_a_delayed_will_waits_for_its_client_to_come_back() -> None:
    house = House()
    session, _ = house.accepted(1, five(60, will=delayed(5)))
    assert house.depart(session) == []
    assert house.after(4_999) == []
    assert house.accepted(2, five(60))[1] is True
    assert house.after(10_000) == []
    house.depart(session)
    assert house.after(10_000) == []


def test_a_delayed_will_comes_after_its_delay_or_with_the_end_of_its_session() -> None:
    for expiry_s, delay_s, due_ms in ((60, 5, 5_000), (3, 5, 3_000)):
        house = House()
        session, _ = house.accepted(1, five(expiry_s, will=delayed(delay_s)))
        house.depart(session)
        assert house.after(due_ms - 1) == []
        assert [type(effect) for effect in house.after(1)] == [PublishWill]


def test_a_clean_start_ends_the_session_and_so_the_delay_of_its_will() -> None:
    house = House()
    session, _ = house.accepted(1, five(60, will=delayed(5)))
    house.depart(session)
    effects = house.arrive(2, five(60, clean=True))
    assert [type(effect) for effect in effects] == [PublishWill, Accepted]


def test_a_clean_session_lingers_until_the_log_has_answered_for_its_messages() -> None:
    house = House()
    session, _ = house.accepted(1, Connect(4, "dev"))
    publish = Publish(0x32, b"a", b"\0\1", b"x")
    session.step(Received([publish]), 0)
    house.depart(session)
    house.after(5_000)
    assert house.counters.sessions == 1
    publish.outcome = 0
    session.step(Settled([publish]), house.now_ms)
    house.after(5_000)
    assert house.counters.sessions == 0


def test_wills_that_wait_are_bounded_like_any_session() -> None:
    house = House(sessions_max=10)
    published = 0
    for number in range(100):
        will = Will("w", bytes(60_000), 0, False, {Property.WILL_DELAY_INTERVAL: 86_400})
        effects = house.arrive(number, msgspec.structs.replace(five(86_400, will=will), client_id=f"dev-{number}"))
        published += sum(isinstance(effect, PublishWill) for effect in effects)
        assert isinstance(effects[-1], Accepted)
        house.depart(effects[-1].session)
        house.now_ms += 1
    assert house.counters.sessions <= 10
    assert published >= 90, "a will that can't wait any longer is published, not forgotten"


def test_wills_together_take_bounded_memory() -> None:
    house = House()
    kept, refused, published = 0, 0, 0
    for number in range(3000):
        will = Will("w", bytes(60_000), 0, False, {Property.WILL_DELAY_INTERVAL: 86_400})
        effects = house.arrive(number, msgspec.structs.replace(five(86_400, will=will), client_id=f"dev-{number}"))
        published += sum(isinstance(effect, PublishWill) for effect in effects)
        if isinstance(effects[-1], Refused):
            assert effects[-1].reason == Reason.QUOTA_EXCEEDED
            refused += 1
            continue
        assert isinstance(effects[-1], Accepted)
        kept += 1
        if number < 500:
            house.depart(effects[-1].session)
    assert published == 500, "those that wait make room for those whose clients are there"
    assert (kept - published) * 60_000 <= WILL_BYTES_MAX
    assert refused == 3000 - kept > 0


def test_sessions_are_bounded_and_the_longest_left_goes_first() -> None:
    house = House(sessions_max=3)
    connect = Connect(4, "", clean_start=False)
    for number in range(10):
        arrived = Arrived(number, connect, f"dev-{number}", None)
        [effect] = house.sessions.step(arrived, house.now_ms)
        assert isinstance(effect, Accepted)
        house.now_ms += 1
        house.depart(effect.session)
    assert house.counters.sessions == 3
