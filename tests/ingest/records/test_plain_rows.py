"""The quick look at plain rows says what a reader of the records finds, and leaves all others to it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import CorruptBatch
from ingest.records import plain_rows, rows
from ingest.records.plain_rows import PlainRows, look_at_plain_rows
from ingest.records.rows import Row, check_rows, decode_rows, encode_rows
from tests.ingest.records.test_rows import header_of, record, varint

PLAIN = st.tuples(
    st.integers(-100_000, 100_000), st.none() | st.binary(max_size=40), st.none() | st.binary(max_size=200)
)


def made(count: int, size: int | None = None) -> list[Row]:
    """Return plain records, of one size or of random ones."""
    take = random.Random(count)
    return [
        Row(index, 1_700_000_000_000 + index // 9, b"key-%d" % (index % 10), bytes(size or take.randrange(2000)))
        for index in range(count)
    ]


@pytest.fixture(autouse=True, scope="module")
def any_count() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_rows, "WALKED_MIN", 1)
        yield


@given(st.lists(PLAIN, min_size=1, max_size=40))
def test_it_tells_what_the_records_hold(fields: list[tuple[int, bytes | None, bytes | None]]) -> None:
    found = [Row(index, 1_000_000 + stamp, key, value) for index, (stamp, key, value) in enumerate(fields)]
    stamps = [row.timestamp_ms - found[0].timestamp_ms for row in found]
    keyless = sum(row.key is None for row in found)
    assert look_at_plain_rows(encode_rows(found), len(found)) == PlainRows(max(stamps), keyless)


@pytest.mark.parametrize("size", [1, 40, 100, 9000, None])
@pytest.mark.parametrize("count", [128, 1000, 8200, 70_000])
def test_runs_of_one_size_and_many_sizes(count: int, size: int | None) -> None:
    if size == 9000 and count > 1000:
        size = 300
    found = made(count, size)
    body = encode_rows(found)
    assert look_at_plain_rows(body, count) == PlainRows((count - 1) // 9, 0)
    assert check_rows(body, header_of(found)).max_timestamp_ms == found[-1].timestamp_ms


@pytest.mark.parametrize(
    "body",
    [
        b"",
        varint(7),
        record(b"\0\0\0\1\1\0") + b"\0",
        record(b"\0\0\0\1\1\2" + b"\2a\1"),
        record(b"\0\0\2\1\1\0"),
        record(b"\0\0\0\3\1\0"),
        record(b"\0\0\0\1\3\0"),
        record(b"\0\0\0" + varint(2**33) + b"\1\0"),
        record(b"\0\0\0" + varint(2**62) + b"\1\0"),
        record(b"\0" + b"\x80" * 20 + b"\0"),
        b"\x80" * 20,
        varint(-1) + b"\0\0\0\1\1\0",
        varint(2**33) + b"\0\0\0\1\1\0",
        record(b"\0\0\0\1\1\0")[:-1],
        record(b"\x80\0\0\1\1\0"),
        record(b"\0\0\0\1\1"),
    ],
    ids=range(16),
)
def test_what_is_unusual_is_left_alone(body: bytes) -> None:
    assert look_at_plain_rows(body, 1) is None


@settings(max_examples=500)
@given(st.integers(0, 2**32), st.integers(1, 6), st.booleans())
def test_what_it_takes_a_reader_reads(seed: int, changes: int, same_size: bool) -> None:
    found = made(30, 20 if same_size else None)
    body, take = bytearray(encode_rows(found)), random.Random(seed)
    for _ in range(changes):
        body[take.randrange(min(len(body), 200))] = take.choice((0, 1, 2, 0x7F, 0x80, take.randrange(256)))
    told = look_at_plain_rows(body, 30)
    if told is None:
        return
    header = header_of(found)
    back = decode_rows(bytes(body), header)
    assert [row.offset_delta for row in back] == list(range(30))
    assert max(row.timestamp_ms for row in back) == header.base_timestamp_ms + told.largest_delta
    assert sum(row.key is None for row in back) == told.keyless
    assert not any(row.headers for row in back)


def test_a_look_within_a_large_batch_finds_one_bad_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_rows, "CHUNK", 64)
    found = made(300, 50)
    good = encode_rows(found)
    assert look_at_plain_rows(good, 300) == PlainRows(299 // 9, 0)
    found[250] = Row(251, found[250].timestamp_ms, None, b"")
    assert look_at_plain_rows(encode_rows(found), 300) is None
    with pytest.raises(CorruptBatch, match="offset delta 251, expected 250"):
        check_rows(encode_rows(found), header_of(found, last_offset_delta=299))


def test_few_records_of_many_sizes_are_left_to_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_rows, "WALKED_MIN", 300)
    assert look_at_plain_rows(encode_rows(made(299)), 299) is None
    assert look_at_plain_rows(encode_rows(made(300)), 300) is not None
    assert look_at_plain_rows(encode_rows(made(299, 50)), 299) is not None


def test_records_with_headers_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(200, 50)
    found[199] = Row(199, 1_700_000_009_999, b"k", b"v", (("name", b"value"),))
    monkeypatch.setattr(rows, "_PLAIN_COUNT_MIN", 1)
    assert check_rows(encode_rows(found), header_of(found)).max_timestamp_ms == 1_700_000_009_999
