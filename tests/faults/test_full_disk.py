"""One broker's disk fills up: its devices wait, nothing is lost, reads go on, and it recovers once there is room."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import msgspec
import pytest

from brokerd.serving.stats import BrokerStats
from brokerd.storage.disk import EXTENT_BYTES_MIN
from ingest.wire.codes import ErrorCode
from ops.metrics.stats import MonitorStats
from tests.brokerd.storage.mounts import ext4, make_ext4, tmpfs
from tests.faults.appliance import TOPIC, ProcessTree, await_value
from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.native import FIRST_SOURCE, NativeProducer
from tests.faults.raw import produce_once
from tests.faults.readers import MappedReader, read_back

FULL, ROOMY = 1, 2  # broker ids
PARTITIONS = 4
SIZE_BYTES = 64 << 20
KEPT_BYTES = 256 << 10  # of the room, for a moment: it fills while messages come in


def on_tmpfs(target: Path, folder: Path) -> AbstractContextManager[Path]:
    return tmpfs(target, f"{SIZE_BYTES}")


def on_ext4(target: Path, folder: Path) -> AbstractContextManager[Path]:
    make_ext4(folder / "image", SIZE_BYTES)
    return ext4(folder / "image", target)


def fill(mount: Path) -> Path:
    """Take all room but a little; return the file that holds it."""
    filler = mount / "filler"
    space = os.statvfs(mount)
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - KEPT_BYTES)
    return filler


def broker_stats(tree: ProcessTree, broker: int) -> BrokerStats:
    return msgspec.json.decode(tree.identity(f"broker-{broker}").stats, type=BrokerStats)


def refusals(tree: ProcessTree) -> int:
    return broker_stats(tree, FULL).errors_total.get("KAFKA_STORAGE_ERROR", 0)


def reasons(tree: ProcessTree) -> list[str]:
    return msgspec.json.decode(tree.identity("monitor").stats, type=MonitorStats).reasons


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(on_tmpfs, marks=pytest.mark.needs("tmpfs_mount")),
        pytest.param(on_ext4, marks=pytest.mark.needs("loop_mounts")),
    ],
)
def test_a_full_disk_refuses_cleanly_and_recovers_by_itself(
    tmp_path: Path, make: Callable[[Path, Path], AbstractContextManager[Path]]
) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    history = History(seed)
    tree = ProcessTree(tmp_path / "data", brokers=2)
    with ExitStack() as stack:
        mount = stack.enter_context(make(tree.data_dir / "brokers" / str(FULL), tmp_path))
        stack.callback(tree.end)
        tree.up()
        topic_id = tree.create_topic(TOPIC, PARTITIONS, segment_bytes="65536")
        leaders = tree.leaders(TOPIC)
        on_full = next(partition for partition, broker in leaders.items() if broker == FULL)
        mapped = stack.enter_context(MappedReader(tree.data_dir, seed=seed))
        fleet = stack.enter_context(
            Fleet(history, lambda: tree.mqtt_port, devices=30, messages=1_000_000, per_s=600, patience_s=2.0)
        )
        natives = [
            stack.enter_context(NativeProducer(history, tree.bootstrap, TOPIC, source=FIRST_SOURCE + number))
            for number in range(4)
        ]
        fleet.await_more(500)
        pid = tree.pid(f"broker-{FULL}")

        filler = fill(mount)
        await_value(lambda: refusals(tree) > 0, "a refusal", 30, tree.log_tail)
        code, message = produce_once(tree.run_dir / f"broker-{FULL}.sock", topic_id, on_full, EXTENT_BYTES_MIN)
        assert code is ErrorCode.KAFKA_STORAGE_ERROR
        assert "disk full" in message
        await_value(lambda: any("disk is full" in reason for reason in reasons(tree)), "the monitor to tell", 10)
        fleet.await_more(300)  # of the other broker's devices
        for local in (True, False):
            acknowledged = history.acknowledged_so_far()
            values = read_back(tree.bootstrap, TOPIC, local=local)
            assert history.check(values, acknowledged) == [], (
                "an acknowledged record can't be read while the disk is full"
            )
        sources = {
            source for source, home in history.homes(values).items() if home == on_full and source < FIRST_SOURCE
        }
        held = {source: len(seqs) for source, seqs in history.acknowledged_so_far().items() if source in sources}
        await_value(lambda: fleet.reconnects > 0, "devices to lose their patience", 10)

        filler.unlink()
        freed = time.monotonic()
        await_value(
            lambda: all(
                len(seqs) > held.get(s, 0) for s, seqs in history.acknowledged_so_far().items() if s in sources
            ),
            "the held devices to go on",
            30,
            tree.log_tail,
        )
        print(f"going on {time.monotonic() - freed:.2f} s after there was room")
        assert tree.pid(f"broker-{FULL}") == pid, "it was restarted"
        await_value(lambda: not reasons(tree), "the monitor to be content", 10)
        fleet.finish()
        for native in natives:
            native.finish()
            assert native.failures == []
        by_map = read_back(tree.bootstrap, TOPIC, local=True)
        assert by_map == read_back(tree.bootstrap, TOPIC, local=False)
        assert history.check(by_map) == []
        assert mapped.problems == []
        assert not broker_stats(tree, FULL).directory_failed


@pytest.mark.needs("tmpfs_mount")
def test_an_appliance_starts_on_a_full_disk_and_serves_what_it_has(tmp_path: Path) -> None:
    history = History(1)
    tree = ProcessTree(tmp_path / "data", brokers=2)
    with ExitStack() as stack:
        mount = stack.enter_context(tmpfs(tree.data_dir / "brokers" / str(FULL), f"{SIZE_BYTES}"))
        stack.callback(tree.end)
        tree.up()
        tree.create_topic(TOPIC, PARTITIONS, segment_bytes="65536")
        fleet = stack.enter_context(
            Fleet(history, lambda: tree.mqtt_port, devices=20, messages=1_000_000, per_s=600, patience_s=2.0)
        )
        fleet.await_more(500)
        filler = fill(mount)
        await_value(lambda: refusals(tree) > 0, "a refusal", 30, tree.log_tail)
        tree.kill_everything()
        tree.up()
        acknowledged = history.acknowledged_so_far()
        values = read_back(tree.bootstrap, TOPIC, local=True)
        assert history.check(values, acknowledged) == []
        filler.unlink()
        fleet.finish()
        values = read_back(tree.bootstrap, TOPIC, local=True)
        assert values == read_back(tree.bootstrap, TOPIC, local=False)
        assert history.check(values) == []
