"""Files that are replaced in one step."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ingest.atomic_file import replace_file


@pytest.mark.parametrize("durable", [False, True])
def test_a_reader_sees_the_old_bytes_or_the_new_ones(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "f"
    replace_file(path, b"old", durable=durable)
    with open(path, "rb") as reader:
        replace_file(path, b"new", mode=0o600, durable=durable)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("mode", "found"), [(None, 0o600), (0o640, 0o640)])
def test_the_umask_counts_unless_a_mode_is_asked_for(tmp_path: Path, mode: int | None, found: int) -> None:
    before = os.umask(0o077)
    try:
        replace_file(tmp_path / "f", b"", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == found


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    replace_file(path, b"old")

    def fail(fd: int) -> None:
        raise OSError(5, "I/O error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="I/O error"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_not_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "f"
    (tmp_path / f"f.{os.getpid()}.tmp").write_bytes(b"half")
    replace_file(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]
