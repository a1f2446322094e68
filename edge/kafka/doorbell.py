"""Who waits for records at one broker, and the one request that waits for all of them. Pure.

A broker keeps one waiting Fetch for each connection, and thousands of clients share the gateway's: so they wait in one
request, which asks for no bytes and is answered once any high watermark passes what was named with it. A client that
comes back for the same records costs the broker nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

Place = tuple[bytes, int]  # topic id and partition
Waiter = TypeVar("Waiter")


class Watched(NamedTuple):
    """A partition, and the offset beyond which its high watermark is news; under the leader epoch that is known."""

    topic_id: bytes
    partition: int
    offset: int
    leader_epoch: int

    @property
    def place(self) -> Place:
        return self.topic_id, self.partition


class Rung(NamedTuple):
    """What an answer says of a partition."""

    error_code: int
    high_watermark: int


class Doorbell(Generic[Waiter]):
    """The waiters at one broker.

    Args:
        items_max: Partitions that a request may name; of more each has its turn.
    """

    def __init__(self, items_max: int) -> None:
        self._items_max = items_max
        self._waiting: dict[Place, dict[Waiter, Watched]] = {}
        self._asked: dict[Place, Watched] = {}
        self._number = 0
        self.is_wanting = False

    def watch(self, waiter: Waiter, watched: Watched) -> None:
        """Have a waiter told of news; `is_wanting` is set where the request under way does not cover it."""
        self._waiting.setdefault(watched.place, {})[waiter] = watched
        asked = self._asked.get(watched.place)
        covered = asked is not None and asked.offset <= watched.offset and asked.leader_epoch == watched.leader_epoch
        if not covered and not (self._asked and self.in_turns):
            self.is_wanting = True

    def leave(self, waiter: Waiter, watched: Watched) -> None:
        """Forget a waiter."""
        found = self._waiting.get(watched.place)
        if found is not None and found.pop(waiter, None) is not None and not found:
            del self._waiting[watched.place]
            self.is_wanting = self.is_wanting and bool(self._waiting)

    @property
    def in_turns(self) -> bool:
        """Whether more is waited for than one request can name."""
        return len(self._waiting) > self._items_max

    def ask(self) -> tuple[int, list[Watched]]:
        """Return what to ask now, and the number of that request: it takes the place of the one under way."""
        self.is_wanting = False
        self._number += 1
        places = list(self._waiting)[: self._items_max]
        if self.in_turns:
            for place in places:
                self._waiting[place] = self._waiting.pop(place)
        self._asked = {
            place: min(self._waiting[place].values(), key=lambda watched: watched.offset) for place in places
        }
        return self._number, list(self._asked.values())

    def answered(self, number: int, rung: Mapping[Place, Rung]) -> list[Waiter]:
        """Return who is to be told; the others wait on, `is_wanting` says whether for another request."""
        told: list[Waiter] = []
        for place, news in rung.items():
            waiters = self._waiting.get(place, {})
            told += [
                waiter for waiter, watched in waiters.items() if news.error_code or news.high_watermark > watched.offset
            ]
        self._over(number)
        return told

    def failed(self, number: int) -> list[Waiter]:
        """Return who waited in a request that got no answer: all look again for who leads."""
        told = [waiter for place in self._asked for waiter in self._waiting.get(place, ())]
        current = number == self._number
        self._over(number)
        return told if current else []

    def _over(self, number: int) -> None:
        if number == self._number:
            self._asked = {}
            self.is_wanting = bool(self._waiting)
