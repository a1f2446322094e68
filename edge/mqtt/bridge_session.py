"""What a bridge does with the messages its broker sends, and which it acknowledges when. A pure core.

A message is acknowledged only after the record is in the log, and only on the connection that it came over last: the
packet identifier of an earlier one may stand for another message by now. The broker sends those again, flagged DUP.
"""

from __future__ import annotations

import msgspec

from edge.mqtt.config import BridgeConfig
from edge.mqtt.destinations import BadTopic, Destinations
from edge.mqtt.events import Append, Settled
from edge.mqtt.mapping import Mapping, Unmapped
from edge.mqtt.packets import Publish
from edge.mqtt.session import DEAD_LETTER_BYTES_MAX
from edge.mqtt.stats import Counters


class Message(Publish, gc=False):
    """A PUBLISH of the broker; `generation` of the connection it came over last."""

    generation: int = 0


class Came(msgspec.Struct, frozen=True, gc=False):
    """The broker sent a message."""

    message: Message


class Resumed(msgspec.Struct, frozen=True):
    """A connection stands; `session_present`: the broker goes on where it was."""

    session_present: bool


class Ack(msgspec.Struct, frozen=True, gc=False):
    """Send PUBACK."""

    packet_id: bytes


Event = Came | Resumed | Settled
Effect = Append | Ack


class BridgeSession:
    """Decide; touch no socket, log or clock. Thread: the bridge's loop.

    Attributes:
        expects_session: The broker held a session before, so that it should hold one still.
        sessions_lost: How often it did not: what it had acknowledged to publishers for us is gone.
        stuck: Messages that not even the dead letters took; they are not acknowledged.
    """

    def __init__(self, mapping: Mapping, config: BridgeConfig, counters: Counters, *, expects_session: bool) -> None:
        self._destinations = Destinations(None, mapping, config.dead_letter_topic, with_mid=config.record_mid)
        self._counters = counters
        self._in_flight: dict[bytes, Message] = {}
        self.generation = 0
        self.expects_session = expects_session
        self.sessions_lost = 0
        self.stale_acks_dropped = 0
        self.stuck = 0

    def step(self, event: Event) -> list[Effect]:
        """Take one event and return what to do."""
        match event:
            case Came(message):
                return self._came(message)
            case Settled(publications):
                return self._settled(publications)
            case Resumed(present):
                self.generation += 1
                if not present:
                    self.sessions_lost += self.expects_session
                    for message in self._in_flight.values():
                        self._give_up(message)
                    self._in_flight.clear()
                self.expects_session = True
                return []

    def _came(self, message: Message) -> list[Effect]:
        message.generation = self.generation
        packet_id = message.packet_id
        if packet_id:
            earlier = self._in_flight.get(packet_id)
            if earlier is not None and message.dup and _same(earlier, message):
                self._counters.resends_attached += 1
                earlier.generation = self.generation
                if earlier.outcome == 0:
                    self._counters.acknowledged += 1
                    del self._in_flight[packet_id]
                    return [Ack(packet_id)]
                return []
            if earlier is not None:
                self._give_up(earlier)
            self._in_flight[packet_id] = message
        self._counters.received += 1
        destination = self._destinations.plain.get(message.flags, {}).get(message.topic)
        if destination is None or message.properties is not None:
            found = self._destinations.find(message)
            if isinstance(found, Unmapped | BadTopic):
                self._bury(message, found.text)
            else:
                message.destination = found
        else:
            message.destination = destination
        return [Append([message])]

    def _settled(self, publications: list[Publish]) -> list[Effect]:
        effects: list[Effect] = []
        counters = self._counters
        for message in publications:
            assert isinstance(message, Message)
            if message.outcome:
                if message.dead_letter:
                    counters.refused += not message.counted
                    message.counted = True
                    self.stuck += 1
                else:
                    self._bury(message, message.text)
                    effects.append(Append([message]))
                continue
            counters.appended += 1
            counters.dead_lettered += message.dead_letter
            if not message.packet_id:
                counters.acknowledged += 1
            elif message.generation == self.generation:
                counters.acknowledged += not message.counted
                if self._in_flight.get(message.packet_id) is message:
                    del self._in_flight[message.packet_id]
                effects.append(Ack(message.packet_id))
            else:  # it stays in flight: a resumed session sends it again
                self.stale_acks_dropped += 1
        return effects

    def _give_up(self, message: Message) -> None:
        """The broker will not send this one again, so that it can't be acknowledged any more."""
        self._counters.unanswered += not message.counted
        message.counted = True

    def _bury(self, message: Message, text: str) -> None:
        message.dead_letter, message.outcome = True, None
        message.destination = self._destinations.dead_letter(message, text)
        message.payload = message.payload[:DEAD_LETTER_BYTES_MAX]


def _same(earlier: Message, message: Message) -> bool:
    return earlier.qos == message.qos and earlier.topic == message.topic and earlier.payload == message.payload
