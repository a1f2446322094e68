"""Decoders of what lies on disk and in shared memory: indexes, state page, checkpoint, snapshot, segments, JSON."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from brokerd.storage.checkpoint import (
    PARTITION,
    RECORD_SIZE,
    CheckpointRecord,
    decode_record,
    encode_record,
)
from brokerd.storage.compaction.cleaned import Cleaned, CleanedRange, decode_cleaned, encode_cleaned
from brokerd.storage.identity import read_identity, write_identity
from brokerd.storage.producer_state import AppendedBatch, Producer, ProducerState
from brokerd.storage.snapshot import decode_snapshot, encode_snapshot
from brokerd.storage.walk import find_magic, walk_batches, walk_headers
from ingest.discovery import FORMAT, Appliance, read_appliance, write_appliance
from ingest.log.index import (
    ENTRY_SIZE,
    crc_seed,
    encode_offset_entry,
    encode_time_entry,
    find_offset,
    find_time,
)
from ingest.log.names import parse_file_name, parse_lost_name, parse_partition_name, parse_swap_name
from ingest.log.state_page import (
    PAGE_HEADER_SIZE,
    ROW_SIZE,
    decode_marks,
    decode_page_header,
    encode_marks,
    encode_page_header,
)
from ingest.records.checksum import crc32c
from ingest.records.header import encode_leader_half, verify_header
from tests.fuzz.decoder import Decoder
from tests.fuzz.records import COLUMN_BATCHES, ROW_BATCHES

_SEED = crc_seed(1000)
_OFFSET_INDEX = b"".join(encode_offset_entry(_SEED, 10 * i, 800 * i, 3) for i in range(40))
_TIME_INDEX = b"".join(encode_time_entry(_SEED, 1_700_000_000_000 + i, 10 * i) for i in range(40))


def _read_offset_index(data: bytes) -> object:
    def entry(i: int) -> bytes:
        return data[i * ENTRY_SIZE : (i + 1) * ENTRY_SIZE]

    return [find_offset(_SEED, entry, len(data) // ENTRY_SIZE, wanted) for wanted in (0, 55, 1 << 31)]


def _read_time_index(data: bytes) -> object:
    def entry(i: int) -> bytes:
        return data[i * ENTRY_SIZE : (i + 1) * ENTRY_SIZE]

    return [find_time(_SEED, entry, len(data) // ENTRY_SIZE, wanted) for wanted in (0, 1_700_000_000_005, 1 << 62)]


def _page() -> bytes:
    copies = [encode_marks(sequence, 3, 0, 77, 5, 0, 90, 100, 0) for sequence in (1, 2, 2**32 - 1, 0)]
    return encode_page_header(2, 5) + b"".join(copies)


def _read_page(data: bytes) -> object:
    rows = (len(data) - PAGE_HEADER_SIZE) // ROW_SIZE
    return decode_page_header(data), [decode_marks(data, row) for row in range(rows)]


def _checkpoint() -> bytes:
    records = [
        CheckpointRecord(kind=kind, topic_id=bytes(range(16)), partition=kind, recovery_point=5) for kind in range(1, 5)
    ]
    assert records[0].kind == PARTITION
    return b"".join(map(encode_record, records))


def _read_checkpoint(data: bytes) -> object:
    return [decode_record(data, position) for position in range(0, len(data) - RECORD_SIZE + 1, RECORD_SIZE)]


def _snapshot_body() -> bytes:
    state = ProducerState()
    state.producer_id_max = 9
    state.producers = {
        i: Producer(1, 50, [AppendedBatch(0, 4, 100, 104, 7), AppendedBatch(5, 5, 105, 105, 8)]) for i in range(5)
    }
    return encode_snapshot(500, 60, state)[16:]


def _read_snapshot(body: bytes) -> object:
    """Mutations are of the body; its CRC is made to fit, or nothing behind it would be reached."""
    data = struct.pack("<8sII", b"FBYSNAP\x01", crc32c(body), len(body)) + body
    snapshot = decode_snapshot(data, 500)
    return snapshot and snapshot.state()


def _cleaned_body() -> bytes:
    return encode_cleaned(Cleaned([CleanedRange(10 * i, i, i + 1, 3) for i in range(1, 6)]))[16:]


def _read_cleaned(body: bytes) -> object:
    """As for snapshots."""
    return decode_cleaned(struct.pack("<8sII", b"FBYCOMP\x01", crc32c(body), len(body)) + body)


@cache
def _scratch() -> Path:
    """Return a directory of this process's on tmpfs, removed with it."""
    holder = tempfile.TemporaryDirectory(prefix="forebay-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    _KEPT.append(holder)
    return Path(holder.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _segment() -> bytes:
    """Lay batches one after another, as a leader does."""
    data, offset = b"", 0
    for batch in COLUMN_BATCHES + ROW_BATCHES:
        head = encode_leader_half(batch, base_offset=offset, leader_epoch=2, append_time_ms=1, high_watermark=offset)
        offset = verify_header(head).next_offset
        data += head + batch[len(head) :]
        data += bytes(-len(data) % 8)
    return data


def _walk(walk: Callable[[int, int], Iterable[object]]) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        fd = os.memfd_create("segment", os.MFD_CLOEXEC)
        try:
            os.write(fd, data)
            return sum(1 for _ in walk(fd, len(data)))
        finally:
            os.close(fd)

    return read


def decode_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return a decoder that writes its input to a file and reads it from there, given the folder."""

    def decode(data: bytes) -> object:
        (_scratch() / name).write_bytes(data)
        return read(_scratch())

    return decode


def _nested_json() -> list[bytes]:
    return [b"[" * 60_000, b'{"format":' * 6_000, b'{"format":1,"other":' + b"[" * 60_000]


def _appliance() -> bytes:
    write_appliance(
        _scratch(),
        Appliance(
            format=FORMAT, cluster_id="c", incarnation=1, run_dir="/run/x", boot_id="b", brokers=["ipc:///run/x/b"]
        ),
    )
    return (_scratch() / "appliance.json").read_bytes()


def _identity() -> bytes:
    write_identity(_scratch(), "cluster", 1, 0o640)
    return (_scratch() / "directory.json").read_bytes()


def _read_names(data: bytes) -> object:
    name = os.fsdecode(data)
    return parse_file_name(name), parse_lost_name(name), parse_swap_name(name), parse_partition_name(name)


def decoders() -> Iterable[Decoder]:
    """Return the decoders of files."""
    yield Decoder("offset_index", [_OFFSET_INDEX], _read_offset_index)
    yield Decoder("time_index", [_TIME_INDEX], _read_time_index)
    yield Decoder("state_page", [_page()], _read_page)
    yield Decoder("checkpoint", [_checkpoint()], _read_checkpoint)
    yield Decoder("snapshot", [_snapshot_body()], _read_snapshot, bombs=lambda: [b"\x94" + b"\x91" * 100_000])
    yield Decoder("compaction", [_cleaned_body()], _read_cleaned, bombs=lambda: [b"\x91" * 100_000])
    segments = [_segment(), _segment() + bytes(4096)]
    yield Decoder("walk_headers", segments, _walk(lambda fd, end: walk_headers(fd, 0, end, 0)))
    yield Decoder("walk_batches", segments, _walk(lambda fd, end: walk_batches(fd, 0, end, 0)))
    yield Decoder("find_magic", segments, _walk(lambda fd, end: find_magic(fd, 0, end)))
    yield Decoder("appliance_json", [_appliance()], decode_file("appliance.json", read_appliance), bombs=_nested_json)
    yield Decoder("directory_json", [_identity()], decode_file("directory.json", read_identity), bombs=_nested_json)
    names = [b"00000000000000000123.log", b"00000000000000000001-00000000000000000002.lost"]
    names.append(b"00000000000000000001-00000000000000000002-0123456789abcdef.swap")
    yield Decoder("file_names", [*names, b"01234567-89ab-cdef-0123-456789abcdef-12"], _read_names)
