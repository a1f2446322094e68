"""The segments of one log, in order; the last is active."""

from __future__ import annotations

from bisect import bisect_right

from brokerd.storage.segment import Segment


class Segments:
    """A list that finds by offset.

    Attributes:
        end_offset: Where the log ends; its owner moves it.
    """

    __slots__ = ("active", "bases", "end_offset", "items")

    def __init__(self, items: list[Segment], end_offset: int) -> None:
        assert items, "a log has a segment"
        self.items = items
        self.bases = [segment.base_offset for segment in items]
        self.active = items[-1]
        self.end_offset = end_offset

    def __len__(self) -> int:
        return len(self.items)

    def index_at(self, offset: int) -> int:
        """Return the index of the segment that holds `offset`, the first one for what lies below it."""
        return max(0, bisect_right(self.bases, offset) - 1)

    def end_of(self, index: int) -> int:
        """Return the offset at which a segment ends."""
        return self.bases[index + 1] if index + 1 < len(self.bases) else self.end_offset

    def add(self, segment: Segment) -> None:
        """Make `segment` the active one."""
        self.items.append(segment)
        self.bases.append(segment.base_offset)
        self.active = segment

    def drop_first(self, count: int) -> list[Segment]:
        """Take the oldest `count` segments out and return them."""
        assert count < len(self.items), "the active segment stays"
        gone = self.items[:count]
        del self.items[:count], self.bases[:count]
        return gone

    def replace(self, index: int, count: int, segment: Segment) -> None:
        """Put `segment` in place of `count` sealed ones from `index` on."""
        assert index + count < len(self.items), "the active segment stays"
        self.items[index : index + count] = [segment]
        self.bases[index : index + count] = [segment.base_offset]

    def drop_behind(self, index: int) -> list[Segment]:
        """Take out what follows segment `index`, which becomes active; return it, last first."""
        gone = self.items[:index:-1]
        del self.items[index + 1 :], self.bases[index + 1 :]
        self.active = self.items[index]
        return gone
