"""All sessions of a gateway: who comes back, who takes over whom, what ends, which will is due. A pure core.

Sessions live in memory. After a restart of the gateway each client is told that there is none (session present 0):
QoS 2 is exactly once within a gateway's life; beyond it a record may come twice, the second with `mqtt.dup` 1.
"""

from __future__ import annotations

import heapq
import itertools

import msgspec

from edge.mqtt.codes import Reason
from edge.mqtt.config import MqttConfig
from edge.mqtt.connect import Refused
from edge.mqtt.events import Connected, Lost
from edge.mqtt.mapping import Mapping
from edge.mqtt.packets import Connect, Publish, Will
from edge.mqtt.properties import Property
from edge.mqtt.session import Session
from edge.mqtt.stats import Counters
from ingest.limits import MIB

WILL_BYTES_MAX = 64 * MIB  # of all clients together; a will may have 64 KiB, and wait for days
WILL_OVERHEAD_BYTES = 200


class Arrived(msgspec.Struct, frozen=True):
    """A client may come in; `client_id` is the one it sent or was assigned, `connection` the shell's."""

    connection: object
    connect: Connect
    client_id: str
    user: str | None


class Departed(msgspec.Struct, frozen=True):
    """The connection of a session is gone; a clean DISCONNECT has taken the will already."""

    session: Session
    lost: Lost


class Passed(msgspec.Struct, frozen=True):
    """Time has passed."""


class TakeOver(msgspec.Struct, frozen=True):
    """Close this older connection, tell that it departed, then tell again who arrived."""

    connection: object


class Accepted(msgspec.Struct, frozen=True):
    """Let the client in."""

    session: Session
    present: bool


class PublishWill(msgspec.Struct, frozen=True):
    """Append this will through the session it belongs to."""

    session: Session
    publication: Publish


Event = Arrived | Departed | Passed
Effect = TakeOver | Accepted | Refused | PublishWill


class _Entry:
    """A session and its times; None: does not apply now. `will_bytes`: what its will occupies."""

    __slots__ = ("connection", "ends_ms", "session", "will_bytes", "will_ms")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.connection: object | None = None
        self.ends_ms: int | None = None
        self.will_ms: int | None = None
        self.will_bytes = 0


class Sessions:
    """Decide over sessions; touch no socket, log, clock or dice. Thread: the gateway's loop."""

    def __init__(self, mapping: Mapping, config: MqttConfig, counters: Counters) -> None:
        self._mapping = mapping
        self._config = config
        self._counters = counters
        self._entries: dict[str, _Entry] = {}
        self._due: list[tuple[int, int, str]] = []
        self._number = itertools.count()
        self._will_bytes = 0

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """Take one event, at a monotonic time, and return what to do, in order."""
        match event:
            case Arrived():
                return self._arrived(event, now_ms)
            case Departed():
                return self._departed(event, now_ms)
            case Passed():
                return self._passed(now_ms)

    def _arrived(self, event: Arrived, now_ms: int) -> list[Effect]:
        entry = self._entries.get(event.client_id)
        effects: list[Effect] = []
        if entry is not None and entry.session.user != event.user:
            if entry.connection is not None or not self._ended(entry, now_ms):
                return [Refused(Reason.CLIENT_IDENTIFIER_NOT_VALID, "this client id belongs to another user")]
            effects += self._end(event.client_id, entry)
            entry = None
        if entry is not None and entry.connection is not None:
            self._counters.takeovers += 1
            return [TakeOver(entry.connection)]
        present = False
        will_bytes = _cost(event.connect.will)
        if self._will_bytes + will_bytes > WILL_BYTES_MAX:
            effects += self._publish_early(will_bytes)
            if self._will_bytes + will_bytes > WILL_BYTES_MAX:
                text = f"the wills of all clients take {self._will_bytes} bytes; there is no room for this one"
                return [*effects, Refused(Reason.QUOTA_EXCEEDED, text)]
        if entry is None:
            if len(self._entries) >= self._config.sessions_max:
                effects += self._make_room()
            session = Session(event.client_id, event.user, self._mapping, self._config, self._counters)
            entry = self._entries[event.client_id] = _Entry(session)
        else:
            present = not event.connect.clean_start and not self._ended(entry, now_ms)
            if entry.will_ms is not None and not present:  # the session the will belonged to has ended: MQTT-3.1.2-10
                effects += self._will(entry)
        entry.connection = event.connection
        entry.ends_ms = entry.will_ms = None
        self._counters.sessions = len(self._entries)
        entry.session.step(Connected(event.connect, present), now_ms)
        self._count_will(entry)
        return [*effects, Accepted(entry.session, present)]

    def _departed(self, event: Departed, now_ms: int) -> list[Effect]:
        session = event.session
        entry = self._entries[session.client_id]
        assert entry.session is session and entry.connection is not None, "departs once"  # noqa: PT018
        entry.connection = None
        session.step(event.lost, now_ms)
        self._count_will(entry)
        entry.ends_ms = now_ms + session.expiry_s * 1000
        effects: list[Effect] = []
        if session.will is not None:
            delay_s = min(session.will.properties.get(Property.WILL_DELAY_INTERVAL, 0), session.expiry_s)
            if delay_s:
                entry.will_ms = now_ms + delay_s * 1000
                self._wait(entry.will_ms, session.client_id)
            else:
                effects += self._will(entry)
        if session.expiry_s == 0 and not session.unsettled:
            return effects + self._end(session.client_id, entry)
        self._wait(max(entry.ends_ms, now_ms + 1), session.client_id)
        return effects

    def _passed(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        again: list[str] = []
        while self._due and self._due[0][0] <= now_ms:
            client_id = heapq.heappop(self._due)[2]
            entry = self._entries.get(client_id)
            if entry is None or entry.connection is not None:
                continue
            if entry.will_ms is not None and entry.will_ms <= now_ms:
                effects += self._will(entry)
            if self._ended(entry, now_ms):
                if entry.session.unsettled:  # a resend may still attach to what is under way
                    again.append(client_id)
                else:
                    effects += self._end(client_id, entry)
        for client_id in again:
            self._wait(now_ms + 1000, client_id)
        return effects

    def _wait(self, at_ms: int, client_id: str) -> None:
        if len(self._due) > 4 * len(self._entries) + 1000:  # clients that come and go left times that mean nothing now
            self._due = [
                (at, next(self._number), key)
                for key, entry in self._entries.items()
                for at in (entry.ends_ms, entry.will_ms)
                if at is not None
            ]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (at_ms, next(self._number), client_id))

    @staticmethod
    def _ended(entry: _Entry, now_ms: int) -> bool:
        return entry.ends_ms is not None and entry.ends_ms <= now_ms

    def _will(self, entry: _Entry) -> list[Effect]:
        entry.will_ms = None
        publication = entry.session.will_publication()
        self._count_will(entry)
        return [] if publication is None else [PublishWill(entry.session, publication)]

    def _end(self, client_id: str, entry: _Entry) -> list[Effect]:
        del self._entries[client_id]
        entry.session.end()
        self._counters.sessions = len(self._entries)
        return self._will(entry) if entry.will_ms is not None else []

    def _make_room(self) -> list[Effect]:
        """End the sessions that end soonest of those without a connection; a will that waits is published now.

        Cost: a look at every session; only at the limit.
        """
        left = [(e.ends_ms or 0, client_id) for client_id, e in self._entries.items() if e.connection is None]
        effects: list[Effect] = []
        for _, client_id in heapq.nsmallest(max(1, len(left) // 10), left):
            effects += self._end(client_id, self._entries[client_id])
        return effects

    def _publish_early(self, wanted: int) -> list[Effect]:
        """Publish wills that wait, the soonest due first, until there is room for `wanted` bytes.

        Cost: a look at every session; only at the limit.
        """
        effects: list[Effect] = []
        waiting = [
            (entry.will_ms, client_id) for client_id, entry in self._entries.items() if entry.will_ms is not None
        ]
        for _, client_id in sorted(waiting):
            if self._will_bytes + max(wanted, WILL_BYTES_MAX // 10) <= WILL_BYTES_MAX:
                break
            effects += self._will(self._entries[client_id])
        return effects

    def _count_will(self, entry: _Entry) -> None:
        size = _cost(entry.session.will)
        self._will_bytes += size - entry.will_bytes
        entry.will_bytes = size


def _cost(will: Will | None) -> int:
    return 0 if will is None else WILL_OVERHEAD_BYTES + len(will.topic) + len(will.payload)
