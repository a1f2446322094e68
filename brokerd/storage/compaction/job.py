"""What a broker tells the compaction worker to do, and what it hears back: one JSON object a line."""

from __future__ import annotations

import msgspec


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run over one log.

    Attributes:
        directory: The partition's. Whatever becomes of its name, the worker writes into the directory it opened.
        run: 16 hex digits, which name the run's files; nobody else writes files of that name.
        bases: Base offsets of the segments that may be rewritten, from the log's first one on.
        end_offset: Where the last of them ends: below the high watermark, and flushed.
        log_start: Records below were deleted.
        dirty_offset: Below it each key has one record; a batch begins there, unless it is the log start.
        dirty_hint: (offset, position) of a batch in the segment that holds `dirty_offset`, at or below it.
        purge_end: Tombstones below it are dropped; not above `dirty_offset`.
        range_ends: Ends of the ranges whose tombstones are counted, ascending, up to `dirty_offset`.
        kept_batches: Base offsets of batches by which producers are known.
        map_bytes_max: For the table of keys.
        io_bytes_per_s: What may be read and written; 0: no bound.
    """

    directory: str
    run: str
    bases: list[int]
    end_offset: int
    log_start: int
    dirty_offset: int
    dirty_hint: tuple[int, int]
    purge_end: int
    range_ends: list[int]
    kept_batches: list[int]
    segment_bytes: int
    index_interval_bytes: int
    file_mode: int
    map_bytes_max: int
    io_bytes_per_s: int = 0


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """The worker is alive; bytes since its last report."""

    read_bytes: int
    written_bytes: int


class Cleaned(msgspec.Struct, frozen=True, tag="cleaned"):
    """New files, flushed, for all segments in [base_offset, end_offset)."""

    base_offset: int
    end_offset: int
    size_bytes: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The run is over, and every `Cleaned` was told.

    Attributes:
        cleaned_end: Below it each key has one record now, once what was told is in place.
        tombstones: That are left in each of the job's ranges and, at last, in what was dirty; -1: not counted.
        keys: In what was dirty.
        records_read, records_dropped: Of all segments read.
    """

    cleaned_end: int
    tombstones: list[int]
    keys: int
    records_read: int
    records_dropped: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The run has ended without success.

    Attributes:
        kind: "damage": stored bytes are not what was written. "gone": a segment was deleted meanwhile. "full": no room.
            "error": anything else.
    """

    kind: str
    reason: str


Report = Progress | Cleaned | Done | Failed

decode_job = msgspec.json.Decoder(Job).decode
decode_report = msgspec.json.Decoder(Report).decode
encode = msgspec.json.Encoder().encode
