"""A stored batch with some or all of its records taken out, as compaction leaves it. Pure: a header and columns in.

What others rely on stays: base offset and last offset delta, so that offsets keep their holes; the leader's half but
for its CRC; the producer's id, epoch and base sequence; the codec; each record's offset, time, key, value and headers.

Source: docs/format/batch.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingest.limits import LIMITS
from ingest.records.columns import (
    BinaryColumn,
    CodedHeaders,
    ColumnsBody,
    Stamps,
    columns_parts,
    encode_stamps,
)
from ingest.records.compression import compress_if_smaller
from ingest.records.header import (
    ATTRIBUTE_COLUMNS,
    BatchHeader,
    encode_leader_half,
    encode_producer_half,
    nbytes,
)
from ingest.records.rows import Row, encode_rows

if TYPE_CHECKING:
    from typing_extensions import Buffer


def thin_batch(header: BatchHeader, columns: ColumnsBody, rows: NDArray[np.intp]) -> list[Buffer] | None:
    """Return the parts of a batch that holds only some of its records: the header of 96 bytes, then the body.

    None: offset deltas make it larger than a batch may be, as columns and as rows.

    Args:
        header, columns: Of the batch as it is stored; a rows body was made columns.
        rows: (m,) ascending row numbers, m >= 1.
    Cost: one copy of what stays, and the codec.
    """
    deltas = rows if columns.offset_deltas is None else columns.offset_deltas[rows]
    stamps = encode_stamps(columns.timestamps_ms[rows])
    parts = columns_parts(
        stamps,
        _taken(columns.keys, rows),
        _taken(columns.values, rows),
        _taken_headers(columns, rows),
        np.asarray(deltas, "<i4"),
    )
    thinned = _packed(header, stamps, parts, ATTRIBUTE_COLUMNS)
    return thinned or _packed(header, stamps, [_as_rows(columns, rows, deltas)], 0)


def empty_batch(header: BatchHeader) -> bytes:
    """Return a batch in which none of the records are left: a header with no body behind it."""
    stamps = Stamps(b"", header.base_timestamp_ms, header.max_timestamp_ms, 0)
    return _sealed(header, stamps, [], ATTRIBUTE_COLUMNS, 0)


def _taken(column: BinaryColumn, rows: NDArray[np.intp]) -> BinaryColumn | None:
    """Return some of the strings, None for nothing but nulls."""
    taken = column.take(rows)
    return None if taken.valid is not None and not taken.valid.any() else taken


def _taken_headers(columns: ColumnsBody, rows: NDArray[np.intp]) -> CodedHeaders | None:
    if columns.header_ids is None:
        return None
    used, ids = np.unique(columns.header_ids[rows], return_inverse=True)
    dictionary = [columns.header_dictionary[entry] for entry in used.tolist()]
    return CodedHeaders(np.asarray(ids, "<i4"), dictionary) if any(dictionary) else None


def _as_rows(columns: ColumnsBody, rows: NDArray[np.intp], deltas: NDArray[np.integer]) -> bytes:
    keys, values = columns.keys.to_list(), columns.values.to_list()
    ids, dictionary = columns.header_ids, columns.header_dictionary
    return encode_rows(
        Row(
            delta,
            int(columns.timestamps_ms[row]),
            keys[row],
            values[row],
            dictionary[ids[row]] if ids is not None else (),
        )
        for row, delta in zip(rows.tolist(), deltas.tolist(), strict=True)
    )


def _packed(header: BatchHeader, stamps: Stamps, parts: list[Buffer], attributes: int) -> list[Buffer] | None:
    """Return header and body, None where readers or the log would refuse them for their size."""
    plain_size = sum(map(nbytes, parts))
    if plain_size > LIMITS.decompressed_bytes_max:
        return None
    codec = header.codec
    if codec:
        codec, body = compress_if_smaller(codec, b"".join(parts))
        parts = [body]
    if sum(map(nbytes, parts)) > LIMITS.batch_bytes_max:
        return None
    return [_sealed(header, stamps, parts, attributes | codec, plain_size), *parts]


def _sealed(header: BatchHeader, stamps: Stamps, body: list[Buffer], attributes: int, plain_size: int) -> bytes:
    """Return the header of a batch in place of another: CRCs, counts, times and sizes are new."""
    producers_half = encode_producer_half(
        *body,
        attributes=attributes,
        base_timestamp_ms=stamps.first_ms,
        max_timestamp_ms=stamps.greatest_ms,
        record_count=stamps.length,
        last_offset_delta=header.last_offset_delta,
        uncompressed_size=plain_size,
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
    )
    return encode_leader_half(
        producers_half,
        base_offset=header.base_offset,
        leader_epoch=header.leader_epoch,
        append_time_ms=header.append_time_ms,
        high_watermark=header.high_watermark,
        leader_flags=header.leader_flags,
    )
