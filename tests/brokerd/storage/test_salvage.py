"""What is copied from a failed directory is what the device returned, to the last byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.storage.files import READ, File
from brokerd.storage.salvage import copy_readable
from ingest.records.batch import encode_batch
from ingest.records.header import HEADER_SIZE, encode_leader_half, verify_batch


@pytest.mark.parametrize("zeros", [0, 1, 7, 8, 3 << 20])
def test_a_copy_keeps_trailing_zeros(tmp_path: Path, zeros: int) -> None:
    path = tmp_path / "00000000000000000000.log"
    data = b"x" * 1000 + bytes(zeros)
    path.write_bytes(data)
    copy_readable(File(path, READ), 0o640)
    assert path.read_bytes() == data


def test_a_last_batch_whose_body_ends_in_zeros_survives(tmp_path: Path) -> None:
    batch = encode_batch([1], None, [b"v" + bytes(5)])
    header = encode_leader_half(batch, base_offset=0, leader_epoch=1, append_time_ms=1, high_watermark=0)
    path = tmp_path / "00000000000000000000.log"
    path.write_bytes(header + batch[HEADER_SIZE:])
    copy_readable(File(path, READ), 0o640)
    assert verify_batch(path.read_bytes()).record_count == 1
