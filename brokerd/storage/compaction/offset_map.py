"""The latest offset of each key, by its hash: a table of bounded size without an object per key. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brokerd.storage.compaction.key_hashes import Hashes

ENTRY_BYTES = 24
_SLOTS_MIN = 1 << 12
_FULL = 0.7  # beyond that, runs of taken slots grow long
_FREE = -1


class OffsetMap:
    """An open-addressing table of (hash, offset) in three arrays, filled in the order of the log.

    The high bits of a hash are its slot, so that what is put sorted by hash touches the table in order.

    Attributes:
        count: How many keys it holds.
    """

    def __init__(self, bytes_max: int) -> None:
        """Begin small; the table doubles up to `bytes_max`, for a moment beside a copy of what it held."""
        self._bits = _SLOTS_MIN.bit_length() - 1
        self._bits_max = max(self._bits, (bytes_max // ENTRY_BYTES).bit_length() - 1)
        self.count = 0
        self._allocate()

    def _allocate(self) -> None:
        slots = 1 << self._bits
        self._high = np.zeros(slots, np.uint64)
        self._low = np.zeros(slots, np.uint64)
        self._offsets = np.full(slots, _FREE, np.int64)

    def has_room(self, keys: int) -> bool:
        """Tell whether so many more keys fit, were they all new; what is put all the same makes the table larger."""
        return self.count + keys <= _FULL * (1 << self._bits_max)

    def put(self, hashes: Hashes, offsets: NDArray[np.int64]) -> None:
        """Note the offsets of keys; of one key's, here and before, the greatest counts.

        Args:
            offsets: (n,) above all that were put before.
        Cost: about 100 ns a record.
        """
        order = np.argsort(hashes.high)
        high, low = hashes.high[order], hashes.low[order]
        same = high[1:] == high[:-1]
        if (same & (low[1:] != low[:-1])).any():  # half a collision: the halves decide together
            order = np.lexsort((hashes.low, hashes.high))
            high, low = hashes.high[order], hashes.low[order]
            same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
        firsts = np.flatnonzero(np.r_[True, ~same])
        while self.count + len(firsts) > _FULL * (1 << self._bits):
            self._grow()
        self._insert(high[firsts], low[firsts], np.maximum.reduceat(offsets[order], firsts))

    def _grow(self) -> None:
        taken = np.flatnonzero(self._offsets != _FREE)
        order = taken[np.argsort(self._high[taken])]
        high, low, offsets = self._high[order], self._low[order], self._offsets[order]
        del self._high, self._low, self._offsets  # or the old ones would be held beside the new
        self._bits += 1
        self.count = 0
        self._allocate()
        self._insert(high, low, offsets)

    def _insert(self, high: NDArray[np.uint64], low: NDArray[np.uint64], offsets: NDArray[np.int64]) -> None:
        """Put distinct keys."""
        slots = self._slots(high)
        rows = np.arange(len(high))
        table = self._offsets
        while len(rows):
            at = slots[rows]
            taken = table[at] != _FREE
            same = taken & (self._high[at] == high[rows]) & (self._low[at] == low[rows])
            table[at[same]] = offsets[rows[same]]
            free, wanted = rows[~taken], at[~taken]
            table[wanted] = -2 - free  # of several that want one slot whoever is written last has it
            won = table[wanted] == -2 - free
            winners, slots_won = free[won], wanted[won]
            self._high[slots_won], self._low[slots_won] = high[winners], low[winners]
            table[slots_won] = offsets[winners]
            self.count += len(winners)
            rows = np.concatenate((free[~won], rows[taken & ~same]))
            slots[rows] = (slots[rows] + 1) & ((1 << self._bits) - 1)

    def _slots(self, high: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (high >> np.uint64(64 - self._bits)).astype(np.int64)

    def holds(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Return (n,) whether each key is in the table. Cost: about 60 ns a key."""
        found = np.zeros(len(hashes.high), np.bool_)
        if not self.count:
            return found
        high, low = hashes
        slots = self._slots(high)
        rows = np.arange(len(high))
        while len(rows):
            at = slots[rows]
            taken = self._offsets[at] != _FREE
            same = (self._high[at] == high[rows]) & (self._low[at] == low[rows]) & taken
            found[rows[same]] = True
            rows = rows[taken & ~same]
            slots[rows] = (slots[rows] + 1) & ((1 << self._bits) - 1)
        return found

    def latest(self) -> NDArray[np.int64]:
        """Return (count,) the latest offset of each key, ascending."""
        return np.sort(self._offsets[self._offsets != _FREE])
