"""SIGKILL at each named failpoint, and power cuts: nothing acknowledged is lost, nothing half-written is shown."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.log.reader import LocalLog
from tests.brokerd.storage.crashing_writer import body
from tests.brokerd.storage.mounts import ext4, make_ext4
from tests.brokerd.storage.stores import TOPIC, Store, bodies, make_batch

MakeStore = Callable[..., Store]

KILLS = [
    "storage.before_write=kill@7",
    "storage.after_write=kill@31",
    "storage.before_sync=kill@5",
    "storage.after_sync=kill@9",
    "storage.before_publish=kill@20",
    "storage.page_one_copy=kill@21",
    "storage.mid_roll=kill@1",
    "storage.mid_roll=kill@2",
    "storage.before_replace=kill@3",
    "storage.before_replace=kill@6",
]


def run_writer(root: Path, first: int, failpoints: str, durability: str) -> int:
    """Run the writer until a failpoint kills it; return the last batch it acknowledged, -1 for none."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.brokerd.storage.crashing_writer", str(root), str(first), durability],
        env={**os.environ, "FOREBAY_FAILPOINTS": failpoints},
        capture_output=True,
        timeout=60,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    lines = done.stdout.split()
    return int(lines[-1]) if lines else -1


@pytest.mark.parametrize("failpoint", KILLS)
def test_a_kill_at_any_failpoint_loses_nothing_acknowledged(make_store: MakeStore, failpoint: str) -> None:
    store = make_store(segment_bytes=65536)
    acknowledged = run_writer(store.root, 0, failpoint, "fsync")
    log = store.open()
    found = bodies(log)
    assert len(found) > acknowledged
    assert found == [body(number) for number in range(len(found))]
    assert log.high_watermark > acknowledged, "the high watermark went back"
    (repeated,) = log.append([make_batch(found[-1], producer=(1, 0, len(found) - 1))], wall_ms=0)
    assert repeated.duplicate
    log.append([make_batch(b"next", producer=(1, 0, len(found)))], wall_ms=0)
    store.flush()
    reader = LocalLog(store.path, store.page_path, log.row, TOPIC, 0)
    read = [bytes(batch[96:]) for _, batch in reader.read(0, 1 << 30)]
    assert read == [*found, b"next"]


def test_a_kill_during_recovery_changes_nothing(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=65536)
    acknowledged = run_writer(store.root, 0, "storage.after_write=kill@40", "fsync")
    for failpoint in ("storage.mid_recovery=kill@1", "storage.mid_recovery=kill@1", "storage.before_publish=kill@1"):
        run_writer(store.root, 10**5, failpoint, "fsync")
    found = bodies(store.open())
    assert len(found) == 40 > acknowledged
    assert found == [body(number) for number in range(40)]


@pytest.mark.needs("loop_mounts")
def test_after_a_power_cut_nothing_acknowledged_is_missing(tmp_path: Path, make_store: MakeStore) -> None:
    """The image of a file system that writes nothing on its own accord, copied right after an ack."""
    make_ext4(tmp_path / "image", 64 << 20)
    images: list[tuple[Path, int]] = []
    with ext4(tmp_path / "image", tmp_path / "mount", "commit=300,noauto_da_alloc") as mount:
        store = make_store(mount / "store", segment_bytes=65536)
        store.page_path = tmp_path / "page-before"
        log = store.open()
        for number in range(60):
            log.append([make_batch(body(number), producer=(1, 0, number))], wall_ms=0)
            if number % 4 == 3:
                store.flush()
            if number == 30 and store.directory is not None:
                store.directory.checkpoint()
            if number in (3, 5, 34, 59):
                image = tmp_path / f"crash-{number}"
                subprocess.run(["cp", "--sparse=always", tmp_path / "image", image], check=True)
                images.append((image, log.flushed_end))
        store.kill()
        del log
    for image, acknowledged in images:
        with ext4(image, tmp_path / "mount") as mount:
            after = make_store(mount / "store", segment_bytes=65536)
            after.page_path = tmp_path / f"page-{image.name}"  # tmpfs does not survive
            log = after.open()
            assert log.end_offset >= acknowledged, image.name
            assert bodies(log) == [body(number) for number in range(log.end_offset)]
            landed = log.append([make_batch(b"v", producer=(1, 0, log.end_offset))], wall_ms=0)
            assert not landed[0].duplicate
            after.close()


def test_a_power_cut_that_keeps_pages_at_random_leaves_a_clean_prefix(make_store: MakeStore) -> None:
    """Write-back has no order: each page since the last flush is the old one or the new one."""
    import random

    for seed in range(12):
        lottery = random.Random(seed)
        store = make_store()
        log = store.open()
        for number in range(8):
            log.append([make_batch(body(number), producer=(1, 0, number))], wall_ms=0)
        store.flush()
        path = store.partition_path / f"{0:020d}.log"
        before = path.read_bytes()
        for number in range(8, 24):
            log.append([make_batch(body(number), producer=(1, 0, number))], wall_ms=0)
        after = path.read_bytes()
        before = before.ljust(len(after), b"\0")
        store.kill()
        pages = [(before if lottery.random() < 0.5 else after)[at : at + 4096] for at in range(0, len(after), 4096)]
        path.write_bytes(b"".join(pages))
        store.page_path.unlink()
        log = store.open()
        found = bodies(log)
        assert 8 <= len(found) <= 24, seed
        assert found == [body(number) for number in range(len(found))], seed
        log.append([make_batch(b"more")], wall_ms=0)
        assert bodies(store.reopen()) == [*found, b"more"], seed
        store.kill()
        shutil.rmtree(store.root)
