"""The wall clock jumps under a running appliance: nothing expires, nobody is elected, nothing stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.admin import Admin
from ingest.consumer import Consumer
from tests import machine
from tests.faults.appliance import TOPIC, ProcessTree, await_value
from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.readers import MappedReader, read_back

HOUR_S, YEAR_S = 3600, 365 * 86_400
ACKNOWLEDGED_WITHIN_S = 3.0
RETENTION_MS = 600_000

# libfaketime 0.9.10 answers EINVAL to the sleep until a monotonic time that is Python's `time.sleep`.
SLEEP_FOR_A_WHILE = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds)
"""


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """What the clock is off by, as libfaketime reads it."""
    path = tmp_path / "clock"
    path.write_text("+0\n")
    return path


@pytest.fixture
def tree(tmp_path: Path, clock: Path) -> Iterator[ProcessTree]:
    tree = ProcessTree(tmp_path / "data", brokers=2)
    (tmp_path / "sitecustomize.py").write_text(SLEEP_FOR_A_WHILE)
    tree.environment = {
        "PYTHONPATH": str(tmp_path),
        "LD_PRELOAD": str(machine.faketime_library()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # no jump of the wall clock moves that one
    }
    try:
        tree.up()
        yield tree
    finally:
        tree.end()


@pytest.mark.needs("faketime")
def test_a_jump_of_the_wall_clock_expires_elects_and_loses_nothing(tree: ProcessTree, clock: Path) -> None:
    tree.create_topic(TOPIC, 4, segment_bytes="16384", retention_ms=str(RETENTION_MS))
    history = History(1)
    pids = {name: tree.pid(name) for name in tree.names()}
    with Admin(tree.bootstrap) as admin:
        epochs = [item.leader_epoch for item in admin.describe_topic(TOPIC).partitions]
    with (
        MappedReader(tree.data_dir) as mapped,
        Consumer(tree.bootstrap, topics=[TOPIC], auto_offset_reset="earliest") as consumer,
        Fleet(history, lambda: tree.mqtt_port, devices=20, messages=1_000_000, per_s=400) as fleet,
    ):

        def follows(offset_s: int) -> bool:
            """Whether records arrive that were stamped by the clock as it is now."""
            due_ms = (time.time() + offset_s) * 1000
            return any(abs(record.timestamp_ms - due_ms) < 60_000 for record in consumer.poll(100, 10_000))

        for offset_s in (0, HOUR_S, -HOUR_S, YEAR_S, -YEAR_S, 0):
            clock.write_text(f"{offset_s:+d}\n")
            jumped = time.monotonic()
            await_value(lambda offset_s=offset_s: follows(offset_s), f"records stamped {offset_s:+d} s", 15)
            fleet.await_more(200)
            gap_s = history.gap_s(jumped, jumped + 3)
            assert gap_s < ACKNOWLEDGED_WITHIN_S, f"{gap_s} s without an acknowledgement after a jump to {offset_s:+d}"
        fleet.finish()
        values = read_back(tree.bootstrap, TOPIC, local=True)
        assert {name: tree.pid(name) for name in tree.names()} == pids
    assert values == read_back(tree.bootstrap, TOPIC, local=False)
    assert history.check(values) == []
    assert mapped.problems == []
    with Admin(tree.bootstrap) as admin:
        assert [item.leader_epoch for item in admin.describe_topic(TOPIC).partitions] == epochs
