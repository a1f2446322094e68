"""A process that hangs is killed by the supervisor and replaced; one that is only let alone goes on where it was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.appliance import TOPIC, ProcessTree
from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.readers import MappedReader, read_back

HUNG_MS = 1500
BEAT_MS_MAX = 1000  # how old a process's last sign of life may be


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[ProcessTree]:
    tree = ProcessTree(tmp_path / "data", brokers=2)
    try:
        yield tree
    finally:
        tree.end()


def test_a_hung_process_is_killed_and_service_resumes(tree: ProcessTree) -> None:
    tree.options = ("--hung-ms", str(HUNG_MS))
    tree.up()
    tree.create_topic(TOPIC, 4)
    history = History(1)
    with (
        MappedReader(tree.data_dir) as mapped,
        Fleet(history, lambda: tree.mqtt_port, devices=20, messages=1_000_000, per_s=400, patience_s=1.0) as fleet,
    ):
        stops: dict[str, float] = {}
        for name in ("broker-1", "controller-1", "mqtt"):
            fleet.await_more(200)
            pid = tree.stop(name)
            stops[name] = time.monotonic()
            tree.await_replaced(name, pid)
            assert time.monotonic() - stops[name] >= (HUNG_MS - BEAT_MS_MAX) / 1000
            tree.await_ready()
            fleet.await_more(200)
        fleet.finish()
        values = read_back(tree.bootstrap, TOPIC, local=True)
        leaders = tree.leaders(TOPIC)
    assert values == read_back(tree.bootstrap, TOPIC, local=False)
    assert history.check(values) == []
    assert mapped.problems == []
    for name, stopped in stops.items():
        served = {
            source
            for source, partition in history.homes(values).items()
            if name not in ("broker-1", "broker-2") or name == f"broker-{leaders[partition]}"
        }
        print(f"{name}: {history.gap_s(stopped, stopped + 1, served):.2f} s without an acknowledgement")


def test_a_broker_stopped_for_a_while_and_not_killed_goes_on(tree: ProcessTree) -> None:
    tree.options = ("--no-kill-hung",)
    tree.up()
    tree.create_topic(TOPIC, 4)
    history = History(2)
    with (
        MappedReader(tree.data_dir) as mapped,
        Fleet(history, lambda: tree.mqtt_port, devices=20, messages=1_000_000, per_s=400, patience_s=1.0) as fleet,
    ):
        fleet.await_more(200)
        pid = tree.stop("broker-1")
        before = fleet.reconnects
        while fleet.reconnects < before + 20:  # its devices come back and send again, more than once
            fleet.await_more(1)  # those of the other broker go on
        os.kill(pid, signal.SIGCONT)
        fleet.await_more(400)
        fleet.finish()
        assert tree.pid("broker-1") == pid
        values = read_back(tree.bootstrap, TOPIC, local=True)
    assert values == read_back(tree.bootstrap, TOPIC, local=False)
    assert history.check(values) == []
    assert mapped.problems == []
