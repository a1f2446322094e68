"""`forebay log dump`: batch headers, records and index entries as they lie in the files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from brokerd.storage.walk import walk_headers
from ingest.errors import CorruptBatch, ForebayError
from ingest.log.index import ENTRY_SIZE, crc_seed, decode_offset_entry, decode_time_entry
from ingest.log.names import INDEX, LOG, TIME_INDEX, parse_file_name
from ingest.records.batch import decode_batch
from ingest.records.compression import CODEC_NUMBERS
from ingest.records.header import BatchHeader, verify_batch
from ops.cli.json_record import record_json

_CODECS = {number: name for name, number in CODEC_NUMBERS.items()}


def dump_segment(path: Path, *, records: bool, start: int, limit: int | None, form: str) -> str | None:
    """Print the batches of one segment from offset `start` on; return why reading ended early, None if it did not.

    Raises:
        OSError: the file may not be read.
    """
    name = parse_file_name(path.name)
    base = name[0] if name else 0
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        end = os.fstat(fd).st_size
        try:
            for position, header in walk_headers(fd, 0, end, base):
                if header.last_offset < start:
                    continue
                if limit is not None:
                    if limit == 0:
                        return None
                    limit -= 1
                _print_batch(fd, path, position, header, records, form)
        except (CorruptBatch, ForebayError) as error:
            return f"{path}: {error}"
    finally:
        os.close(fd)
    return None


def _print_batch(fd: int, path: Path, position: int, header: BatchHeader, records: bool, form: str) -> None:
    batch = os.pread(fd, header.size, position)
    try:
        verify_batch(batch, header)
        problem = ""
    except CorruptBatch as error:
        problem = str(error)
    fields = _fields(position, header, problem)
    if form == "json":
        if records and not problem:
            fields["records"] = [json.loads(line) for line in _records(batch, header)]
        click.echo(json.dumps(fields))
        return
    click.echo(_line(fields))
    if records and not problem:
        for line in _records(batch, header):
            record = json.loads(line)
            del record["topic"], record["partition"]
            click.echo("    " + json.dumps(record, ensure_ascii=False))


def _fields(position: int, header: BatchHeader, problem: str) -> dict[str, Any]:
    return {
        "position": position,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "records": header.record_count,
        "size": header.size,
        "leader_epoch": header.leader_epoch,
        "append_time": header.append_time_ms,
        "high_watermark": header.high_watermark,
        "base_timestamp": header.base_timestamp_ms,
        "max_timestamp": header.max_timestamp_ms,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "codec": _CODECS.get(header.codec, str(header.codec)),
        "body": "columns" if header.is_columns else "rows",
        "log_append_time": header.is_log_append_time,
        "crc": problem or "ok",
    }


def _line(fields: dict[str, Any]) -> str:
    stamp = datetime.fromtimestamp(fields["append_time"] / 1000, UTC).isoformat(timespec="milliseconds")
    producer = ""
    if fields["producer_id"] >= 0:
        producer = f"producer={fields['producer_id']}/{fields['producer_epoch']} seq={fields['base_sequence']} "
    return (
        f"@{fields['base_offset']}..{fields['last_offset']} position={fields['position']} size={fields['size']} "
        f"records={fields['records']} epoch={fields['leader_epoch']} hw={fields['high_watermark']} {producer}"
        f"{fields['body']}/{fields['codec']} appended={stamp} crc={fields['crc']}"
    )


def _records(batch: bytes, header: BatchHeader) -> Iterator[bytes]:
    for record in decode_batch(batch, "", -1, header).to_records():
        yield record_json(record)


def dump_index(path: Path, form: str) -> str | None:
    """Print the entries of an index file; return what is wrong with one, None if nothing is."""
    name = parse_file_name(path.name)
    assert name is not None
    base, suffix = name
    seed, entries = crc_seed(base), path.read_bytes()
    problem = None
    for at in range(0, len(entries) - ENTRY_SIZE + 1, ENTRY_SIZE):
        entry = entries[at : at + ENTRY_SIZE]
        fields: dict[str, Any] = {"entry": at // ENTRY_SIZE}
        try:
            if suffix == INDEX:
                relative, position, epoch = decode_offset_entry(seed, entry)
                fields |= {"offset": base + relative, "position": position, "leader_epoch": epoch}
            else:
                timestamp_ms, relative = decode_time_entry(seed, entry)
                fields |= {"offset": base + relative, "max_timestamp_below": timestamp_ms}
        except CorruptBatch as error:
            problem = f"{path}: entry {at // ENTRY_SIZE} at byte {at}: {error}"
            fields["error"] = str(error)
        click.echo(json.dumps(fields) if form == "json" else " ".join(f"{k}={v}" for k, v in fields.items()))
    return problem


def files_to_dump(path: Path) -> list[Path]:
    """Return the file itself, or the segments of a partition directory in order."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix == LOG and parse_file_name(file.name))
    return [path]


def is_index(path: Path) -> bool:
    name = parse_file_name(path.name)
    return name is not None and name[1] in (INDEX, TIME_INDEX)
