"""Where an epoch of a log ends, read from its headers."""

from __future__ import annotations

from pathlib import Path

from brokerd.storage.config import LogConfig
from tests.brokerd.storage.stores import Store, make_batch


def test_epochs_end_where_a_greater_one_begins_across_segments_restarts_and_truncation(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", LogConfig(segment_bytes=65536, index_interval_bytes=1024), reserve_bytes=65536)
    starts: dict[int, int] = {}
    for turn in range(4):
        log = store.open()
        starts[log.leader_epoch] = log.end_offset
        for _ in range(30 * (turn != 1)):  # the second leader appends nothing
            log.append([make_batch(bytes(1000), 2)], wall_ms=0)
        store.flush()
        store.close()
    log = store.open()
    assert [starts, log.last_epoch] == [{1: 0, 2: 60, 3: 60, 4: 120}, 4]
    assert [log.epoch_end(epoch) for epoch in range(5)] == [(-1, 0), (1, 60), (1, 60), (3, 120), (4, 180)]
    log.truncate_to(100)
    log.append([make_batch(count=2)], wall_ms=0)
    assert [log.epoch_end(epoch) for epoch in (3, 4, 5)] == [(3, 100), (3, 100), (5, 102)]
    log.delete_records(100)
    store.close()
