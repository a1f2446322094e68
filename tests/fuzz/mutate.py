"""Change valid inputs the way broken disks and hostile peers do; the same seed gives the same input."""

from __future__ import annotations

import random
from collections.abc import Sequence

# the edges of every integer width, in both byte orders: where lengths and counts go wrong
_EDGES = [
    value.to_bytes(width, order)
    for width in (1, 2, 4, 8)
    for value in {0, 1, (1 << 8 * width - 1) - 1, 1 << 8 * width - 1, (1 << 8 * width) - 1, (1 << 8 * width) - 2}
    for order in ("little", "big")
]
_INPUT_BYTES_MAX = 1 << 20


def mutate(corpus: Sequence[bytes], dice: random.Random) -> bytes:
    """Return one of the inputs with one to eight changes. Cost: some 10 µs for a few hundred bytes."""
    data = bytearray(dice.choice(corpus))
    for _ in range(dice.choice((1, 1, 2, 3, 8))):
        dice.choice(_CHANGES)(data, corpus, dice)
    return bytes(data[:_INPUT_BYTES_MAX])


def _flip_bit(data: bytearray, corpus: Sequence[bytes], dice: random.Random) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _set_byte(data: bytearray, corpus: Sequence[bytes], dice: random.Random) -> None:
    if data:
        data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))


def _write_edge(data: bytearray, corpus: Sequence[bytes], dice: random.Random) -> None:
    edge = dice.choice(_EDGES)
    position = dice.randrange(len(data) + 1)
    data[position : position + len(edge)] = edge


def _cut_tail(data: bytearray, corpus: Sequence[bytes], dice: random.Random) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _cut_out(data: bytearray, corpus: Sequence[bytes], dice: random.Random) -> None:
    position = dice.randrange(len(data) + 1)
    del data[position : position + dice.choice((1, 2, 4, 8, 64))]


def _insert(data: bytearray, corpus: Sequence[bytes], dice: random.Random) -> None:
    position = dice.randrange(len(data) + 1)
    data[position:position] = dice.randbytes(dice.choice((1, 2, 4, 8, 64)))


def _repeat(data: bytearray, corpus: Sequence[bytes], dice: random.Random) -> None:
    start = dice.randrange(len(data) + 1)
    piece = data[start : start + dice.choice((1, 4, 16, 256))]
    data[start:start] = piece * dice.choice((1, 2, 16, 200))


def _splice(data: bytearray, corpus: Sequence[bytes], dice: random.Random) -> None:
    other = dice.choice(corpus)
    data[dice.randrange(len(data) + 1) :] = other[dice.randrange(len(other) + 1) :]


_CHANGES = (
    _flip_bit,
    _flip_bit,
    _set_byte,
    _set_byte,
    _write_edge,
    _write_edge,
    _cut_tail,
    _cut_out,
    _insert,
    _repeat,
    _splice,
)
