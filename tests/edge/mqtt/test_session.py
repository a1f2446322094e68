"""What a session promises its device, event by event."""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.mqtt.codes import Reason
from edge.mqtt.config import MqttConfig
from edge.mqtt.events import Append, Close, Connected, Lost, Received, SessionEffect, Settled, Tick, Write
from edge.mqtt.mapping import Mapping, Rule
from edge.mqtt.packets import Connect, Publish, Will
from edge.mqtt.parser import Parser
from edge.mqtt.properties import Property
from edge.mqtt.session import Session
from edge.mqtt.stats import Counters
from tests.edge.mqtt import client_packets as c

RULES = (Rule("plant/+/#", "plant.{1}", "${clientid}"), Rule("bad/#", "bad topic.{1}", ""), Rule("+", "mqtt", ""))
CONFIG = MqttConfig(bootstrap="x", rules=RULES, receive_maximum=4, topic_alias_maximum=2)


class Device:
    """A session, and the two ends it has: packets of a device, answers of the log."""

    def __init__(self, version: int = 4, *, config: MqttConfig = CONFIG, connect: Connect | None = None) -> None:
        self.counters = Counters()
        self.session = Session("dev", None, Mapping(config.rules), config, self.counters)
        self.version = version
        self.now_ms = 0
        self.appended: list[Publish] = []
        self.unsettled: list[Publish] = []
        self.sent: list[tuple[int, bytes]] = []
        self.closed: Close | None = None
        self.connect(connect)

    def connect(self, connect: Connect | None = None, *, resumed: bool = False) -> None:
        self.closed = None
        self.parser = Parser()
        self.parser.feed(c.connect(version=self.version))
        self.parser.accept(1 << 20)
        self.session.step(Connected(connect or Connect(self.version, "dev"), resumed), self.now_ms)

    def send(self, data: bytes) -> list[tuple[int, bytes]]:
        """Send bytes and return what is answered at once."""
        return self._do(self.session.step(Received(self.parser.feed(data)), self.now_ms))

    def publish(self, topic: str, payload: bytes = b"x", **options: Any) -> list[tuple[int, bytes]]:
        return self.send(c.publish(topic, payload, version=self.version, **options))

    def settle(self, count: int = 1, outcome: int = 0) -> list[tuple[int, bytes]]:
        """Let the log answer for the oldest unsettled messages and return what the device is told."""
        some, self.unsettled = self.unsettled[:count], self.unsettled[count:]
        for publish in some:
            publish.outcome, publish.text = outcome, "no" if outcome else ""
        return self._do(self.session.step(Settled(some), self.now_ms))

    def lose(self, unsent: list[Publish] | None = None) -> None:
        for publish in unsent or []:
            self.unsettled.remove(publish)
        self.session.step(Lost(unsent or []), self.now_ms)

    def tick(self) -> list[tuple[int, bytes]]:
        return self._do(self.session.step(Tick(), self.now_ms))

    def _do(self, effects: list[SessionEffect]) -> list[tuple[int, bytes]]:
        said: list[tuple[int, bytes]] = []
        for effect in effects:
            match effect:
                case Append(publications):
                    self.appended += publications
                    self.unsettled += publications
                case Write(data):
                    said += c.split(data)
                case Close():
                    self.closed = effect
        self.sent += said
        return said

    def check_balance(self, in_flight: int) -> None:
        counters = self.counters
        assert counters.received == counters.acknowledged + counters.refused + counters.unanswered + in_flight
        assert counters.appended >= counters.acknowledged


def mid(number: int) -> bytes:
    return number.to_bytes(2, "big")


def headers(publish: Publish) -> AnyMapping[str, bytes]:
    return dict(publish.destination.headers)


@pytest.mark.parametrize("version", [4, 5])
def test_puback_comes_only_after_the_record_is_in_the_log(version: int) -> None:
    device = Device(version)
    assert device.publish("a", qos=1, mid=7) == []
    assert device.settle() == [(0x40, mid(7))]
    device.check_balance(0)


def test_pubacks_come_in_the_order_of_the_publishes() -> None:
    device = Device()
    device.send(c.publish("a", qos=1, mid=1) + c.publish("b", qos=1, mid=2) + c.publish("c", qos=2, mid=3))
    first, second, third = device.unsettled
    device.unsettled = [second, third, first]
    assert device.settle(2) == []
    assert device.settle() == [(0x40, mid(1)), (0x40, mid(2)), (0x50, mid(3))]


def test_qos_0_is_appended_and_not_answered() -> None:
    device = Device()
    device.publish("a")
    assert device.settle() == []
    assert device.counters.acknowledged == device.counters.appended == 1


@pytest.mark.parametrize("version", [4, 5])
def test_qos_2_goes_into_the_log_once_however_often_it_is_sent(version: int) -> None:
    device = Device(version)
    device.publish("a", qos=2, mid=5)
    assert device.publish("a", qos=2, mid=5, dup=True) == []
    assert device.settle() == [(0x50, mid(5))]
    assert device.publish("a", qos=2, mid=5, dup=True) == [(0x50, mid(5))]
    assert device.send(c.pubrel(5)) == [(0x70, mid(5))]
    assert len(device.appended) == 1
    device.publish("a", qos=2, mid=5)
    assert len(device.appended) == 2


def test_pubrel_of_an_unknown_message_is_answered() -> None:
    assert Device(4).send(c.pubrel(9)) == [(0x70, mid(9))]
    assert Device(5).send(c.pubrel(9)) == [(0x70, mid(9) + b"\x92")]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_resend_after_a_reconnect_attaches_to_its_original_in_flight(qos: int, resumed: bool) -> None:
    device = Device()
    device.publish("a", b"one", qos=qos, mid=1)
    device.lose()
    device.connect(resumed=resumed)
    assert device.publish("a", b"one", qos=qos, mid=1, dup=True) == []
    assert len(device.appended) == 1
    assert device.settle() == [(0x40 if qos == 1 else 0x50, mid(1))]
    assert device.counters.resends_attached == 1
    device.check_balance(0)


def test_a_resend_to_a_resumed_session_whose_record_is_in_the_log_is_acknowledged_at_once() -> None:
    device = Device()
    device.publish("a", b"one", qos=1, mid=1)
    device.lose()
    assert device.settle() == []
    device.check_balance(1)
    device.connect(resumed=True)
    assert device.publish("a", b"one", qos=1, mid=1, dup=True) == [(0x40, mid(1))]
    assert len(device.appended) == 1
    device.check_balance(0)


@pytest.mark.parametrize(("payload", "dup"), [(b"two", True), (b"one", False)])
def test_another_message_under_a_known_packet_identifier_is_not_taken_for_a_resend(payload: bytes, dup: bool) -> None:
    device = Device()
    device.publish("a", b"one", qos=1, mid=1)
    device.lose()
    device.connect(resumed=True)
    device.publish("a", payload, qos=1, mid=1, dup=dup)
    assert [publish.payload for publish in device.appended] == [b"one", payload]
    device.settle(2)
    assert device.sent == [(0x40, mid(1))]


def test_messages_that_never_reached_the_log_are_dropped_with_their_connection() -> None:
    device = Device()
    device.send(c.publish("a", qos=1, mid=1) + c.publish("a", qos=1, mid=2))
    device.lose(unsent=device.unsettled[1:])
    device.check_balance(1)
    device.settle()
    device.check_balance(1)
    device.connect(resumed=True)
    device.publish("a", qos=1, mid=2, dup=True)
    assert len(device.appended) == 3


def test_more_than_the_receive_maximum_ends_an_mqtt_5_connection() -> None:
    device = Device(5)
    for number in range(1, 5):
        device.publish("a", qos=1 + number % 2, mid=number)
    assert device.publish("a", qos=1, mid=5)[0][1][0] == Reason.RECEIVE_MAXIMUM_EXCEEDED
    assert device.closed is not None
    assert len(device.appended) == 4


def test_qos_2_counts_toward_the_receive_maximum_until_pubrel() -> None:
    device = Device(5)
    for number in range(1, 5):
        device.publish("a", qos=2, mid=number)
    device.settle(4)
    device.send(c.pubrel(1))
    device.publish("a", qos=1, mid=9)
    assert device.closed is None
    device.publish("a", qos=1, mid=10)
    assert device.closed is not None


def test_pings_are_answered_while_a_puback_is_held() -> None:
    device = Device()
    device.publish("a", qos=1, mid=1)
    assert device.send(c.PINGREQ) == [(0xD0, b"")]


@pytest.mark.parametrize(("version", "answer"), [(4, b"\x80\x80"), (5, None)])
def test_subscribe_is_refused_with_a_reason(version: int, answer: bytes | None) -> None:
    device = Device(version)
    [(kind, body)] = device.send(c.subscribe(3, ["a", "b/#"], version=version))
    assert kind == 0x90
    assert body[:2] == mid(3)
    if answer is not None:
        assert body[2:] == answer
    else:
        assert b"deliver" in body
        assert body[-2:] == bytes([Reason.IMPLEMENTATION_SPECIFIC_ERROR] * 2)
    assert device.closed is None


@pytest.mark.parametrize(("version", "answer"), [(4, b""), (5, b"\0\x11\x11")])
def test_unsubscribe_is_answered(version: int, answer: bytes) -> None:
    assert Device(version).send(c.unsubscribe(3, ["a", "b"], version=version)) == [(0xB0, mid(3) + answer)]


@pytest.mark.parametrize("topic", [b"", b"a/+", b"#", b"a\0b", b"\xff\xfe", b"\xed\xa0\x80"])
def test_a_topic_mqtt_forbids_ends_the_connection(topic: bytes) -> None:
    for version in (4, 5):
        device = Device(version)
        said = device.send(c.publish(topic, qos=1, mid=1, version=version))
        assert device.closed is not None
        assert [kind for kind, _ in said] == ([0xE0] if version == 5 else [])
        assert device.appended == []


@pytest.mark.parametrize("topic", ["$SYS/broker", "no/rule", "bad/x"])
def test_what_maps_to_no_topic_gets_a_reason_in_mqtt_5(topic: str) -> None:
    device = Device(5)
    [(kind, body)] = device.publish(topic, qos=1, mid=1)
    assert (kind, body[:3]) == (0x40, mid(1) + bytes([Reason.TOPIC_NAME_INVALID]))
    [(kind, body)] = device.publish(topic, qos=2, mid=2)
    assert (kind, body[:3]) == (0x50, mid(2) + bytes([Reason.TOPIC_NAME_INVALID]))
    assert device.counters.refused == 2
    device.check_balance(0)


@pytest.mark.parametrize(("version", "qos"), [(4, 0), (4, 1), (4, 2), (5, 0)])
def test_what_maps_to_no_topic_and_cannot_be_refused_is_a_dead_letter_then_acknowledged(version: int, qos: int) -> None:
    device = Device(version)
    assert device.publish("$SYS/x", b"lost?", qos=qos, mid=1) == []
    [letter] = device.appended
    assert letter.destination.topic == "mqtt.dead-letter"
    assert b"server's own" in headers(letter)["mqtt.reason"]
    assert headers(letter)["mqtt.topic"] == b"$SYS/x"
    assert len(device.settle()) == (qos > 0)
    assert device.counters.dead_lettered == device.counters.acknowledged == 1


def test_what_was_stored_while_its_sender_was_away_is_in_flight_until_the_resend_is_answered() -> None:
    device = Device()
    device.publish("a", qos=1, mid=1)
    device.publish("b", qos=2, mid=2)
    device.lose()
    device.settle(2)
    assert device.counters.stats().in_flight == 2
    device.connect(resumed=True)
    assert device.publish("a", qos=1, mid=1, dup=True) == [(0x40, mid(1))]
    assert device.publish("b", qos=2, mid=2, dup=True) == [(0x50, mid(2))]
    stats = device.counters.stats()
    assert (stats.received_total, stats.acknowledged_total, stats.refused_total, stats.in_flight) == (2, 2, 0, 0)


@pytest.mark.parametrize("stored", [False, True])
def test_what_nobody_came_back_for_is_unanswered_once_its_session_ends(stored: bool) -> None:
    device = Device()
    device.publish("a", qos=1, mid=1)
    device.lose()
    if stored:
        device.settle()
    device.session.end()
    device.settle()
    stats = device.counters.stats()
    assert (stats.received_total, stats.refused_total, stats.unanswered_total, stats.in_flight) == (1, 1, 1, 0)


def test_what_a_sender_puts_in_place_of_an_unanswered_message_ends_the_wait_for_it() -> None:
    device = Device()
    device.publish("a", b"old", qos=1, mid=1)
    device.lose()
    device.settle()
    device.connect(resumed=True)
    device.publish("a", b"new", qos=1, mid=1)
    assert device.settle() == [(0x40, mid(1))]
    assert (device.counters.acknowledged, device.counters.unanswered) == (1, 1)
    device.check_balance(0)


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    device = Device(5)
    device.publish("a", qos=1, mid=1)
    assert device.publish("no/rule", qos=1, mid=2) == []
    assert [body[:2] for _, body in device.settle()] == [mid(1), mid(2)]


def test_what_the_log_rejects_gets_a_reason_in_mqtt_5_and_is_a_dead_letter_in_mqtt_311() -> None:
    device = Device(5)
    device.publish("a", qos=1, mid=1)
    assert device.settle(outcome=Reason.QUOTA_EXCEEDED)[0][1][:3] == mid(1) + bytes([Reason.QUOTA_EXCEEDED])
    assert device.counters.refused == 1
    device = Device(4)
    device.publish("a", qos=1, mid=1)
    assert device.settle(outcome=Reason.QUOTA_EXCEEDED) == []
    assert device.unsettled[0].destination.topic == "mqtt.dead-letter"
    assert device.settle() == [(0x40, mid(1))]
    device.check_balance(0)


def test_what_not_even_the_dead_letters_take_is_not_acknowledged() -> None:
    device = Device(4)
    device.publish("a", qos=1, mid=1)
    device.settle(outcome=Reason.QUOTA_EXCEEDED)
    assert device.settle(outcome=Reason.QUOTA_EXCEEDED) == []
    assert device.closed is not None
    device.lose()
    assert device.counters.acknowledged == 0
    device.check_balance(0)


def test_record_headers_say_where_a_message_came_from() -> None:
    device = Device()
    device.publish("a", qos=2, mid=2)
    [record] = device.appended
    assert record.destination.headers == (
        ("mqtt.topic", b"a"),
        ("mqtt.qos", b"2"),
        ("mqtt.clientid", b"dev"),
        ("mqtt.dup", b"0"),
        ("mqtt.retain", b"0"),
    )


def test_user_properties_become_headers_and_forge_none_of_ours() -> None:
    device = Device(5)
    pairs = [("unit", "°C"), ("mqtt.clientid", "somebody else"), ("unit", "again")]
    device.publish("plant/a/temp", qos=1, mid=1, retain=True, properties={Property.USER_PROPERTY: pairs})
    [record] = device.appended
    assert record.destination.topic == "plant.a"
    assert record.destination.key == b"dev"
    assert record.destination.headers[-3:] == (
        ("unit", "°C".encode()),
        ("user.mqtt.clientid", b"somebody else"),
        ("unit", b"again"),
    )
    assert headers(record)["mqtt.retain"] == b"1"


def test_a_topic_alias_stands_for_its_topic_within_the_connection() -> None:
    device = Device(5)
    device.publish("plant/a/x", qos=1, mid=1, properties={Property.TOPIC_ALIAS: 2})
    device.publish("", qos=1, mid=2, properties={Property.TOPIC_ALIAS: 2})
    assert [headers(record)["mqtt.topic"] for record in device.appended] == [b"plant/a/x"] * 2
    device.lose()
    device.connect(resumed=True)
    device.publish("", qos=1, mid=3, properties={Property.TOPIC_ALIAS: 2})
    assert device.closed is not None
    assert device.closed.reason == Reason.PROTOCOL_ERROR


@pytest.mark.parametrize("alias", [0, 3, 65535])
def test_a_topic_alias_out_of_range_ends_the_connection(alias: int) -> None:
    device = Device(5)
    device.publish("a", qos=1, mid=1, properties={Property.TOPIC_ALIAS: alias})
    assert device.closed is not None
    assert device.closed.reason == Reason.TOPIC_ALIAS_INVALID


def test_silence_of_one_and_a_half_keep_alives_ends_the_connection() -> None:
    device = Device(5, connect=Connect(5, "dev", keep_alive_s=10))
    device.now_ms = 15_000
    assert device.tick() == []
    device.now_ms = 15_001
    assert device.tick()[0][1][0] == Reason.KEEP_ALIVE_TIMEOUT
    assert device.closed is not None
    quiet = Device(4, connect=Connect(4, "dev", keep_alive_s=0))
    quiet.now_ms = 10**9
    quiet.tick()
    assert quiet.closed is None


def test_a_second_connect_ends_the_connection() -> None:
    device = Device()
    device.send(c.connect())
    assert device.closed is not None
    assert device.closed.reason == Reason.PROTOCOL_ERROR


def test_a_clean_disconnect_takes_the_will_back_and_one_with_will_does_not() -> None:
    will = Will("w", b"gone", 1, False)
    for data, kept in ((c.disconnect(version=5), False), (c.disconnect(version=5, reason=4), True)):
        device = Device(5, connect=Connect(5, "dev", will=will))
        device.send(data + c.PINGREQ)
        assert device.sent == []
        assert device.closed == Close(Reason.SUCCESS, "")
        assert (device.session.will is not None) is kept


def test_a_will_becomes_a_record_that_says_so() -> None:
    device = Device(connect=Connect(4, "dev", will=Will("plant/a/will", b"gone", 2, True)))
    publication = device.session.will_publication()
    assert publication is not None
    assert publication.destination.topic == "plant.a"
    assert headers(publication) == {
        "mqtt.topic": b"plant/a/will",
        "mqtt.qos": b"2",
        "mqtt.clientid": b"dev",
        "mqtt.dup": b"0",
        "mqtt.retain": b"1",
        "mqtt.will": b"1",
    }
    assert device.session.will_publication() is None
    publication.outcome = 0
    device.session.step(Settled([publication]), 0)
    assert (device.counters.wills, device.counters.appended, device.counters.acknowledged) == (1, 1, 0)


def test_a_session_that_ends_with_its_connection_cannot_be_prolonged() -> None:
    device = Device(5)
    device.send(c.disconnect(version=5, properties={Property.SESSION_EXPIRY_INTERVAL: 5}))
    assert device.closed is not None
    assert device.closed.reason == Reason.PROTOCOL_ERROR


def test_reasons_stay_unsaid_to_who_does_not_want_them() -> None:
    device = Device(5, connect=Connect(5, "dev", properties={Property.REQUEST_PROBLEM_INFORMATION: 0}))
    assert device.publish("no/rule", qos=1, mid=1) == [(0x40, mid(1) + bytes([Reason.TOPIC_NAME_INVALID]))]


def test_packet_identifiers_are_recorded_on_request() -> None:
    config = MqttConfig(bootstrap="x", record_mid=True)
    device = Device(config=config)
    device.publish("a", qos=1, mid=258)
    assert headers(device.appended[0])["mqtt.mid"] == b"258"


class SessionMachine(RuleBasedStateMachine):
    """Devices and logs that do anything in any order: the balance holds, nothing is acknowledged too early."""

    def __init__(self) -> None:
        super().__init__()
        self.device = Device(4)
        self.connected = True

    @precondition(lambda self: self.connected)
    @rule(
        qos=st.integers(0, 2),
        number=st.integers(1, 6),
        payload=st.sampled_from([b"a", b"b"]),
        dup=st.booleans(),
        topic=st.sampled_from(["a", "no/rule"]),
    )
    def publish(self, qos: int, number: int, payload: bytes, dup: bool, topic: str) -> None:
        self.device.publish(topic, payload, qos=qos, mid=number, dup=dup and qos > 0)

    @precondition(lambda self: self.connected)
    @rule(number=st.integers(1, 6))
    def pubrel(self, number: int) -> None:
        self.device.send(c.pubrel(number))

    @precondition(lambda self: self.device.unsettled)
    @rule(refuse=st.integers(0, 4), last=st.booleans())
    def settle(self, refuse: int, last: bool) -> None:
        if last:
            self.device.unsettled.insert(0, self.device.unsettled.pop())
        refused = refuse == 4 and not self.device.unsettled[0].dead_letter
        self.device.settle(outcome=Reason.QUOTA_EXCEEDED if refused else 0)

    @precondition(lambda self: self.connected)
    @rule(dropped=st.integers(0, 2))
    def lose(self, dropped: int) -> None:
        kept = len(self.device.unsettled) - dropped
        self.device.lose([publish for publish in self.device.unsettled[max(0, kept) :] if publish.packet_id])
        self.connected = False

    @precondition(lambda self: not self.connected)
    @rule(resumed=st.booleans())
    def connect(self, resumed: bool) -> None:
        self.device.connect(resumed=resumed)
        self.connected = True

    @precondition(lambda self: not self.connected)
    @rule()
    def end(self) -> None:
        self.device.session.end()
        self.device.check_balance(sum(not publish.counted for publish in self.device.unsettled))

    @invariant()
    def balance_holds(self) -> None:
        counters = self.device.counters
        waiting = {id(publish) for publish in self.device.unsettled if not publish.counted}
        waiting |= {id(publish) for publish in self.device.session._fifo}
        waiting |= {id(publish) for publish in self.device.session._orphans.values()}
        assert not any(publish.counted for publish in self.device.session._fifo), (
            "an answer after the books were closed"
        )
        self.device.check_balance(len(waiting))
        acks = sum(kind in (0x40, 0x50) for kind, _ in self.device.sent)
        resends = counters.resends_attached
        assert acks <= counters.appended + resends, "an answer for something that is not in the log"


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=60, stateful_step_count=40)
