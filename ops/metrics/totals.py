"""Counters that outlive the process that counted: the incarnations of each process added up. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

Key = tuple[str, ...]
KEYS_MAX = 200_000  # 1,000 topics, three counters each, on 64 brokers


@dataclass(slots=True)
class _Count:
    incarnation: Hashable
    last: float
    carried: float = 0.0


class Totals:
    """Add up what processes counted, over processes and their incarnations.

    A process that starts again counts from zero; what its earlier incarnations were last seen at is carried on, so
    that no sum ever goes down while this object lives. What a killed process counted after it was last asked is not
    seen: its sums are a lower bound.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[Key, _Count]] = defaultdict(dict)

    def take(self, process: str, incarnation: Hashable, values: Mapping[Key, float]) -> None:
        """Note what one process counts now. An incarnation is what no other start of it has."""
        counts = self._counts[process]
        for key, value in values.items():
            count = counts.get(key)
            if count is None:
                counts[key] = _Count(incarnation, value)
                continue
            if count.incarnation != incarnation or value < count.last:
                count.carried += count.last
                count.incarnation = incarnation
            count.last = value

    def sums(self) -> dict[Key, float]:
        """Return each key's sum over all processes, dead ones included."""
        sums: dict[Key, float] = defaultdict(float)
        for counts in self._counts.values():
            for key, count in counts.items():
                sums[key] += count.carried + count.last
        return sums

    def of(self, process: str) -> dict[Key, float]:
        """Return what one process counted over all its incarnations."""
        return {key: count.carried + count.last for key, count in self._counts.get(process, {}).items()}

    def forget(self, unwanted: Callable[[Key], bool]) -> None:
        """Drop keys, of deleted topics say; only beyond `KEYS_MAX`, for a sum that goes away may come back smaller."""
        if sum(map(len, self._counts.values())) <= KEYS_MAX:
            return
        for counts in self._counts.values():
            for key in [key for key in counts if unwanted(key)]:
                del counts[key]
