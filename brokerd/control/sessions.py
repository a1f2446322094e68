"""Which brokers the controller hears: a session each, from its registration or the controller's start; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

ABSENT_MS = 500  # a broker that lives and looks for the controller finds a new one in 0.3 s


@dataclass(slots=True)
class ParkedHeartbeat:
    """A heartbeat that waits for a newer version, the time, or a lost connection."""

    peer: bytes
    correlation_id: int
    deadline_ms: int


@dataclass(slots=True)
class Session:
    """What is heard of one broker.

    Attributes:
        peer: Its last connection.
        applied_version: The metadata version it acts by; -1 until it said so under its present broker epoch.
        ends: Of its logs of partitions that nobody leads: (leader epoch, last epoch, end offset).
        heard: Whether this controller has heard it at all.
        stopping: It shuts down in good order, and leads nothing any more if others can.
        disk_full: It refuses appends for want of space.
    """

    heard_ms: int
    peer: bytes = b""
    applied_version: int = -1
    parked: ParkedHeartbeat | None = None
    ends: dict[tuple[bytes, int], tuple[int, int, int]] = field(default_factory=dict)
    heard: bool = False
    stopping: bool = False
    disk_full: bool = False


class Sessions:
    """The sessions of all registered brokers, by id."""

    def __init__(self, broker_ids: Iterable[int], now_ms: int, timeout_ms: int, absent: Collection[int] = ()) -> None:
        # a new controller has heard nobody yet: each broker has a full session to say something, but for those whose
        # machine does not reach the store either
        late_ms = now_ms - max(0, timeout_ms - ABSENT_MS)
        self._sessions = {broker_id: Session(late_ms if broker_id in absent else now_ms) for broker_id in broker_ids}
        self._timeout_ms = timeout_ms

    def begin(self, broker_id: int, peer: bytes, now_ms: int) -> Session:
        """Start over: a new incarnation has applied nothing."""
        self._sessions[broker_id] = Session(now_ms, peer, heard=True)
        return self._sessions[broker_id]

    def of(self, broker_id: int) -> Session:
        return self._sessions[broker_id]

    def has_heard(self, broker_id: int) -> bool:
        """Whether this controller has heard a broker of that id."""
        session = self._sessions.get(broker_id)
        return session is not None and session.heard

    def all(self) -> Iterable[tuple[int, Session]]:
        return self._sessions.items()

    def by_peer(self, peer: bytes) -> int | None:
        """Return the broker whose last connection this is."""
        return next((broker_id for broker_id, session in self._sessions.items() if session.peer == peer), None)

    def usable(self, alive: Iterable[int]) -> set[int]:
        """Return those of `alive` that can lead: heard, and not about to end."""
        return {b for b in alive if self._sessions[b].heard and not self._sessions[b].stopping}

    def full(self) -> set[int]:
        """Return those whose disks have no room."""
        return {b for b, session in self._sessions.items() if session.disk_full}

    def expected(self, alive: Iterable[int]) -> set[int]:
        """Return those of `alive` that this controller has not heard yet."""
        return {b for b in alive if not self._sessions[b].heard}

    def ends(self, topic_id: bytes, partition: int, leader_epoch: int) -> dict[int, tuple[int, int]]:
        """Return (last epoch, end offset) of the replicas of a partition that nobody has led since that epoch."""
        key = (topic_id, partition)
        return {
            broker_id: session.ends[key][1:]
            for broker_id, session in self._sessions.items()
            if session.ends and session.ends.get(key, (-1,))[0] == leader_epoch
        }

    def forgive(self, ms: int) -> None:
        """Count the last `ms` as no silence: it was the controller that did not listen."""
        for session in self._sessions.values():
            session.heard_ms += ms

    def expired(self, alive: Iterable[int], now_ms: int) -> list[int]:
        """Return those of `alive` that said nothing for the session time."""
        return [b for b in alive if now_ms - self._sessions[b].heard_ms >= self._timeout_ms]

    def next_expiry_ms(self, alive: Iterable[int]) -> int | None:
        return min((self._sessions[b].heard_ms + self._timeout_ms for b in alive), default=None)

    def have_applied(self, broker_ids: Iterable[int], version: int) -> bool:
        """Whether all of these act by `version` or a later one."""
        return all(self._sessions[b].applied_version >= version for b in broker_ids)
