"""What a producer packs every reader unpacks, whatever the records are."""

from __future__ import annotations

import pytest

from ingest.errors import CorruptBatch
from ingest.records.batch import decode_batch, encode_batch
from ingest.records.header import encode_leader_half, verify_batch, verify_header


@pytest.mark.parametrize("codec", range(5))
@pytest.mark.parametrize("value", [bytes(1 << 20), b"a text that repeats " * 5000, b""])
def test_a_batch_of_zeros_is_no_bomb_to_its_readers(codec: int, value: bytes) -> None:
    batch = encode_batch([5] * 4, None, [value] * 4, codec=codec)
    columns = decode_batch(batch, "sensors", 0, verify_batch(batch))
    assert columns.values.to_list() == [value] * 4


@pytest.mark.parametrize("offset", [-1, 2**63 - 1, 2**63 - 2**32 + 1])
def test_a_base_offset_behind_which_nothing_has_an_offset_is_corrupt(offset: int) -> None:
    batch = encode_batch([1, 2], [b"k", b"k"], [b"v", b"v"])
    head = encode_leader_half(batch, base_offset=offset, leader_epoch=0, append_time_ms=0, high_watermark=0)
    with pytest.raises(CorruptBatch, match=f"base offset {offset}"):
        verify_header(head)
