"""What became of the records of one Produce request: acknowledged, refused, or nobody was there to be told."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from edge.kafka.stats import Counters

Place = tuple[str, int]


class Tally:
    """Count records by partition until each has its end. A context manager: who leaves it early was not answered.

    Thread: the loop's.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._open: dict[Place, int] = {}

    def came(self, place: Place, records: int) -> None:
        """Count what a request holds for a partition."""
        self._counters.received += records
        self._open[place] = self._open.get(place, 0) + records

    def appended(self, places: Iterable[Place]) -> None:
        """Count partitions whose records the log has acknowledged."""
        for place in places:
            records = self._open.pop(place, 0)
            self._counters.appended += records
            self._counters.acknowledged += records

    def close(self, *, answered: bool = True) -> None:
        """Count all others as refused, or as never answered."""
        left = sum(self._open.values())
        self._open.clear()
        if answered:
            self._counters.refused += left
        else:
            self._counters.unanswered += left

    def __enter__(self) -> Tally:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(answered=kind is None)
