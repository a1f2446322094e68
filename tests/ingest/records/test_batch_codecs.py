"""What a producer packs every reader unpacks, whatever the records are."""

from __future__ import annotations

import pytest

from ingest.records.batch import decode_batch, encode_batch
from ingest.records.header import verify_batch


@pytest.mark.parametrize("codec", range(5))
@pytest.mark.parametrize("value", [bytes(1 << 20), b"a text that repeats " * 5000, b""])
def test_a_batch_of_zeros_is_no_bomb_to_its_readers(codec: int, value: bytes) -> None:
    batch = encode_batch([5] * 4, None, [value] * 4, codec=codec)
    columns = decode_batch(batch, "sensors", 0, verify_batch(batch))
    assert columns.values.to_list() == [value] * 4
