"""One client's session: which of its messages are in flight, and what it is answered when. A pure core.

Promises:
- PUBACK and PUBREC go out only after the record is in the log, in the order the PUBLISHes came.
- A resend whose original is in flight attaches to it: one record, one answer. That also holds over reconnects.
- A message whose sender left unanswered is in flight until its resend is answered or its session ends; then it is
  unanswered for good.
- A QoS 2 message whose PUBREC went out is not appended again until its PUBREL, within the life of the gateway.
- A message that can't go where it should is refused with a reason code (MQTT 5, QoS 1 and 2), else it becomes a dead
  letter and is acknowledged: it must not block the sender for ever.
"""

from __future__ import annotations

from collections import deque

from edge.mqtt.codes import MQTT_5, PacketType, Reason
from edge.mqtt.config import MqttConfig
from edge.mqtt.destinations import BadTopic, Destinations
from edge.mqtt.events import Append, Close, Connected, Lost, Received, SessionEffect, SessionEvent, Settled, Write
from edge.mqtt.fields import Violated
from edge.mqtt.mapping import Mapping, Unmapped
from edge.mqtt.packets import (
    PINGRESP,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    Publish,
    PubRel,
    Subscribe,
    Unsubscribe,
    Violation,
    Will,
    encode_ack,
    encode_disconnect,
    encode_suback,
    encode_unsuback,
)
from edge.mqtt.properties import Property
from edge.mqtt.stats import Counters

DEAD_LETTER_BYTES_MAX = 512 * 1024  # a dead letter must fit where the letter did not
NEVER_EXPIRES_S = 0xFFFFFFFF


class Session:
    """Decide what one client is answered; touch no socket, log, clock or dice. Thread: the gateway's loop.

    Attributes:
        client_id, user: Whose it is.
        connected: It has a connection now.
        expiry_s: How long it outlives its connection.
        owner: What the shell hangs on it.
    """

    def __init__(
        self, client_id: str, user: str | None, mapping: Mapping, config: MqttConfig, counters: Counters
    ) -> None:
        self.client_id = client_id
        self.user = user
        self.connected = False
        self.version = 0
        self.expiry_s = 0
        self.will: Will | None = None
        self.owner: object | None = None
        self.heard_ms = 0
        self._silence_ms_max = 0
        self._config = config
        self._counters = counters
        self._destinations = Destinations(client_id, mapping, config.dead_letter_topic, with_mid=config.record_mid)
        self._fifo: deque[Publish] = deque()
        self._in_flight: dict[bytes, Publish] = {}
        self._orphans: dict[bytes, Publish] = {}
        self._awaiting_pubrel: set[bytes] = set()
        self._aliases: dict[int, bytes] = {}
        self._says_why = False

    @property
    def unsettled(self) -> bool:
        """Whether the log still owes an answer for a message of an earlier connection."""
        return any(publish.outcome is None for publish in self._orphans.values())

    @property
    def in_flight(self) -> int:
        """Messages whose sender waits for an answer."""
        return len(self._fifo)

    def step(self, event: SessionEvent, now_ms: int) -> list[SessionEffect]:
        """Take one event, at a monotonic time, and return what to do."""
        if isinstance(event, Received):
            self.heard_ms = now_ms
            return self._received(event.packets)
        if isinstance(event, Settled):
            return self._settled(event.publications)
        if isinstance(event, Connected):
            self.heard_ms = now_ms
            self._connected(event.connect, event.resumed)
            return []
        if isinstance(event, Lost):
            self._lost(event)
            return []
        if self._silence_ms_max and self.connected and now_ms - self.heard_ms > self._silence_ms_max:
            self._counters.timeouts += 1
            return self._close(Reason.KEEP_ALIVE_TIMEOUT, f"nothing heard for {now_ms - self.heard_ms} ms")
        return []

    # ---- packets -----------------------------------------------------------------------------------------------------

    def _received(self, packets: list[Packet]) -> list[SessionEffect]:
        out: list[bytes] = []
        publications: list[Publish] = []
        closing: list[SessionEffect] = []
        plain = self._destinations.plain
        fifo, in_flight = self._fifo, self._in_flight
        room_max = self._config.receive_maximum
        refused = False
        received = 0
        try:
            for packet in packets:
                if type(packet) is not Publish:
                    closing = self._control(packet, out)
                    if closing:
                        break
                    continue
                packet_id = packet.packet_id
                if packet.properties is not None or not packet.topic:
                    self._resolve_alias(packet)
                if packet_id:
                    if (packet_id in in_flight or self._orphans or self._awaiting_pubrel) and self._known(packet, out):
                        continue
                    if len(fifo) + len(self._awaiting_pubrel) >= room_max:
                        self._check_room()
                by_topic = plain.get(packet.flags)
                destination = by_topic.get(packet.topic) if by_topic and packet.properties is None else None
                if destination is None:
                    refused |= self._find(packet)
                else:
                    packet.destination = destination
                received += 1
                if packet_id:
                    in_flight[packet_id] = packet
                    fifo.append(packet)
                if packet.outcome is None:
                    publications.append(packet)
        except Violated as error:
            self._counters.malformed += 1
            closing = self._close(error.reason, str(error))
        self._counters.received += received
        if refused:
            self._answer(out)
        effects: list[SessionEffect] = []
        if publications:
            effects.append(Append(publications))
        if out:
            effects.append(Write(b"".join(out)))
        return effects + closing

    def _control(self, packet: Packet, out: list[bytes]) -> list[SessionEffect]:
        match packet:
            case PingReq():
                out.append(PINGRESP)
            case PubRel(packet_id):
                if packet_id in self._awaiting_pubrel:
                    self._awaiting_pubrel.discard(packet_id)
                    out.append(encode_ack(PacketType.PUBCOMP, packet_id))
                elif self.version == MQTT_5:
                    out.append(encode_ack(PacketType.PUBCOMP, packet_id, Reason.PACKET_IDENTIFIER_NOT_FOUND))
                else:
                    out.append(encode_ack(PacketType.PUBCOMP, packet_id))  # MQTT-4.3.3-2 of 3.1.1
            case Subscribe(packet_id, filters):
                reasons = [Reason.IMPLEMENTATION_SPECIFIC_ERROR] * len(filters)
                why = "this gateway takes messages in; it does not deliver them yet" if self._says_why else ""
                out.append(encode_suback(self.version, packet_id, reasons, why))
            case Unsubscribe(packet_id, filters):
                out.append(encode_unsuback(self.version, packet_id, len(filters)))
            case Disconnect(reason, expiry_s):
                return self._disconnected(reason, expiry_s)
            case Violation(reason, text):
                raise Violated(reason, text)
            case _:
                raise Violated(Reason.PROTOCOL_ERROR, "a second CONNECT")  # MQTT-3.1.0-2
        return []

    def _disconnected(self, reason: int, expiry_s: int | None) -> list[SessionEffect]:
        if expiry_s:
            if not self.expiry_s:
                raise Violated(Reason.PROTOCOL_ERROR, "a session that ends with its connection can't be prolonged")
            self.expiry_s = min(expiry_s, self._config.session_expiry_s_max)
        elif expiry_s == 0:
            self.expiry_s = 0
        if reason == Reason.SUCCESS:
            self.will = None  # MQTT-3.14.4-3
        return [Close(Reason.SUCCESS, "")]

    def _resolve_alias(self, packet: Publish) -> None:
        properties = packet.properties or {}
        alias = properties.pop(Property.TOPIC_ALIAS, None)
        if alias is not None:
            if not 1 <= alias <= self._config.topic_alias_maximum:
                raise Violated(Reason.TOPIC_ALIAS_INVALID, f"topic alias {alias}")
            if packet.topic:
                self._aliases[alias] = packet.topic
            elif alias in self._aliases:
                packet.topic = self._aliases[alias]
            else:
                raise Violated(Reason.PROTOCOL_ERROR, f"topic alias {alias} was never set")
        elif not packet.topic:
            if self.version == MQTT_5:
                raise Violated(Reason.PROTOCOL_ERROR, "neither topic nor topic alias")
            raise Violated(Reason.TOPIC_NAME_INVALID, "the topic is empty")
        if Property.USER_PROPERTY not in properties:
            packet.properties = None

    def _check_room(self) -> None:
        """A connection has as many messages in flight as it may have; MQTT 3.1.1 has no word for that."""
        if self.version == MQTT_5:
            maximum = self._config.receive_maximum
            raise Violated(Reason.RECEIVE_MAXIMUM_EXCEEDED, f"more than {maximum} unacknowledged messages")
        if len(self._awaiting_pubrel) >= 10 * self._config.receive_maximum:
            raise Violated(Reason.QUOTA_EXCEEDED, "too many QoS 2 messages without PUBREL")

    def _known(self, packet: Publish, out: list[bytes]) -> bool:
        """Tell whether this is a resend that needs no record of its own."""
        packet_id = packet.packet_id
        exactly_once = packet.flags & 4
        earlier = self._in_flight.get(packet_id)
        if earlier is not None:
            if earlier.qos != packet.qos or not (exactly_once or _same(earlier, packet)):
                return False
        elif exactly_once and packet_id in self._awaiting_pubrel:
            out.append(encode_ack(PacketType.PUBREC, packet_id))  # MQTT-4.3.3-10
        else:
            orphan = self._orphans.get(packet_id)
            if orphan is None:
                return False
            if not packet.dup or orphan.qos != packet.qos or not _same(orphan, packet):
                self._give_up(orphan)  # its identifier stands for another message now
                return False
            del self._orphans[packet_id]
            orphan.orphan = False
            self._in_flight[packet_id] = orphan
            self._fifo.append(orphan)
            self._answer(out)
        self._counters.resends_attached += 1
        return True

    def _find(self, packet: Publish) -> bool:
        """Give a message its destination; True: it is refused instead."""
        destination = self._destinations.find(packet)
        if isinstance(destination, BadTopic):
            raise Violated(destination.reason, destination.text)
        if not isinstance(destination, Unmapped):
            packet.destination = destination
            return False
        if self.version == MQTT_5 and packet.packet_id:
            packet.outcome, packet.text = destination.reason, destination.text
            return True
        self._bury(packet, destination.text)
        return False

    def _bury(self, packet: Publish, text: str) -> None:
        """Send a message to the dead letters."""
        packet.dead_letter = True
        packet.outcome = None
        packet.destination = self._destinations.dead_letter(packet, text)
        if len(packet.payload) > DEAD_LETTER_BYTES_MAX:
            packet.payload = packet.payload[:DEAD_LETTER_BYTES_MAX]

    # ---- answers -----------------------------------------------------------------------------------------------------

    def _settled(self, publications: list[Publish]) -> list[SessionEffect]:
        counters = self._counters
        again: list[Publish] = []
        closing: list[SessionEffect] = []
        for publish in publications:
            if publish.outcome:
                closing += self._rejected(publish, again)
                continue
            counters.appended += 1
            counters.dead_lettered += publish.dead_letter
            if not publish.packet_id:
                if publish.will:
                    counters.wills += 1
                else:
                    counters.acknowledged += 1
            elif publish.orphan:
                _let_go(publish)
        effects: list[SessionEffect] = [Append(again)] if again else []
        out: list[bytes] = []
        if self.connected:
            self._answer(out)
        if out:
            effects.append(Write(b"".join(out)))
        return effects + closing

    def _rejected(self, publish: Publish, again: list[Publish]) -> list[SessionEffect]:
        """The log refused a message for good."""
        if publish.dead_letter:  # even as a dead letter: then it is not acknowledged, and its sender has to know
            if publish.packet_id and not publish.orphan:
                return self._close(Reason.IMPLEMENTATION_SPECIFIC_ERROR, publish.text) if self.connected else []
            self._counters.refused += not (publish.will or publish.counted)
            self._forget(publish)
        elif publish.orphan:
            self._counters.refused += not publish.counted
            self._forget(publish)
        elif self.version != MQTT_5 or not publish.packet_id:
            self._bury(publish, publish.text)
            again.append(publish)
        return []

    def _give_up(self, orphan: Publish) -> None:
        """Nobody can be told any more what became of a message."""
        self._forget(orphan)
        self._counters.unanswered += not orphan.counted
        orphan.counted = True

    def _forget(self, publish: Publish) -> None:
        if self._orphans.get(publish.packet_id) is publish:
            del self._orphans[publish.packet_id]

    def _answer(self, out: list[bytes]) -> None:
        """Acknowledge, from the oldest on, what is settled."""
        fifo, in_flight = self._fifo, self._in_flight
        acknowledged = 0
        while fifo and fifo[0].outcome is not None:
            publish = fifo[0]
            if publish.outcome and publish.dead_letter:
                break  # neither stored nor refused: the connection is about to be closed
            fifo.popleft()
            packet_id = publish.packet_id
            if in_flight.get(packet_id) is publish:
                del in_flight[packet_id]
            if publish.outcome:
                self._refuse(publish, out)
                continue
            if publish.flags & 4:
                self._awaiting_pubrel.add(packet_id)
                out.append(b"\x50\x02" + packet_id)
            else:
                out.append(b"\x40\x02" + packet_id)
            acknowledged += 1
        self._counters.acknowledged += acknowledged

    def _refuse(self, publish: Publish, out: list[bytes]) -> None:
        kind = PacketType.PUBREC if publish.flags & 4 else PacketType.PUBACK
        assert publish.outcome is not None
        out.append(encode_ack(kind, publish.packet_id, publish.outcome, publish.text[:200] if self._says_why else ""))
        self._counters.refused += 1

    # ---- the connection ----------------------------------------------------------------------------------------------

    def _connected(self, connect: Connect, resumed: bool) -> None:
        assert not self.connected
        assert not self._fifo
        self.connected = True
        self.version = connect.version
        self.will = connect.will
        self._aliases.clear()
        self._silence_ms_max = connect.keep_alive_s * 1500  # MQTT-3.1.2-22
        wants = connect.properties.get(Property.REQUEST_PROBLEM_INFORMATION, 1)
        self._says_why = bool(wants) and connect.properties.get(Property.MAXIMUM_PACKET_SIZE, 1024) >= 1024
        if not resumed:
            self._awaiting_pubrel.clear()
            for orphan in [orphan for orphan in self._orphans.values() if orphan.outcome == 0]:
                self._give_up(orphan)
        if connect.version == MQTT_5:
            self.expiry_s = connect.properties.get(Property.SESSION_EXPIRY_INTERVAL, 0)
        else:
            self.expiry_s = 0 if connect.clean_start else NEVER_EXPIRES_S
        self.expiry_s = min(self.expiry_s, self._config.session_expiry_s_max)

    def _lost(self, event: Lost) -> None:
        self.connected = False
        dropped = {id(publish) for publish in event.unsent}
        for publish in event.unsent:
            if publish.orphan:
                self._counters.refused += not publish.counted
                self._forget(publish)
        for publish in self._fifo:
            if id(publish) in dropped or publish.outcome:
                self._counters.refused += 1
            else:
                older = self._orphans.get(publish.packet_id)
                if older is not None:
                    self._give_up(older)
                publish.orphan = True
                self._orphans[publish.packet_id] = publish
                if publish.outcome == 0:
                    _let_go(publish)
        self._fifo.clear()
        self._in_flight.clear()
        settled = [orphan for orphan in self._orphans.values() if orphan.outcome == 0]
        for orphan in settled[: -self._config.receive_maximum]:
            self._give_up(orphan)

    def end(self) -> None:
        """The session is over: nobody comes back for an answer."""
        assert not self.connected
        for orphan in list(self._orphans.values()):
            self._give_up(orphan)

    def will_publication(self) -> Publish | None:
        """Take the will and return it as a message; None: there is none."""
        will, self.will = self.will, None
        if will is None:
            return None
        properties = dict(will.properties) if Property.USER_PROPERTY in will.properties else None
        flags = 0x30 | will.qos << 1 | will.retain
        publish = Publish(flags, will.topic.encode(), b"", will.payload, properties, will=True)
        destination = self._destinations.find(publish)
        if isinstance(destination, Unmapped | BadTopic):
            self._bury(publish, destination.text)
        else:
            publish.destination = destination
        return publish

    def _close(self, reason: Reason, text: str) -> list[SessionEffect]:
        farewell = encode_disconnect(self.version, reason, text[:200] if self._says_why else "")
        close = Close(reason, text)
        return [Write(farewell), close] if farewell else [close]


def _same(earlier: Publish, packet: Publish) -> bool:
    if earlier.digest:
        return earlier.digest == _digest(packet)
    return earlier.topic == packet.topic and earlier.payload == packet.payload


def _digest(publish: Publish) -> int:
    return hash((publish.topic, publish.payload)) or 1


def _let_go(publish: Publish) -> None:
    """Keep of a message what a resend is recognised by."""
    publish.digest = publish.digest or _digest(publish)
    publish.payload = b""
    publish.destination = None
