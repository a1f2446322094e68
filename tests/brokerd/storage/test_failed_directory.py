"""A device that fails: no ack after the error, and a reopen that believes the device instead of the page cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokerd.storage.flusher import flush
from brokerd.storage.log import Log
from ingest import failpoints
from ingest.errors import LogDirOffline
from tests.brokerd.storage.mounts import ext4, make_ext4, one_page_requests, remount, tmpfs
from tests.brokerd.storage.stores import Store, bodies, make_batch

MakeStore = Callable[..., Store]


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    failpoints.arm("")


def append_and_flush(store: Store, log: Log) -> None:
    log.append([make_batch(b"in doubt")], wall_ms=0)
    store.flush()


@pytest.mark.parametrize("name", ["storage.after_write", "storage.before_sync", "storage.after_sync"])
@pytest.mark.parametrize("error", ["eio", "enospc"])
def test_any_error_of_write_or_flush_fails_the_directory_for_good(store: Store, name: str, error: str) -> None:
    log = store.open()
    log.append([make_batch(b"kept")], wall_ms=0)
    store.flush()
    assert store.directory is not None
    store.directory.checkpoint()
    failpoints.arm(f"{name}={error}")
    with pytest.raises(LogDirOffline):
        append_and_flush(store, log)
    failpoints.arm("")
    assert store.directory.failed
    name = store.directory.directory_id
    assert store.failed_marks() == [store.page_path.parent / f"{name}.failed", store.failed_dir / name]
    for act in (lambda: log.append([make_batch()], wall_ms=0), store.flush):
        with pytest.raises(LogDirOffline):
            act()
    ((_, failure),) = flush([log.flush_target()])
    assert isinstance(failure, LogDirOffline)
    assert bodies(log, 0)[0] == b"kept"
    inode = (store.partition_path / f"{0:020d}.log").stat().st_ino
    log = store.reopen()
    assert not store.failed_marks()
    assert bodies(log)[0] == b"kept"
    assert (store.partition_path / f"{0:020d}.log").stat().st_ino != inode


def fail(store: Store) -> int:
    """Let a flush fail; return the inode of the segment that is in doubt."""
    log = store.open()
    failpoints.arm("storage.before_sync=eio")
    with pytest.raises(LogDirOffline):
        append_and_flush(store, log)
    failpoints.arm("")
    store.kill()
    return (store.partition_path / f"{0:020d}.log").stat().st_ino


def was_copied(store: Store, inode: int) -> bool:
    store.open()
    return (store.partition_path / f"{0:020d}.log").stat().st_ino != inode


def test_a_failed_directory_is_known_although_its_device_refuses_the_mark(store: Store) -> None:
    store.failed_dir.parent.mkdir(parents=True)
    store.failed_dir.touch()  # no directory can be made there
    inode = fail(store)
    assert store.failed_marks() == [*store.page_path.parent.glob("*.failed")] != []
    assert was_copied(store, inode)
    assert not store.failed_marks()


def test_a_failed_directory_is_known_after_a_power_cut(store: Store) -> None:
    inode = fail(store)
    for path in store.page_path.parent.iterdir():
        path.unlink()
    assert was_copied(store, inode)
    assert not store.failed_marks()


def test_a_sound_directory_is_not_copied(store: Store) -> None:
    append_and_flush(store, store.open())
    store.kill()
    assert not was_copied(store, (store.partition_path / f"{0:020d}.log").stat().st_ino)


def fill_until_the_device_fails(store: Store, log: Log) -> tuple[list[bytes], int]:
    """Append and flush until an error; return what was appended and how much of it was flushed."""
    sent: list[bytes] = []
    while len(sent) < 2000:
        sent.append(os.urandom(20_000))
        try:
            log.append([make_batch(sent[-1])], wall_ms=0)
            if len(sent) % 5 == 0:
                store.flush()
        except LogDirOffline:
            return sent, log.flushed_end
    raise AssertionError("the device never failed")


@pytest.mark.needs("loop_mounts", "tmpfs_mount")
@pytest.mark.parametrize("marks", ["elsewhere", "on the device"])
def test_after_a_real_io_error_only_what_the_device_returns_is_served(
    tmp_path: Path, make_store: MakeStore, marks: str
) -> None:
    """ext4 on a sparse image on a tmpfs that is smaller: write-back fails, while the cache shows the lost data."""
    with tmpfs(tmp_path / "small", "12m") as small:
        make_ext4(small / "image", 64 << 20, journal=False)
        with ext4(small / "image", tmp_path / "mount", "errors=continue") as mount:
            one_page_requests(mount)
            store = make_store(mount / "store")
            store.failed_dir = (tmp_path if marks == "elsewhere" else mount) / "failed"
            store.page_path = tmp_path / "page"
            log = store.open()
            sent, flushed = fill_until_the_device_fails(store, log)
            assert 0 < flushed < len(sent)
            assert store.directory is not None
            assert store.directory.failed
            del log
            store.kill()
            # still failing: refused, and the mark stays
            with pytest.raises(LogDirOffline):
                store.open()
            assert store.failed_marks()
            # the device is mended
            remount(small, "size=200m")
            log = store.open()
            assert not store.failed_marks()
            assert flushed <= log.end_offset < len(sent), "what the device refused was served from the cache"
            assert bodies(log) == sent[: log.end_offset]
            log.append([make_batch(b"goes on")], wall_ms=0)
            store.flush()
            last = log.end_offset
            store.close()
        with ext4(small / "image", tmp_path / "mount") as mount:  # what a power cut would leave
            log = store.open()
            assert log.end_offset == last
            assert bodies(log) == [*sent[: last - 1], b"goes on"]
            store.close()
