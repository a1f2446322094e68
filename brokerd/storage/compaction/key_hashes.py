"""Hash keys to 128 bits, many at a time, under a seed of the run. Pure.

Two keys that share a hash would be taken for one, and the older record dropped: so nobody who chooses keys may know
the seed, and chance must not do it either. Keys up to 128 bytes are hashed by four independent multilinear sums over
their 32-bit words and their length, modulo 2^64, of which the high halves are kept: each is strongly universal, so that
two keys collide with probability 2^-128. Longer ones, of which there are few to a byte, take BLAKE2b.

Source: Lemire, Kaser: "Strongly universal string hashing is fast", 2014.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingest.records.columns import BinaryColumn

_SHORT_BYTES = 128
_WORD = 4
_LANES = 4
_ROUNDS = 2 + _SHORT_BYTES // _WORD  # a constant, the length, and the words
_HALF = np.uint64(32)


class Hashes(NamedTuple):
    """(n,) uint64 each: the two halves of n hashes."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]


class KeyHasher:
    """Hash keys under one seed; the same bytes give the same hash in whatever column they come."""

    def __init__(self, seed: bytes) -> None:
        self._seed = hashlib.blake2b(seed, digest_size=32).digest()
        material = hashlib.shake_256(seed).digest(8 * _ROUNDS * _LANES)
        self._multipliers = np.frombuffer(material, np.uint64).reshape(_ROUNDS, _LANES, 1)

    def hashes(self, columns: Sequence[BinaryColumn]) -> Hashes:
        """Return the hashes of the keys of all columns, one after another; a null counts as empty.

        Cost: about 30 ns a short key; temporary arrays of 100 bytes a key.
        """
        heap, starts, lengths = _laid_out(columns)
        short = lengths <= _SHORT_BYTES
        if short.all():
            return self._of_short(heap, starts, lengths)
        found = Hashes(np.empty(len(starts), np.uint64), np.empty(len(starts), np.uint64))
        if short.any():
            high, low = self._of_short(heap, starts[short], lengths[short])
            found.high[short], found.low[short] = high, low
        for row in np.flatnonzero(~short).tolist():
            key = heap[starts[row] : starts[row] + lengths[row]]
            digest = hashlib.blake2b(key.data, digest_size=16, key=self._seed).digest()
            found.high[row], found.low[row] = np.frombuffer(digest, np.uint64)
        return found

    def _of_short(self, heap: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Hashes:
        multipliers = self._multipliers
        words: NDArray[np.uint32] = np.ndarray((len(heap) - _WORD + 1,), "<u4", heap.data, strides=(1,))
        sums = multipliers[0] + multipliers[1] * lengths.astype(np.uint64)
        longest = int(lengths.max(initial=0))
        same = longest == int(lengths.min(initial=longest))
        for number in range(-(-longest // _WORD)):
            left = lengths - number * _WORD
            if same:
                word = words[starts + number * _WORD].astype(np.uint64)
                sums += multipliers[2 + number] * _cut(word, min(_WORD, longest - number * _WORD))
                continue
            rows = np.flatnonzero(left > 0)
            word = words[starts[rows] + number * _WORD].astype(np.uint64)
            sums[:, rows] += multipliers[2 + number] * _cut(word, np.minimum(left[rows], _WORD).astype(np.uint64))
        sums >>= _HALF
        return Hashes(sums[0] << _HALF | sums[1], sums[2] << _HALF | sums[3])


def _cut(words: NDArray[np.uint64], sizes: int | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Keep the first bytes of each word: what follows in the heap is the next key's."""
    cut: NDArray[np.uint64] = words & ((np.uint64(1) << np.uint64(8) * np.asarray(sizes, np.uint64)) - np.uint64(1))
    return cut


def _laid_out(columns: Sequence[BinaryColumn]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return one heap, with room for a word behind it, and where each key starts and how long it is."""
    heap = np.concatenate([*(column.data for column in columns), np.zeros(_WORD, np.uint8)])
    starts, lengths = [], []
    at = 0
    for column in columns:
        if column.width >= 0:
            # of a column of nothing but nulls the width is 0, as it is of empty keys
            starts.append(np.arange(len(column), dtype=np.int64) * column.width + at)
            lengths.append(np.full(len(column), column.width, np.int64))
        else:
            offsets = column.offsets.astype(np.int64)
            starts.append(offsets[:-1] + at)
            lengths.append(np.diff(offsets))
        at += len(column.data)
    if not columns:
        return heap, np.empty(0, np.int64), np.empty(0, np.int64)
    return heap, np.concatenate(starts), np.concatenate(lengths)
