"""Batches with records taken out: what stays is what was there, under the same offsets and the same leader."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.limits import LIMITS
from ingest.records.batch import decode_batch, decode_body, encode_batch
from ingest.records.columns import Headers
from ingest.records.header import (
    FLAG_LOG_APPEND_TIME,
    HEADER_SIZE,
    BatchHeader,
    encode_leader_half,
    encode_producer_half,
    verify_batch,
    verify_header,
)
from ingest.records.rows import Row, encode_rows
from ingest.records.thinned import empty_batch, thin_batch

strings = st.one_of(st.none(), st.binary(max_size=40), st.just(b"same"))
headers = st.lists(st.tuples(st.text(max_size=8), st.one_of(st.none(), st.binary(max_size=8))), max_size=3).map(tuple)
records = st.lists(st.tuples(st.integers(0, 2**62), strings, strings, headers), min_size=1, max_size=40)
Fields = list[tuple[int, bytes | None, bytes | None, Headers]]

KEPT = (
    *("base_offset", "last_offset_delta", "append_time_ms", "high_watermark", "leader_epoch", "leader_flags"),
    *("producer_id", "producer_epoch", "base_sequence"),
)


def stored(fields: Fields, kind: str, codec: int = 0, flags: int = 0) -> bytes:
    """Return a batch as a leader stores it."""
    stamps, keys, values, heads = (list(column) for column in zip(*fields, strict=True))
    if kind == "columns":
        batch = encode_batch(
            stamps, keys, values, heads, codec=codec, producer_id=7, producer_epoch=3, base_sequence=2**31 - 3
        )
    else:
        body = encode_rows(Row(delta, *record) for delta, record in enumerate(fields))
        half = encode_producer_half(
            body,
            attributes=0,
            base_timestamp_ms=stamps[0],
            max_timestamp_ms=max(stamps),
            record_count=len(fields),
            last_offset_delta=len(fields) - 1,
            uncompressed_size=len(body),
            producer_id=7,
            producer_epoch=3,
            base_sequence=2**31 - 3,
        )
        batch = half + body
    half = encode_leader_half(
        batch, base_offset=1000, leader_epoch=5, append_time_ms=77, high_watermark=990, leader_flags=flags
    )
    return half + batch[HEADER_SIZE:]


def joined(parts: list[bytes]) -> bytes:
    return b"".join(bytes(memoryview(part)) for part in parts)


def read(batch: bytes) -> list[tuple[int, int, bytes | None, bytes | None, Headers]]:
    verify_header(batch)
    verify_batch(batch)
    found = decode_batch(batch, "t", 0).to_records()
    return [(record.offset, record.timestamp_ms, record.key, record.value, record.headers) for record in found]


@given(records, st.data(), st.sampled_from(["columns", "rows"]), st.sampled_from([0, 3, 4]))
def test_what_is_left_is_what_was_there(fields: Fields, data: st.DataObject, kind: str, codec: int) -> None:
    batch = stored(fields, kind, codec)
    before = verify_header(batch)
    everything = read(batch)
    for _ in range(2):  # a batch is thinned again and again
        header = verify_header(batch)
        present = st.lists(st.integers(0, header.record_count - 1), min_size=1, unique=True)
        rows = np.array(sorted(data.draw(present)))
        expected = [read(batch)[row] for row in rows]
        thinned = thin_batch(header, decode_body(batch, header), rows)
        assert thinned is not None
        batch = joined(thinned)
        after = verify_header(batch)
        assert read(batch) == expected
        assert set(expected) <= set(everything) or len(everything) != len(set(everything))
        assert after.record_count == len(rows)
        assert after.is_columns
        assert (after.base_timestamp_ms, after.max_timestamp_ms) == (expected[0][1], max(r[1] for r in expected))
        assert [getattr(after, name) for name in KEPT] == [getattr(before, name) for name in KEPT]
        assert after.last_sequence == before.last_sequence


def test_all_records_taken_out_leave_a_header_that_reads_as_nothing() -> None:
    batch = stored([(5, b"k", b"v", ()), (9, b"l", None, ())], "columns", flags=FLAG_LOG_APPEND_TIME)
    before = verify_header(batch)
    empty = empty_batch(before)
    after = verify_header(empty)
    assert len(empty) == HEADER_SIZE
    assert read(empty) == []
    assert after.record_count == after.body_size == 0
    assert after.next_offset == before.next_offset
    assert [getattr(after, name) for name in KEPT] == [getattr(before, name) for name in KEPT]


def test_the_codec_stays_where_it_still_gains_something() -> None:
    fields: Fields = [(1, b"key-%d" % n, b"x" * 1000, ()) for n in range(50)]
    batch = stored(fields, "columns", codec=4)
    header = verify_header(batch)
    thinned = thin_batch(header, decode_body(batch, header), np.arange(0, 50, 2))
    assert thinned is not None
    assert verify_header(joined(thinned)).codec == 4


def test_a_batch_that_deltas_make_too_large_becomes_rows_or_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    fields: Fields = [(n, b"%04d" % n, b"%04d" % n, ()) for n in range(1000)]
    batch = stored(fields, "columns")
    header = verify_header(batch)
    columns = decode_body(batch, header)
    rows = np.delete(np.arange(1000), 500)

    def thin(limit: int) -> BatchHeader | None:
        limits = msgspec.structs.replace(LIMITS, batch_bytes_max=limit)
        monkeypatch.setattr("ingest.records.thinned.LIMITS", limits)
        thinned = thin_batch(header, columns, rows)
        if thinned is None:
            return None
        assert read(joined(thinned)) == [record for record in read(batch) if record[0] != 1500]
        return verify_header(joined(thinned))

    by_columns = thin(LIMITS.batch_bytes_max)
    assert by_columns is not None
    assert by_columns.is_columns
    by_rows = thin(by_columns.body_size - 1)
    assert by_rows is not None
    assert not by_rows.is_columns
    assert thin(by_rows.body_size - 1) is None
