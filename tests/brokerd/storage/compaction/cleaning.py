"""Compaction in one process: real batches in, a run carried out at once, a crash wherever a test wants one."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import NamedTuple

import pytest

import brokerd.storage.compaction.run as run_module
import brokerd.storage.compaction.swap as swap_module
from brokerd.storage.compaction.job import Done, Report
from brokerd.storage.compaction.run import Run
from brokerd.storage.log import Log
from ingest.log.reader import LocalLog
from ingest.records.batch import decode_batch, encode_batch
from ingest.records.columns import Headers
from ingest.records.header import BatchHeader, encode_producer_half, hop_headers, verify_batch
from ingest.records.rows import Row, encode_rows
from tests.brokerd.storage.stores import TOPIC, Store

NO_LIMIT = 2**62
MAP_BYTES = 1 << 20


class Item(NamedTuple):
    """One record as its producer made it."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = 1000


class Crash(Exception):
    """The process ends here."""


def batch_of(
    items: Iterable[Item], *, rows: bool = False, codec: int = 0, producer: tuple[int, int, int] = (-1, -1, -1)
) -> bytes:
    """Return a batch as a native producer or, with `rows`, a Kafka client makes it."""
    records = list(items)
    identity = dict(zip(("producer_id", "producer_epoch", "base_sequence"), producer, strict=True))
    stamps = [item.timestamp_ms for item in records]
    if not rows:
        heads = [item.headers for item in records]
        return encode_batch(
            stamps,
            [item.key for item in records],
            [item.value for item in records],
            heads if any(heads) else None,
            codec=codec,
            **identity,
        )
    body = encode_rows(
        Row(delta, item.timestamp_ms, item.key, item.value, item.headers) for delta, item in enumerate(records)
    )
    half = encode_producer_half(
        body,
        attributes=0,
        base_timestamp_ms=stamps[0],
        max_timestamp_ms=max(stamps),
        record_count=len(records),
        last_offset_delta=len(records) - 1,
        uncompressed_size=len(body),
        **identity,
    )
    return half + body


def decoded(data: bytes | memoryview) -> list[tuple[BatchHeader, list[tuple[int, Item]]]]:
    """Return batches laid one after another as (header, [(offset, record)])."""
    found = []
    for position, header in hop_headers(data):
        batch = memoryview(data)[position : position + header.size]
        verify_batch(batch, header)
        records = decode_batch(batch, "t", 0, header).to_records()
        found.append((header, [(r.offset, Item(r.key, r.value, r.headers, r.timestamp_ms)) for r in records]))
    return found


def read_log(log: Log, max_bytes: int = 1 << 20) -> list[tuple[int, Item]]:
    """Read everything through the broker's path."""
    found: list[tuple[int, Item]] = []
    offset = log.start_offset
    while offset < log.end_offset:
        for header, records in decoded(log.read(offset, max_bytes, end=log.end_offset)):
            found += [record for record in records if record[0] >= log.start_offset]
            assert header.next_offset > offset
            offset = header.next_offset
    return found


def read_map(store: Store, log: Log, max_bytes: int = 20_000) -> list[tuple[int, Item]]:
    """Read everything below the high watermark from the mapped segments."""
    reader = LocalLog(store.path, store.page_path, log.row, TOPIC, log.partition)
    found: list[tuple[int, Item]] = []
    offset = log.start_offset
    while batches := reader.read(offset, max_bytes):
        for header, batch in batches:
            records = decode_batch(batch, "t", 0, header).to_records()
            found += [
                (r.offset, Item(r.key, r.value, r.headers, r.timestamp_ms))
                for r in records
                if r.offset >= log.start_offset
            ]
            offset = header.next_offset
    return found


def seal(store: Store, log: Log) -> None:
    """Have everything that was appended sealed, flushed and checkpointed, so that a run may take it."""
    assert store.directory is not None
    if log._active.size:
        log.roll()
    store.flush()
    store.directory.checkpoint()


def clean(
    store: Store,
    log: Log,
    *,
    limit: int = NO_LIMIT,
    map_bytes: int = MAP_BYTES,
    crash_at: int = -1,
    names: list[str] | None = None,
) -> Done | None:
    """Carry out one run; None: there was nothing to do.

    Args:
        limit: Below it no replica needs tombstones.
        crash_at: Which failpoint it passes ends the process, by number.
        names: Takes the names of those it passes.
    Raises:
        Crash: there.
    """
    passed = 0

    def failpoint(name: str) -> None:
        nonlocal passed
        if names is not None:
            names.append(name)
        passed += 1
        if passed == crash_at + 1:
            raise Crash(name)

    dirt = log.dirt()
    purge_end = log.compaction.purge_end(log.config, dirt, limit=limit)
    if not dirt.dirty_bytes and not log.compaction.cleaned.has_tombstones(log.start_offset, purge_end):
        return None
    done: list[Done] = []
    run = os.urandom(8).hex()
    job = log.begin_compaction(dirt, run, purge_end=purge_end, map_bytes_max=map_bytes, io_bytes_per_s=0)

    def report(what: Report) -> None:
        if isinstance(what, Done):
            done.append(what)
        log.compaction.take(run, what)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "failpoint", failpoint)
        patch.setattr(swap_module, "failpoint", failpoint)
        Run(job, random.randbytes(16), report).run()
        while (ended := log.compaction.step(log.config)) is None:
            log._disk.join_background()
    assert ended == ""
    return done[0]


def age(store: Store, boot_ms: int) -> None:
    """Let running time pass, up to what the boot clock shows."""
    assert store.directory is not None
    store.directory.maintain(boot_ms)
