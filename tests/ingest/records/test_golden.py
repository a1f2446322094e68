"""Bytes on disk and wire, pinned: a change of them is a new format version, never an accident.

`pytest tests/ingest/records --regenerate-golden` writes the files anew; review them as a diff.
Source: docs/format/batch.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ingest.records.batch import decode_batch, decode_body, encode_batch
from ingest.records.columns import decode_columns, encode_columns
from ingest.records.compression import CODEC_NAMES, SNAPPY, compress, decompress
from ingest.records.header import (
    HEADER_SIZE,
    BatchHeader,
    encode_leader_half,
    encode_producer_half,
    verify_batch,
    verify_header,
)
from ingest.records.rows import Row, decode_rows, encode_rows
from ingest.records.thinned import empty_batch, thin_batch

Golden = Callable[[str, bytes], bytes]

GOLDEN = Path(__file__).parent / "golden"
BODY = b"a body of twenty-six bytes"
TEXT = b"one two three, one two three, one two three\n" * 20

STAMPS = [1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_500]
KEYS = [b"dev-1", None, b"dev-22"]
VALUES = [b"21.5", b"", None]
HEADERS = [(("site", b"A"),), (), (("site", b"A"),)]
ROWS = [Row(i, STAMPS[i], KEYS[i], VALUES[i], HEADERS[i]) for i in range(3)]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare bytes with a file of hex, 32 bytes a line; or write it."""

    def check(name: str, found: bytes) -> bytes:
        path = GOLDEN / f"{name}.hex"
        if request.config.getoption("--regenerate-golden"):
            lines = (found[start : start + 32].hex() for start in range(0, len(found), 32))
            path.write_text("\n".join(lines) + "\n")
        expected = bytes.fromhex(path.read_text())
        assert found.hex() == expected.hex(), f"{path.name}: the bytes of this format changed"
        return expected

    return check


def producer_half() -> bytes:
    return encode_producer_half(
        BODY,
        attributes=0x0102,
        base_timestamp_ms=1_700_000_000_000,
        max_timestamp_ms=1_700_000_000_999,
        record_count=5,
        last_offset_delta=6,
        uncompressed_size=52,
        producer_id=4711,
        producer_epoch=3,
        base_sequence=2**31 - 2,
    )


def test_batch_header_of_a_producer(golden: Golden) -> None:
    stored = golden("header-producer", producer_half())
    assert len(stored) == HEADER_SIZE
    assert verify_batch(stored + BODY).producer_id == 4711


def test_batch_header_of_a_leader(golden: Golden) -> None:
    stored = golden(
        "header-leader",
        encode_leader_half(
            producer_half(),
            base_offset=2**40 + 7,
            leader_epoch=9,
            append_time_ms=1_700_000_001_234,
            high_watermark=2**40 + 5,
            leader_flags=1,
        ),
    )
    header = verify_header(stored)
    assert header == BatchHeader(
        magic=b"FBY\x01",
        header_crc=header.header_crc,
        base_offset=2**40 + 7,
        append_time_ms=1_700_000_001_234,
        high_watermark=2**40 + 5,
        leader_epoch=9,
        leader_flags=1,
        batch_crc=header.batch_crc,
        body_size=26,
        producer_id=4711,
        base_timestamp_ms=1_700_000_000_000,
        max_timestamp_ms=1_700_000_000_999,
        base_sequence=2**31 - 2,
        record_count=5,
        last_offset_delta=6,
        producer_epoch=3,
        attributes=0x0102,
        uncompressed_size=52,
        reserved=0,
    )
    assert header.next_offset == 2**40 + 14
    assert header.last_sequence == 4, "sequences wrap from 2^31 - 1 to 0"


def test_columns_body(golden: Golden) -> None:
    stored = golden("columns", encode_columns(STAMPS, KEYS, VALUES, HEADERS))
    columns = decode_columns(stored, 3, 0)
    assert (columns.timestamps_ms.tolist(), list(columns.keys), list(columns.values)) == (STAMPS, KEYS, VALUES)


def test_rows_body(golden: Golden) -> None:
    stored = golden("rows", encode_rows(ROWS))
    header = verify_header(
        encode_leader_half(
            encode_producer_half(
                stored,
                attributes=0,
                base_timestamp_ms=STAMPS[0],
                max_timestamp_ms=STAMPS[2],
                record_count=3,
                last_offset_delta=2,
                uncompressed_size=len(stored),
            ),
            base_offset=0,
            leader_epoch=0,
            append_time_ms=0,
            high_watermark=0,
        )
    )
    assert decode_rows(stored, header) == ROWS


def test_whole_batch(golden: Golden) -> None:
    stored = golden(
        "batch", encode_batch(STAMPS, KEYS, VALUES, HEADERS, producer_id=1, producer_epoch=0, base_sequence=0)
    )
    columns = decode_batch(stored, "sensors", 0, verify_batch(stored))
    assert (list(columns.keys), list(columns.values), columns.headers) == (KEYS, VALUES, HEADERS)


def test_batches_as_compaction_leaves_them(golden: Golden) -> None:
    whole = encode_batch(STAMPS, KEYS, VALUES, HEADERS, producer_id=1, producer_epoch=0, base_sequence=0)
    header = verify_batch(whole)
    parts = thin_batch(header, decode_body(whole, header), np.array([0, 2]))
    assert parts is not None
    thinned = golden("batch-thinned", b"".join(map(bytes, map(memoryview, parts))))
    columns = decode_batch(thinned, "sensors", 0, verify_batch(thinned))
    assert (columns.offsets.tolist(), list(columns.keys), columns.next_offset) == ([0, 2], [b"dev-1", b"dev-22"], 3)
    emptied = golden("batch-emptied", empty_batch(header))
    assert len(decode_batch(emptied, "sensors", 0, verify_batch(emptied))) == 0


@pytest.mark.parametrize("codec", range(1, 5))
def test_bodies_packed_by_an_older_version_still_unpack(codec: int, request: pytest.FixtureRequest) -> None:
    """What a codec writes may change with its library; what it once wrote must stay readable."""
    path = GOLDEN / f"packed-{CODEC_NAMES[codec]}.hex"
    if request.config.getoption("--regenerate-golden"):
        path.write_text(compress(codec, TEXT).hex() + "\n")
    packed = bytes.fromhex(path.read_text())
    assert decompress(codec, packed, size=len(TEXT), size_max=10_000, ratio_max=1000) == TEXT
    if codec == SNAPPY:
        assert packed[:2] == bytes([0xF0, 0x06]), "raw snappy starts with its length"
