"""Maps tell what of a file is in memory, and what is not can be read without stopping all threads."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ingest.log.mapping import SegmentMap
from ingest.log.names import LOG, file_name

SIZE = 4 << 20


@pytest.fixture
def segment(tmp_path: Path) -> SegmentMap:
    path = tmp_path / file_name(7, LOG)
    with path.open("wb") as file:
        file.write(os.urandom(SIZE))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return SegmentMap(tmp_path, 7)


def test_what_is_on_disk_alone_is_found_and_loaded(segment: SegmentMap) -> None:
    if segment.is_cached(0, SIZE):
        pytest.skip("this file system keeps it in memory")
    segment.load(1 << 20, 1 << 20)
    assert segment.is_cached(1 << 20, 1 << 20)
    segment.load(0, SIZE)
    assert segment.is_cached(0, SIZE)


def test_a_part_that_is_missing_is_seen(segment: SegmentMap, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(fd: int, buffers: Sequence[Any], offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        if offset >= 3 << 20:
            raise BlockingIOError(errno.EAGAIN, "not in memory")
        return 1

    monkeypatch.setattr(os, "preadv", preadv)
    assert segment.is_cached(0, 3 << 20)
    assert not segment.is_cached(0, (3 << 20) + 1)
    assert segment.is_cached(SIZE, 1 << 20), "there is nothing behind the end"


def test_a_file_system_that_does_not_tell_is_trusted(segment: SegmentMap, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*_: Any) -> int:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "preadv", preadv)
    assert segment.is_cached(0, SIZE)


def test_loading_stops_at_the_end_of_the_file(segment: SegmentMap) -> None:
    segment.load(SIZE - 10, 1 << 20)
    segment.load(SIZE + 10, 1 << 20)
