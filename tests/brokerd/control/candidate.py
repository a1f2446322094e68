"""Candidates for controller as processes that a test may kill: `python -m tests.brokerd.control.candidate MODE …`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from brokerd.control.config import ControllerConfig
from brokerd.control.embedded import EmbeddedStore
from brokerd.control.process import run
from brokerd.control.records import PartitionRecord, ProducerIdsRecord, Put, TopicRecord, VersionRecord
from ingest.errors import DiskFull
from tests.brokerd.control.harness import CLUSTER_ID, ThreadLifeline


def say(text: str) -> None:
    """One line to the test, through the pipe at once."""
    os.write(1, text.encode() + b"\n")


def commit_for_ever(directory: str) -> None:
    """Commit pairs of records that belong together; say which are durable. Ends by SIGKILL."""
    store = EmbeddedStore(directory, cluster_id=CLUSTER_ID)
    epoch = store.campaign(ThreadLifeline().stop_fd, lambda: None)
    assert epoch is not None
    say(f"epoch {epoch}")
    version = store.load().version
    while True:
        version += 1
        store.commit(
            [Put(VersionRecord(version)), Put(ProducerIdsRecord(version * 1000))],
            controller_epoch=epoch,
        )
        say(f"acked {version}")


def fill_the_disk(directory: str) -> None:
    """Run out of space on a small file system, refuse cleanly, go on once there is room."""
    store = EmbeddedStore(os.path.join(directory, "controller"), cluster_id=CLUSTER_ID)
    epoch = store.campaign(ThreadLifeline().stop_fd, lambda: None)
    assert epoch is not None
    filler = os.open(os.path.join(directory, "filler"), os.O_CREAT | os.O_WRONLY, 0o600)
    chunk, size = 1 << 20, 0
    while chunk >= 4096:
        try:
            os.posix_fallocate(filler, size, chunk)
            size += chunk
        except OSError:
            chunk //= 2
    version = 0

    def commit(kilobytes: int) -> None:
        nonlocal version
        big = TopicRecord(bytes(16), "t", {"x": "y" * 1024 * kilobytes})
        partition = PartitionRecord(topic_id=bytes(16), partition=0, leader=1, replicas=[1], isr=[1])
        store.commit([Put(big), Put(partition), Put(VersionRecord(version + 1))], controller_epoch=epoch)
        version += 1

    # the log of SQLite may have room left; the reserve then gives more: what a full disk takes is some commits, not any
    while version < 10_000:
        try:
            commit(200)
        except DiskFull:
            break
    say(f"commits {version}")
    assert version > 0, "the reserve was not given up"
    for _ in range(3):
        with pytest.raises(DiskFull, match="disk is full"):
            commit(200)
    os.ftruncate(filler, 0)
    commit(200)
    commit(1)
    store.resign()
    again = EmbeddedStore(os.path.join(directory, "controller"), cluster_id=CLUSTER_ID)
    assert again.campaign(ThreadLifeline().stop_fd, lambda: None) == epoch + 1
    assert os.path.exists(os.path.join(directory, "controller", "reserve"))
    assert again.load().version == version
    say("ok")


class _SayingLifeline(ThreadLifeline):
    def ready(self) -> None:
        say("ready")


def be_controller(directory: str, endpoint: str) -> None:
    """Be a whole controller process; says when it is active."""
    say("started")
    config = ControllerConfig(directory=directory, cluster_id=CLUSTER_ID, endpoint=endpoint)
    run(config, _SayingLifeline())


if __name__ == "__main__":
    modes: dict[str, Callable[..., None]] = {
        "commit": commit_for_ever,
        "full": fill_the_disk,
        "controller": be_controller,
    }
    modes[sys.argv[1]](*sys.argv[2:])
