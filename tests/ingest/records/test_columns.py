"""Columns bodies and whole batches: what goes in comes out, and damage is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import CorruptBatch
from ingest.records.batch import decode_batch, encode_batch
from ingest.records.columns import BinaryColumn, decode_columns, encode_columns
from ingest.records.header import HEADER_SIZE, encode_leader_half, verify_batch

strings = st.one_of(st.none(), st.binary(max_size=40))
headers = st.lists(st.tuples(st.text(max_size=8), st.one_of(st.none(), st.binary(max_size=8))), max_size=3).map(tuple)
rows = st.lists(
    st.tuples(st.integers(0, 2**62), strings, strings, st.one_of(st.none(), headers)), min_size=1, max_size=40
)


def stored(batch: bytes, base_offset: int = 0) -> bytes:
    header = encode_leader_half(
        batch, base_offset=base_offset, leader_epoch=1, append_time_ms=5, high_watermark=base_offset
    )
    return header + batch[HEADER_SIZE:]


@given(rows, st.sampled_from([0, 1, 2, 3, 4]))
def test_a_batch_gives_back_the_records_it_was_made_of(
    records: list[tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...] | None]], codec: int
) -> None:
    stamps, keys, values, record_headers = (list(column) for column in zip(*records, strict=True))
    batch = stored(encode_batch(stamps, keys, values, record_headers, codec=codec), base_offset=17)
    verify_batch(batch)
    columns = decode_batch(batch, "t", 3)
    found = [(r.offset, r.timestamp_ms, r.key, r.value, r.headers) for r in columns.to_records()]
    assert found == [(17 + i, t, k, v, h or ()) for i, (t, k, v, h) in enumerate(records)]
    assert columns.next_offset == 17 + len(records)


@given(rows, st.integers(0, 40), st.integers(0, 40))
def test_a_slice_of_columns_is_the_slice_of_their_records(
    records: list[tuple[int, bytes | None, bytes | None, None]], start: int, stop: int
) -> None:
    stamps, keys, values, record_headers = (list(column) for column in zip(*records, strict=True))
    columns = decode_batch(stored(encode_batch(stamps, keys, values, record_headers)), "t", 0)
    assert columns[start:stop].to_records() == columns.to_records()[start:stop]


@given(st.binary(max_size=400), st.integers(0, 50))
def test_any_bytes_as_a_body_decode_or_are_called_corrupt(body: bytes, count: int) -> None:
    try:
        decode_columns(body, count, 0)
    except CorruptBatch:
        pass
    except Exception as error:
        assert type(error).__name__ == "UnsupportedFormat"  # noqa: PT017


@given(rows, st.data())
def test_a_changed_byte_in_a_body_never_breaks_the_decoder(
    records: list[tuple[int, bytes | None, bytes | None, None]], data: st.DataObject
) -> None:
    stamps, keys, values, record_headers = (list(column) for column in zip(*records, strict=True))
    body = bytearray(encode_columns(stamps, keys, values, record_headers))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_columns(bytes(body), len(records), 0)
    except Exception as error:
        assert type(error).__name__ in ("CorruptBatch", "UnsupportedFormat")  # noqa: PT017
    else:
        assert len(decoded.keys.to_list()) == len(decoded.values.to_list()) == len(records)


def test_typed_values_come_back_as_one_array_without_a_copy() -> None:
    values = np.arange(1000, dtype="<f8")
    batch = stored(encode_batch(np.arange(1000), None, values))
    columns = decode_batch(batch, "t", 0, value_dtype=np.dtype("<f8"))
    np.testing.assert_array_equal(columns.values, values)
    assert np.shares_memory(columns.values, np.frombuffer(batch, np.uint8))


def test_every_buffer_starts_at_a_multiple_of_eight() -> None:
    batch = stored(encode_batch([1, 2, 3], [b"a", b"bc", None], [b"xyz", b"", b"q"]))
    columns = decode_batch(batch, "t", 0)
    start = np.frombuffer(batch, np.uint8).ctypes.data
    for array in (columns.timestamps_ms, columns.keys.offsets, columns.keys.data, columns.values.data):
        assert (array.ctypes.data - start) % 8 == 0


def test_equal_headers_of_many_records_are_stored_once() -> None:
    header = (("site", b"A" * 100),)
    one = encode_columns([1] * 1000, None, [b"v"] * 1000, [header] * 1000)
    none = encode_columns([1] * 1000, None, [b"v"] * 1000)
    assert len(one) - len(none) < 4 * 1000 + 200


def test_holes_in_offsets_are_kept() -> None:
    body = encode_columns([1, 2], None, [b"a", b"b"], offset_deltas=np.array([0, 7], "<i4"))
    decoded = decode_columns(body, 2, 1)
    assert decoded.offset_deltas is not None
    assert decoded.offset_deltas.tolist() == [0, 7]


def test_a_column_without_common_width_is_no_array() -> None:
    column = BinaryColumn(2, np.frombuffer(b"abc", np.uint8), np.array([0, 1, 3], np.int32))
    assert column.to_list() == [b"a", b"bc"]
    with pytest.raises(ValueError, match="without nulls"):
        column.as_array("u1")


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33])
@pytest.mark.parametrize("same", [True, False])
def test_few_and_many_records_are_encoded_alike(count: int, same: bool) -> None:
    stamps = [5.9 if same else 5.9 + n for n in range(count)]
    values = [b"v" * (n % 3) for n in range(count)]
    body = decode_columns(encode_columns(stamps, None, values), count, 5)
    assert body.timestamps_ms.tolist() == [int(stamp) for stamp in stamps]
    assert body.values.to_list() == values
