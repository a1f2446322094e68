"""A full disk: a clean refusal before anything is written, reads and checkpoints go on, and so does the log after."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from brokerd.storage.disk import EXTENT_BYTES_MIN
from brokerd.storage.flusher import flush
from brokerd.storage.log import Log
from ingest.errors import DiskFull, StorageError
from tests.brokerd.storage.mounts import ext4, make_ext4, tmpfs
from tests.brokerd.storage.stores import TOPIC, Store, bodies, make_batch

MakeStore = Callable[..., Store]


def fill_until_refused(log: Log, producer_id: int = 1) -> list[bytes]:
    sent: list[bytes] = []
    while len(sent) < 5000:
        body = os.urandom(4000)
        try:
            log.append([make_batch(body, producer=(producer_id, 0, len(sent)))], wall_ms=0)
        except DiskFull:
            return sent
        sent.append(body)
    raise AssertionError("the disk never filled")


def exercise(store: Store, filler: Path) -> None:
    log = store.open()
    log.append([make_batch(b"first")], wall_ms=0)
    log.truncate_to(0)
    with open(filler, "wb") as file:
        space = os.statvfs(filler)
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - (3 << 20))
    sent = fill_until_refused(log)
    assert sent
    assert store.directory is not None
    assert store.directory.disk_full
    assert not store.directory.failed
    assert bodies(log) == sent
    with pytest.raises(DiskFull):
        store.directory.create_partition(b"q" * 16, 0, store.config)
    assert not list(store.path.glob("71717171*"))
    store.flush()
    log.delete_records(1)  # metadata has its reserve
    store.directory.checkpoint()
    for boot_ms in (1, 2):
        store.directory.maintain(boot_ms)
    assert bodies(log, 1) == sent[1:]
    log = store.reopen()
    assert bodies(log, 1) == sent[1:]
    more = fill_until_refused(log, producer_id=2)
    assert bodies(log, 1) == sent[1:] + more
    filler.unlink()
    store.directory.maintain(3)
    log.append([make_batch(b"room again")], wall_ms=0)
    assert not store.directory.disk_full
    store.flush()
    assert bodies(store.reopen(), len(sent) + len(more)) == [b"room again"]


@pytest.mark.needs("tmpfs_mount")
def test_a_full_tmpfs_refuses_cleanly_and_recovers_by_itself(tmp_path: Path, make_store: MakeStore) -> None:
    with tmpfs(tmp_path / "mount", "40m") as mount:
        store = make_store(mount / "store")
        exercise(store, mount / "filler")
        store.close()


@pytest.mark.needs("loop_mounts")
def test_a_full_ext4_refuses_cleanly_and_recovers_by_itself(tmp_path: Path, make_store: MakeStore) -> None:
    make_ext4(tmp_path / "image", 48 << 20)
    with ext4(tmp_path / "image", tmp_path / "mount") as mount:
        store = make_store(mount / "store")
        exercise(store, mount / "filler")
        store.close()


def take_all_room(filler: Path) -> None:
    space = os.statvfs(filler.parent)
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize)


def use_the_reserve(store: Store, filler: Path) -> None:
    """Fill the disk under a log that may use the reserve, a copy of it, and one that may not."""
    reserve = 4 << 20
    store.options["reserve_bytes"] = reserve
    log = store.open()
    assert store.directory is not None
    config = msgspec.structs.replace(store.config, uses_reserve=True)
    commits, copy = (store.directory.partition(TOPIC, partition, config) for partition in (1, 2))
    commits.become_leader(1)
    commits.append([make_batch(b"first", producer=(9, 0, 0))], wall_ms=0)
    take_all_room(filler)
    sent = fill_until_refused(log)
    committed = [b"first", *fill_until_refused(commits)]
    size = sum(map(len, committed))
    assert reserve // 4 < size <= reserve // 2 + EXTENT_BYTES_MIN
    assert bodies(commits) == committed
    assert (store.path / "reserve").stat().st_size >= reserve // 2
    with pytest.raises(DiskFull):
        log.append([make_batch(bytes(100_000))], wall_ms=0)
    store.flush()
    log.delete_records(1)  # what is left is for marks and indexes
    store.directory.checkpoint()
    assert bodies(log, 1) == sent[1:]

    filler.unlink()
    store.directory.maintain(1)
    assert (store.path / "reserve").stat().st_size == reserve
    take_all_room(filler)
    copied = copy.append_replicated(commits.read(0, size // 4, end=commits.end_offset), wall_ms=0)
    assert 0 < copied < len(committed)
    assert bodies(copy) == committed[:copied]

    filler.unlink()
    store.directory.maintain(2)
    log.append([make_batch(b"room again")], wall_ms=0)
    assert not store.directory.disk_full
    store.flush()
    store.kill()
    store.open_directory()
    assert bodies(store.directory.partition(TOPIC, 1, config)) == committed


@pytest.mark.needs("tmpfs_mount")
def test_commits_go_on_on_a_full_tmpfs_within_half_of_the_reserve(tmp_path: Path, make_store: MakeStore) -> None:
    with tmpfs(tmp_path / "mount", "24m") as mount:
        store = make_store(mount / "store", segment_bytes=256 << 10)
        use_the_reserve(store, mount / "filler")
        store.close()


@pytest.mark.needs("loop_mounts")
def test_commits_go_on_on_a_full_ext4_within_half_of_the_reserve(tmp_path: Path, make_store: MakeStore) -> None:
    make_ext4(tmp_path / "image", 48 << 20)
    with ext4(tmp_path / "image", tmp_path / "mount") as mount:
        store = make_store(mount / "store", segment_bytes=256 << 10)
        use_the_reserve(store, mount / "filler")
        store.close()


@pytest.mark.needs("tmpfs_mount")
def test_a_directory_opens_on_a_full_disk_and_serves_what_it_has(tmp_path: Path, make_store: MakeStore) -> None:
    with tmpfs(tmp_path / "mount", "8m") as mount:
        store = make_store(mount / "store")
        log = store.open()
        log.append([make_batch(b"kept")], wall_ms=0)
        store.flush()
        store.close()
        (store.path / "reserve").unlink()
        space = os.statvfs(mount)
        with open(mount / "filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize)
        log = store.open()
        assert bodies(log) == [b"kept"]
        with pytest.raises(DiskFull):
            log.append([make_batch(bytes(100_000))], wall_ms=0)
        store.close()


def test_without_descriptors_a_flush_of_new_names_is_one_all_the_same(make_store: MakeStore) -> None:
    store = make_store()
    log = store.open()
    log.append([make_batch(b"kept")], wall_ms=0)
    assert log.names_unflushed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        ((_, end_offset),) = flush([log.flush_target()])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert end_offset == 1
    assert store.directory is not None
    assert not store.directory.failed


def test_without_descriptors_old_segments_wait_and_nothing_fails(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384)
    log = store.open()
    sent = []
    for _ in range(60):
        sent.append(os.urandom(1000))
        log.append([make_batch(sent[-1])], wall_ms=0)
    store.flush()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # 0, 1 and 2 are taken
    try:
        with pytest.raises(StorageError, match="Too many open files"):
            log.read(0, 100, end=60)
        log.append([make_batch(b"goes on")], wall_ms=0)
        with pytest.raises(StorageError, match="ulimit"):
            log.roll()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert store.directory is not None
    assert not store.directory.failed
    assert bodies(log)[:61] == [*sent, b"goes on"]
