"""`forebay log dump|verify` on compacted logs, and on one that is compacted meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ops.cli.log_check as log_check
from brokerd.storage.config import LogConfig
from brokerd.storage.log import Log
from ops.cli.log import log
from tests.brokerd.storage.compaction.cleaning import Item, batch_of, clean, seal
from tests.brokerd.storage.stores import Store, flip


@pytest.fixture
def compacted(tmp_path: Path) -> Iterator[tuple[Store, Log]]:
    config = LogConfig(cleanup_policy="compact", segment_bytes=16384, index_interval_bytes=0)
    store = Store(tmp_path / "store", config, reserve_bytes=65536)
    yield store, store.open()
    store.close()


def fill(store: Store, opened: Log) -> None:
    for number in range(120):
        opened.append([batch_of([Item(b"k%d" % (number % 50), bytes(300)), Item(b"k", b"1")])], wall_ms=0)
    seal(store, opened)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(log, [str(argument) for argument in arguments])


def verified(path: Path) -> dict[str, Any]:
    result = run("verify", path, "--format", "json")
    assert result.exit_code == 0, result.output
    (partition,) = json.loads(result.stdout)["partitions"]
    return dict(partition)


def test_holes_are_counted_and_no_damage(compacted: tuple[Store, Log]) -> None:
    store, opened = compacted
    fill(store, opened)
    assert sum(segment["holes"] for segment in verified(store.partition_path)["segments"]) == 0
    clean(store, opened)
    partition = verified(store.partition_path)
    assert partition["log_end_offset"] == 240
    assert sum(segment["records"] for segment in partition["segments"]) == 51
    assert sum(segment["holes"] for segment in partition["segments"]) == 240 - 51
    assert "189 offsets without a record" in run("verify", store.partition_path).stdout
    dumped = run("dump", store.partition_path, "--records", "--format", "json")
    assert dumped.exit_code == 0, dumped.output
    records = [record for line in dumped.stdout.splitlines() for record in json.loads(line)["records"]]
    assert len(records) == 51


def test_segments_that_are_merged_under_the_check_are_no_damage(
    compacted: tuple[Store, Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, opened = compacted
    fill(store, opened)
    clean(store, opened)
    fill(store, opened)
    listed = log_check._list

    def list_before(directory: Path) -> Any:
        found = listed(directory)
        clean(store, opened)
        return found

    before = opened.segment_count
    monkeypatch.setattr(log_check, "_list", list_before)
    assert verified(store.partition_path)["log_end_offset"] == 480
    assert opened.segment_count < before


def test_a_damaged_hint_of_what_is_compacted_is_named(compacted: tuple[Store, Log]) -> None:
    store, opened = compacted
    fill(store, opened)
    clean(store, opened)
    flip(store.partition_path / "compaction", 20)
    result = run("verify", store.partition_path)
    assert result.exit_code == 1
    assert "how far the log is compacted" in result.output
