"""Candidates for controller as processes that a test may kill: `python -m tests.brokerd.control.candidate MODE …`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import pytest
import structlog

from brokerd.control.config import ControllerConfig
from brokerd.control.embedded import EmbeddedStore
from brokerd.control.process import run
from brokerd.control.records import PartitionRecord, ProducerIdsRecord, Put, TopicRecord, VersionRecord
from brokerd.control.zookeeper.store import ZookeeperStore
from ingest.errors import DiskFull, Fenced, StorageError
from tests.brokerd.control.harness import (
    CLUSTER_ID,
    SESSION_MS,
    Candidate,
    ThreadLifeline,
    open_store,
    partition_record,
)

PARTITIONS = 1000


def say(text: str) -> None:
    """One line to the test, through the pipe at once."""
    os.write(1, text.encode() + b"\n")


def commit_for_ever(at: str) -> None:
    """Commit pairs of records that belong together; say which are durable. Ends by SIGKILL."""
    candidate = Candidate(open_store(at))
    version = candidate.win().version
    say(f"epoch {candidate.epoch}")
    while True:
        version += 1
        candidate.put(VersionRecord(version), ProducerIdsRecord(version * 1000))
        say(f"acked {version}")


def commit_partitions(at: str, request_bytes_max: str) -> None:
    """Change all partitions of a topic in each commit, for ever, in one transaction or through the journal."""
    candidate = Candidate(open_store(at, request_bytes_max=int(request_bytes_max)))
    version = candidate.win().version
    say("ready")
    topic = TopicRecord(bytes(range(16)), "t", {})
    while True:
        version += 1
        rows = [partition_record(topic.topic_id, n, 1, [1], [1], version, version) for n in range(PARTITIONS)]
        candidate.put(VersionRecord(version), topic, *rows)
        say(f"acked {version}")


def commit_when_told(at: str) -> None:
    """Win, commit once, and again for each line that is read; say what came of it."""
    store = ZookeeperStore(
        at.removeprefix("zookeeper:"),
        cluster_id=CLUSTER_ID,
        endpoint="",
        machine="this-machine",
        session_timeout_ms=SESSION_MS,
    )
    candidate = Candidate(store)
    version = candidate.win().version + 1
    store.register_broker(1)
    while store.absent({1}):
        time.sleep(0.01)
    candidate.put(VersionRecord(version))
    say(f"active {candidate.epoch}")
    for _ in sys.stdin:
        version += 1
        try:
            candidate.put(VersionRecord(version))
            say(f"acked {version}")
        except (Fenced, StorageError) as error:
            say(f"{type(error).__name__} {error}")


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
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for `say`
    modes: dict[str, Callable[..., None]] = {
        "commit": commit_for_ever,
        "partitions": commit_partitions,
        "told": commit_when_told,
        "full": fill_the_disk,
        "controller": be_controller,
    }
    modes[sys.argv[1]](*sys.argv[2:])
