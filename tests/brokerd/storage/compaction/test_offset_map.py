"""Hashes and the table over them behave like a dict of keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerd.storage.compaction.key_hashes import Hashes, KeyHasher
from brokerd.storage.compaction.offset_map import ENTRY_BYTES, OffsetMap
from ingest.records.columns import BinaryColumn, decode_columns, encode_columns

keys = st.one_of(
    st.binary(max_size=12), st.binary(min_size=120, max_size=140), st.sampled_from([b"", b"\0", b"\0\0\0\0", b"a\0"])
)


def column(items: list[bytes]) -> BinaryColumn:
    """Return keys as a body gives them: of one width where they have one."""
    return decode_columns(encode_columns([0] * len(items), items, None), len(items), 0).keys


@given(st.lists(st.lists(keys, min_size=1, max_size=30), min_size=1, max_size=4))
def test_the_same_bytes_have_the_same_hash_and_others_another(columns: list[list[bytes]]) -> None:
    hasher = KeyHasher(b"seed")
    hashes = hasher.hashes([column(items) for items in columns])
    flat = [key for items in columns for key in items]
    pairs = list(zip(hashes.high.tolist(), hashes.low.tolist(), strict=True))
    assert len(pairs) == len(flat)
    assert len(set(pairs)) == len(set(flat)) == len(set(zip(pairs, flat, strict=True)))
    for key, pair in zip(flat, pairs, strict=True):
        alone = hasher.hashes([column([key])])
        assert (int(alone.high[0]), int(alone.low[0])) == pair


def test_each_half_of_a_hash_tells_keys_apart_and_the_seed_changes_it() -> None:
    items = [b"device-%d" % number for number in range(100_000)]
    first, second = (KeyHasher(seed).hashes([column(items)]) for seed in (b"1", b"2"))
    for half in (first.high, first.low, second.high):
        assert len(np.unique(half)) == len(items)
    assert not (first.high == second.high).any()
    assert 45_000 < int((first.high >> np.uint64(63)).sum()) < 55_000


def test_no_keys_have_no_hashes() -> None:
    assert len(KeyHasher(b"").hashes([]).high) == 0
    nulls = BinaryColumn(3, np.empty(0, np.uint8), width=0, valid=np.zeros(3, np.bool_))
    assert len(KeyHasher(b"").hashes([nulls]).high) == 3


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 600), min_size=1, max_size=400), max_size=8), st.booleans())
def test_the_table_keeps_the_last_offset_of_each_key(runs: list[list[int]], crowded: bool) -> None:
    """Crowded: all hashes want few slots, and high halves collide."""
    table, model, offset = OffsetMap(1 << 20), {}, 0

    def hashes(numbers: list[int]) -> Hashes:
        low = np.array(numbers, np.uint64)
        high = low % np.uint64(7) if crowded else low * np.uint64(0x9E3779B97F4A7C15)
        return Hashes(high, low)

    for numbers in runs:
        offsets = np.arange(offset, offset + len(numbers))
        offset += len(numbers)
        table.put(hashes(numbers), offsets)
        model.update(zip(numbers, offsets.tolist(), strict=True))
    assert table.count == len(model)
    assert table.latest().tolist() == sorted(model.values())
    asked = list(range(601))
    assert table.holds(hashes(asked)).tolist() == [number in model for number in asked]


def test_the_table_grows_to_its_bound_and_says_when_it_is_full() -> None:
    table = OffsetMap(ENTRY_BYTES << 14)
    hasher, taken = KeyHasher(b"x"), 0
    while table.has_room(1000):
        items = [b"%d" % number for number in range(taken, taken + 1000)]
        table.put(hasher.hashes([column(items)]), np.arange(taken, taken + 1000))
        taken += 1000
    assert table.count == taken == 11_000
    assert len(table._offsets) == 1 << 14


@pytest.mark.parametrize("count", [1, 5_000])
def test_what_is_put_all_the_same_makes_the_table_larger(count: int) -> None:
    table = OffsetMap(0)
    high = np.arange(count, dtype=np.uint64) << np.uint64(40)
    table.put(Hashes(high, high), np.arange(count))
    assert table.count == count
