"""Which messages of a broker a bridge acknowledges, and when."""

from __future__ import annotations

from edge.mqtt.bridge_session import Ack, BridgeSession, Came, Effect, Message, Resumed
from edge.mqtt.codes import Reason
from edge.mqtt.config import BridgeConfig
from edge.mqtt.events import Append, Settled
from edge.mqtt.mapping import BRIDGE_RULES, Mapping
from edge.mqtt.stats import Counters


class Link:
    """A bridge's session with its broker and its log."""

    def __init__(self, *, expects_session: bool = False) -> None:
        self.counters = Counters()
        config = BridgeConfig(bootstrap="x")
        mapping = Mapping(BRIDGE_RULES, with_client=False)
        self.session = BridgeSession(mapping, config, self.counters, expects_session=expects_session)
        self.appended: list[Message] = []
        self.session.step(Resumed(False))

    def come(
        self, mid: int, payload: bytes = b"x", *, qos: int = 1, dup: bool = False, topic: bytes = b"a"
    ) -> list[Ack]:
        packet_id = mid.to_bytes(2, "big") if qos else b""
        return self._do(self.session.step(Came(Message(0x30 | qos << 1 | dup << 3, topic, packet_id, payload))))

    def settle(self, message: Message, outcome: int = 0) -> list[Ack]:
        message.outcome = outcome
        return self._do(self.session.step(Settled([message])))

    def reconnect(self, *, present: bool) -> None:
        self.session.step(Resumed(present))

    def _do(self, effects: list[Effect]) -> list[Ack]:
        for effect in effects:
            if isinstance(effect, Append):
                self.appended += effect.publications  # type: ignore[arg-type]
        return [effect for effect in effects if isinstance(effect, Ack)]


def test_a_message_is_acknowledged_once_it_is_in_the_log() -> None:
    link = Link()
    assert link.come(1) == []
    assert link.settle(link.appended[0]) == [Ack(b"\0\1")]
    assert link.counters.received == link.counters.acknowledged == 1


def test_a_late_acknowledgement_never_goes_to_another_message_with_the_same_identifier() -> None:
    link = Link()
    link.come(1, b"old")
    link.reconnect(present=False)
    link.come(1, b"new")
    old, new = link.appended
    assert link.settle(old) == []
    assert link.session.stale_acks_dropped == 1
    assert link.settle(new) == [Ack(b"\0\1")]


def test_what_a_resumed_session_sends_again_attaches_to_what_is_in_flight() -> None:
    link = Link()
    link.come(1)
    link.come(2)
    link.reconnect(present=True)
    assert link.settle(link.appended[1]) == []
    assert link.come(1, dup=True) == []
    assert link.come(2, dup=True) == [Ack(b"\0\2")]
    assert len(link.appended) == 2
    assert link.settle(link.appended[0]) == [Ack(b"\0\1")]
    assert link.counters.received == link.counters.acknowledged == 2
    assert link.counters.stats().in_flight == 0


def test_what_the_broker_will_not_send_again_is_unanswered() -> None:
    link = Link()
    for mid in (1, 2, 3):
        link.come(mid)
    link.reconnect(present=True)
    link.settle(link.appended[0])
    link.settle(link.appended[1])
    assert link.counters.stats().in_flight == 3
    link.come(2, b"another")
    assert link.counters.unanswered == 1
    link.reconnect(present=False)
    assert link.settle(link.appended[2]) == []
    assert link.settle(link.appended[3]) == []
    stats = link.counters.stats()
    assert (stats.received_total, stats.unanswered_total, stats.refused_total, stats.in_flight) == (4, 4, 4, 0)


def test_what_a_new_session_sends_does_not_attach() -> None:
    link = Link()
    link.come(1)
    link.reconnect(present=False)
    link.come(1, dup=True)
    assert len(link.appended) == 2


def test_a_session_that_should_be_there_and_is_not_is_counted() -> None:
    assert Link().session.sessions_lost == 0
    link = Link(expects_session=True)
    assert link.session.sessions_lost == 1
    link.reconnect(present=True)
    link.reconnect(present=False)
    assert link.session.sessions_lost == 2


def test_what_has_no_topic_in_the_log_is_a_dead_letter_then_acknowledged() -> None:
    for topic in (b"$SYS/x", b"\xff", b"a\0b", b"a/+"):
        link = Link()
        link.come(1, topic=topic)
        [letter] = link.appended
        assert letter.destination.topic == "mqtt.dead-letter"
        assert link.settle(letter) == [Ack(b"\0\1")]
    link = Link()
    link.come(1)
    assert link.settle(link.appended[0], Reason.QUOTA_EXCEEDED) == []
    assert link.settle(link.appended[1]) == [Ack(b"\0\1")]
    assert link.counters.dead_lettered == 1


def test_what_not_even_the_dead_letters_take_is_not_acknowledged() -> None:
    link = Link()
    link.come(1, topic=b"\xff")
    assert link.settle(link.appended[0], Reason.QUOTA_EXCEEDED) == []
    assert link.session.stuck == 1


def test_the_key_is_the_topic_since_the_publisher_is_unknown() -> None:
    link = Link()
    link.come(1, topic=b"plant/a")
    [message] = link.appended
    assert message.destination.key == b"plant/a"
    assert "mqtt.clientid" not in dict(message.destination.headers)
