"""Failpoints do nothing unless armed, and exactly what they were armed with."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest import failpoints
from ingest.errors import ConfigError
from ingest.failpoints import failpoint


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    failpoints.arm("")


def test_nothing_happens_unless_armed() -> None:
    failpoint("a.place")


def test_an_error_is_raised_each_time_or_at_one_hit() -> None:
    failpoints.arm("always=eio, third=enospc@3")
    for _ in range(2):
        with pytest.raises(OSError, match="always"):
            failpoint("always")
    failpoint("third")
    failpoint("third")
    with pytest.raises(OSError, match="third"):
        failpoint("third")
    failpoint("third")


def test_a_delay_takes_its_time() -> None:
    failpoints.arm("slow=sleep:20")
    started = time.monotonic()
    failpoint("slow")
    assert time.monotonic() - started >= 0.02


def test_an_entry_fires_by_taking_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.DIRECTORY_VARIABLE, str(tmp_path))
    failpoints.arm("a.place=eio,a.place=enospc")
    failpoint("a.place")
    (tmp_path / "a.place=enospc").touch()
    with pytest.raises(OSError, match="No space"):
        failpoint("a.place")
    assert not list(tmp_path.iterdir())
    failpoint("a.place")


def test_a_file_that_holds_a_pid_is_for_that_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.DIRECTORY_VARIABLE, str(tmp_path))
    failpoints.arm("a.place=eio")
    (tmp_path / "a.place=eio").write_text("1")
    failpoint("a.place")
    (tmp_path / "a.place=eio").write_text(str(os.getpid()))
    with pytest.raises(OSError, match=r"a\.place"):
        failpoint("a.place")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["x", "x=", "x=explode", "x=kill@soon", "x=sleep", "x=sleep:long"])
def test_a_bad_entry_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=text.split("@")[0]):
        failpoints.arm(text)
