"""Names, index entries and page rows: what is written comes back, what is damaged is noticed."""

from __future__ import annotations

import uuid
from bisect import bisect_left, bisect_right
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.storage.page import StatePage
from ingest.log.index import (
    IndexDamaged,
    crc_seed,
    decode_offset_entry,
    decode_time_entry,
    encode_offset_entry,
    encode_time_entry,
    find_offset,
    find_time,
)
from ingest.log.names import (
    file_name,
    lost_name,
    parse_file_name,
    parse_lost_name,
    parse_partition_name,
    partition_name,
)
from ingest.log.state_page import (
    COPY_SIZE,
    PAGE_HEADER_SIZE,
    ROW_SIZE,
    Marks,
    decode_marks,
    encode_marks,
    row_tag,
)

offsets = st.integers(0, 2**63 - 1)

UUID = uuid.UUID(int=7)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 999_999_999))
def test_partition_names_come_back(topic_id: bytes, partition: int) -> None:
    assert parse_partition_name(partition_name(topic_id, partition)) == (topic_id, partition)


@given(offsets, offsets, st.sampled_from([".log", ".index", ".snapshot"]))
def test_file_names_come_back(offset: int, end: int, suffix: str) -> None:
    assert parse_file_name(file_name(offset, suffix)) == (offset, suffix)
    assert parse_lost_name(lost_name(offset, end)) == (offset, end)


@pytest.mark.parametrize("name", ["", "x", "../x", f"{UUID}", f"{UUID}-01", f"{UUID}-1.deleted"])
def test_other_names_are_no_partitions(name: str) -> None:
    assert parse_partition_name(name) is None
    assert parse_file_name(name) is None


@given(offsets, st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1), st.integers(0, 127))
def test_an_index_entry_comes_back_and_a_flipped_bit_is_noticed(
    base: int, relative: int, position: int, bit: int
) -> None:
    seed = crc_seed(base)
    position &= -8
    entry = encode_offset_entry(seed, relative, position, 5)
    assert decode_offset_entry(seed, entry) == (relative, position, 5)
    stamped = encode_time_entry(seed, position - 1000, relative)
    assert decode_time_entry(seed, stamped) == (position - 1000, relative)
    for good, decode in ((entry, decode_offset_entry), (stamped, decode_time_entry)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << (bit % 8)
        for damaged in (bytes(bad), good[:-1], bytes(16)):
            with pytest.raises(IndexDamaged):
                decode(seed, damaged)
    with pytest.raises(IndexDamaged):
        decode_offset_entry(crc_seed(base ^ 1), entry)


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=50), st.integers(-1, 10**6 + 1))
def test_bisection_finds_what_a_sorted_list_finds(keys: list[int], wanted: int) -> None:
    keys.sort()
    seed = crc_seed(0)
    entries = [encode_offset_entry(seed, key, key * 8, 0) for key in keys]
    found = find_offset(seed, entries.__getitem__, len(entries), wanted)
    at = bisect_right(keys, wanted) - 1
    assert found == ((keys[at], keys[at] * 8, 0) if at >= 0 else None)
    stamps = [encode_time_entry(seed, key, index) for index, key in enumerate(keys)]
    before = bisect_left(keys, wanted) - 1
    assert find_time(seed, stamps.__getitem__, len(stamps), wanted) == (before if before >= 0 else None)


def page_of(*copies: bytes) -> bytes:
    return bytes(PAGE_HEADER_SIZE) + b"".join(copies)


def test_the_newer_valid_copy_of_a_row_counts_whichever_was_torn() -> None:
    old = encode_marks(7, 1, 0, 99, 5, 0, 10, 10, 0)
    new = encode_marks(8, 1, 0, 99, 5, 0, 20, 20, 0)
    for page in (page_of(old, new), page_of(new, old)):
        marks = decode_marks(page, 0)
        assert marks is not None
        assert marks.high_watermark == 20
    for torn in range(COPY_SIZE):
        marks = decode_marks(page_of(old, new[:torn] + old[torn:]), 0)
        assert marks is not None
        assert marks.high_watermark in (10, 20)
        assert marks.high_watermark == marks.log_end
    assert decode_marks(page_of(bytes(64), bytes(64)), 0) is None


def test_the_sequence_of_a_row_may_wrap() -> None:
    old = encode_marks(2**32 - 1, 1, 0, 99, 5, 0, 10, 10, 0)
    new = encode_marks(0, 1, 0, 99, 5, 0, 20, 20, 0)
    for page in (page_of(old, new), page_of(new, old)):
        marks = decode_marks(page, 0)
        assert marks is not None
        assert marks.high_watermark == 20


@given(st.lists(offsets, min_size=4, max_size=4), st.integers(-1, 2**31 - 1))
def test_marks_come_back(values: list[int], epoch: int) -> None:
    copy = encode_marks(1, epoch, 2, 3, 4, *values)
    assert decode_marks(page_of(copy, bytes(64)), 0) == Marks(1, epoch, 2, 3, 4, *values)
    assert len(copy) * 2 == ROW_SIZE


def test_tags_tell_partitions_apart() -> None:
    topics = [uuid.uuid4().bytes for _ in range(50)]
    tags = {row_tag(topic, partition) for topic in topics for partition in range(50)}
    assert len(tags) == 2500
    assert 0 not in tags


def test_a_page_grows_and_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page"
    page = StatePage(path, 1, 0o640)
    inode = path.stat().st_ino
    rows = [page.claim(row_tag(bytes([index % 256, index // 256]) * 8, 0)) for index in range(600)]
    for row in rows:
        row.publish(1, 0, row.index, row.index, 0)
    again = StatePage(path, 2, 0o640)
    assert path.stat().st_ino == inode
    for row in rows:
        found = again.claim(row.tag)
        assert found.index == row.index
        assert found.inherited is not None
        assert found.inherited.high_watermark == row.index


def test_a_garbled_page_is_made_anew_in_place(tmp_path: Path) -> None:
    path = tmp_path / "page"
    path.write_bytes(b"\xff" * 5000)
    inode = path.stat().st_ino
    page = StatePage(path, 1, 0o640)
    assert page.claim(5).inherited is None
    assert path.stat().st_ino == inode
