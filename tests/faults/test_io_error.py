"""A disk that fails under one broker: no acknowledgement from the cache, no loss once it answers again, others go on.

The disk is an image file on a tmpfs with no room left: a write-back fails for real, and the kernel then calls the
pages clean. strace's EIO would leave them dirty, and hide the bug this is about.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.brokerd.storage.mounts import ext4, make_ext4, one_page_requests, tmpfs
from tests.faults.appliance import TOPIC, ProcessTree, await_value
from tests.faults.disks import FAILING, MEMORY_BYTES, fill
from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.native import FIRST_SOURCE, NativeProducer
from tests.faults.readers import MappedReader, read_back
from tests.faults.trial import Trial

PARTITIONS = 4
DEVICE_BYTES = 64 << 20


@pytest.mark.timeout(200)
@pytest.mark.needs("loop_mounts", "tmpfs_mount")
def test_a_disk_that_fails_costs_nothing_that_was_acknowledged(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    rounds = 4 if pytestconfig.getoption("--long") else 1
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    dice = random.Random(seed)
    history = History(seed)
    tree = ProcessTree(tmp_path / "data", brokers=2)
    home = tree.data_dir / "brokers" / str(FAILING)
    failed = tree.data_dir / "failed"
    failure = f"{home} failed"
    with ExitStack() as outer:
        small = outer.enter_context(tmpfs(tmp_path / "small", str(MEMORY_BYTES)))
        image = small / "image"
        make_ext4(image, DEVICE_BYTES, journal=False)
        with ExitStack() as stack:
            one_page_requests(stack.enter_context(ext4(image, home, "errors=continue")))
            stack.callback(tree.end)
            tree.up()
            tree.create_topic(TOPIC, PARTITIONS, segment_bytes="262144")
            mapped = stack.enter_context(MappedReader(tree.data_dir, seed=seed))
            fleet = stack.enter_context(
                Fleet(history, lambda: tree.mqtt_port, devices=30, messages=1_000_000, per_s=600, patience_s=2.0)
            )
            natives = [
                stack.enter_context(NativeProducer(history, tree.bootstrap, TOPIC, source=FIRST_SOURCE + number))
                for number in range(4)
            ]
            for _ in range(rounds):
                fleet.await_more(dice.randint(100, 800))
                filler = fill(small)
                await_value(lambda: any(failed.iterdir()), "the directory to be marked failed", 60, tree.log_tail)
                broken = time.monotonic()
                await_value(lambda: failure in tree.process(f"broker-{FAILING}").reason, failure, 30, tree.log_tail)
                fleet.await_more(200)  # of the other broker's devices
                filler.unlink()
                await_value(lambda: not any(failed.iterdir()), "the directory to be salvaged", 60, tree.log_tail)
                tree.await_ready()
                fleet.await_more(600)
                print(f"failed for {time.monotonic() - broken:.1f} s")
            fleet.finish()
            for native in natives:
                native.finish()
                assert native.failures == []
            by_map = read_back(tree.bootstrap, TOPIC, local=True)
            assert by_map == read_back(tree.bootstrap, TOPIC, local=False)
            assert history.check(by_map) == []
            assert mapped.problems == []
            tree.kill_everything()
        with ExitStack() as stack:  # what the device itself has
            stack.enter_context(ext4(image, home))
            again = ProcessTree(tree.data_dir, brokers=2)
            stack.callback(again.end)
            again.up()
            assert read_back(again.bootstrap, TOPIC, local=False) == by_map


@pytest.mark.timeout(600)
@pytest.mark.needs("loop_mounts", "tmpfs_mount")
def test_of_three_copies_the_others_take_over_from_one_whose_disk_fails(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    tree = ProcessTree(tmp_path / "data")
    failed = tree.data_dir / "failed"
    with ExitStack() as stack:
        small = stack.enter_context(tmpfs(tmp_path / "small", str(MEMORY_BYTES)))
        make_ext4(small / "image", DEVICE_BYTES, journal=False)
        for broker in range(1, tree.brokers + 1):  # three disks: what is left when one fails is enough copies
            home = tree.data_dir / "brokers" / str(broker)
            if broker == FAILING:
                one_page_requests(stack.enter_context(ext4(small / "image", home, "errors=continue")))
            else:
                stack.enter_context(tmpfs(home, f"{4 * DEVICE_BYTES}"))
        stack.callback(tree.end)
        tree.up()
        trial = stack.enter_context(Trial(tree, random.randrange(10**9), segment_bytes="262144"))
        for _ in range(4 if pytestconfig.getoption("--long") else 1):
            trial.fleet.await_more(trial.dice.randint(100, 800))
            filler = fill(small)
            await_value(lambda: any(failed.iterdir()), "the directory to be marked failed", 60, tree.log_tail)
            broken = time.monotonic()
            trial.await_leaders_but(FAILING)
            before = trial.history.acknowledged_so_far()

            def go_on(before: dict[int, frozenset[int]] = before) -> bool:
                now = trial.history.acknowledged_so_far()
                return all(len(now[source]) > len(seqs) for source, seqs in before.items())

            await_value(go_on, "all devices to go on", 10, tree.log_tail)
            print(f"all go on {time.monotonic() - broken:.1f} s after the failure")
            filler.unlink()
            await_value(lambda: not any(failed.iterdir()), "the directory to be salvaged", 60, tree.log_tail)
            trial.await_in_sync()
            trial.prefer_leaders()
        trial.judge()
