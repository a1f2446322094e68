"""Whole batches: records to bytes for the producer, bytes to columns or Record objects for the consumer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ingest.errors import CorruptBatch
from ingest.limits import LIMITS
from ingest.records.columns import (
    BinaryColumn,
    ColumnsBody,
    Encodable,
    Headers,
    columns_parts,
    decode_columns,
    encode_columns,
    encode_stamps,
)
from ingest.records.compression import compress_if_smaller, decompress
from ingest.records.header import (
    ATTRIBUTE_COLUMNS,
    HEADER_SIZE,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    BatchHeader,
    decode_header,
    encode_producer_half,
    nbytes,
)
from ingest.records.rows import decode_rows

if TYPE_CHECKING:
    from typing_extensions import Buffer


_NO_STRINGS = BinaryColumn(0, np.empty(0, np.uint8), width=0)
_NO_RECORDS = ColumnsBody(np.empty(0, np.int64), _NO_STRINGS, _NO_STRINGS)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record as `poll` gives it; key and value as the deserializers made them.

    Attributes:
        leader_epoch: Of the leader that appended it: a log that was cut and grew again shows by it (KIP-320).
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: Any
    value: Any
    headers: Headers = ()
    leader_epoch: int = -1


class Columns(msgspec.Struct, frozen=True):
    """The records of one stored batch as arrays; views over the mapped segment where that is possible.

    Attributes:
        offsets: (n,) int64, strictly ascending.
        timestamps_ms: (n,) int64.
        keys, values: BinaryColumn of n, or a typed array (n,) where the topic declares `value.dtype`.
        header_ids: (n,) int32 into `header_dictionary`; None where no record has headers.
        next_offset: the offset after the batch, where the next one starts or later.
    """

    topic: str
    partition: int
    base_offset: int
    next_offset: int
    leader_epoch: int
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    keys: BinaryColumn
    values: Any
    header_ids: NDArray[np.int32] | None = None
    header_dictionary: list[Headers] = []

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def headers(self) -> list[Headers]:
        """The headers of each record, n tuples of (name, value)."""
        if self.header_ids is None:
            return [()] * len(self.offsets)
        dictionary = self.header_dictionary
        return [dictionary[index] for index in self.header_ids.tolist()]

    def __getitem__(self, rows: slice) -> Columns:
        """Return the records of a slice with step 1. Zero copy for columns of one width and typed arrays."""
        return msgspec.structs.replace(
            self,
            offsets=self.offsets[rows],
            timestamps_ms=self.timestamps_ms[rows],
            keys=_slice(self.keys, rows),
            values=_slice(self.values, rows),
            header_ids=None if self.header_ids is None else self.header_ids[rows],
        )

    def to_records(self, key: Any = None, value: Any = None) -> list[Record]:
        """Return n Record objects, keys and values through the deserializers given. Cost: one object each."""
        keys = self.keys.to_list()
        values = self.values.to_list() if isinstance(self.values, BinaryColumn) else self.values.tolist()
        if key is not None:
            keys = [None if item is None else key(item) for item in keys]
        if value is not None:
            values = [None if item is None else value(item) for item in values]
        topic, partition = self.topic, self.partition
        offsets, stamps = self.offsets.tolist(), self.timestamps_ms.tolist()
        headers: Iterable[Headers] = repeat(()) if self.header_ids is None else self.headers
        epoch = repeat(self.leader_epoch)
        # a third faster than a comprehension
        return list(map(Record, repeat(topic), repeat(partition), offsets, stamps, keys, values, headers, epoch))


def _slice(column: Any, rows: slice) -> Any:
    return column.rows(rows) if isinstance(column, BinaryColumn) else column[rows]


def encode_batch(
    timestamps_ms: Sequence[float] | NDArray[np.int64],
    keys: Encodable,
    values: Encodable,
    headers: Sequence[Headers | None] | None = None,
    *,
    codec: int = 0,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    base_sequence: int = NO_SEQUENCE,
) -> bytes:
    """Encode n >= 1 records as one batch with a columns body, leader half empty.

    Args:
        timestamps_ms: (n,) milliseconds since 1970-01-01 UTC.
        keys, values, headers: as in `encode_columns`.
        codec: Kafka's number of the compression, 0 for none; left out where it gains nothing or where readers would
            take the result for a bomb.
    """
    assert len(timestamps_ms) > 0, "a batch holds at least one record"
    stamps = encode_stamps(timestamps_ms)
    parts = columns_parts(stamps, keys, values, headers)
    plain_size = sum(map(nbytes, parts))
    if codec:
        codec, body = compress_if_smaller(codec, b"".join(parts))
        parts = [body]
    header = encode_producer_half(
        *parts,
        attributes=ATTRIBUTE_COLUMNS | codec,
        base_timestamp_ms=stamps.first_ms,
        max_timestamp_ms=stamps.greatest_ms,
        record_count=stamps.length,
        last_offset_delta=stamps.length - 1,
        uncompressed_size=plain_size,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
    )
    return b"".join((header, *parts))


def decode_batch(
    batch: Buffer, topic: str, partition: int, header: BatchHeader | None = None, value_dtype: Any = None
) -> Columns:
    """Decode one verified batch into columns; views over `batch` unless it is compressed or has a rows body.

    Args:
        batch: One whole batch whose CRC was checked.
        value_dtype: numpy dtype of the values, from the topic's `value.dtype`.
    Raises:
        CorruptBatch, DecompressedTooLarge, UnsupportedFormat: the body does not hold what the header says.
    """
    view = memoryview(batch)
    if header is None:
        header = decode_header(view)
    count = header.record_count
    columns = decode_body(view, header)
    stamps = columns.timestamps_ms
    if header.is_log_append_time:
        stamps = np.broadcast_to(np.int64(header.append_time_ms), (count,))
    offsets = record_offsets(columns, header)
    values: Any = columns.values
    if (
        value_dtype is not None
        and columns.values.valid is None
        and columns.values.width == np.dtype(value_dtype).itemsize
    ):
        values = columns.values.as_array(value_dtype)
    return Columns(
        topic,
        partition,
        header.base_offset,
        header.next_offset,
        header.leader_epoch,
        offsets,
        stamps,
        columns.keys,
        values,
        columns.header_ids,
        columns.header_dictionary,
    )


def decode_body(batch: Buffer, header: BatchHeader) -> ColumnsBody:
    """Decode the body of one verified batch, of either kind and any codec; views over `batch` where that is possible.

    A batch without records has no body: compaction leaves its header, for its sequence or its leader epoch.

    Raises:
        CorruptBatch, DecompressedTooLarge, UnsupportedFormat: the body does not hold what the header says.
    """
    count = header.record_count
    if count > LIMITS.batch_records_max:
        raise CorruptBatch(f"{count} records in a batch > {LIMITS.batch_records_max}")
    if count == 0 and header.body_size == 0:
        return _NO_RECORDS
    body: Buffer = memoryview(batch)[HEADER_SIZE : header.size]
    if header.codec:
        body = decompress(
            header.codec,
            body,
            size=header.uncompressed_size or None,
            size_max=LIMITS.decompressed_bytes_max,
            ratio_max=LIMITS.decompression_ratio_max,
        )
    if header.is_columns:
        return decode_columns(body, count, header.base_timestamp_ms)
    return _columns_of_rows(body, header)


def record_offsets(columns: ColumnsBody, header: BatchHeader) -> NDArray[np.int64]:
    """Return (n,) the offsets of a batch's records.

    Raises:
        CorruptBatch: they are not those the header speaks of.
    """
    count = header.record_count
    if columns.offset_deltas is None:
        if count and count != header.last_offset_delta + 1:
            raise CorruptBatch(f"{count} records without deltas in {header.last_offset_delta + 1} offsets")
        return np.arange(header.base_offset, header.base_offset + count, dtype=np.int64)
    if count and int(columns.offset_deltas[-1]) > header.last_offset_delta:
        raise CorruptBatch("offset delta beyond the last")
    offsets: NDArray[np.int64] = columns.offset_deltas + np.int64(header.base_offset)
    return offsets


def _columns_of_rows(body: Buffer, header: BatchHeader) -> ColumnsBody:
    """Convert a rows body on the reader's CPU."""
    rows = decode_rows(body, header)
    headers = [row.headers for row in rows]
    deltas = np.fromiter((row.offset_delta for row in rows), "<i4", len(rows))
    stamps = np.fromiter((row.timestamp_ms for row in rows), "<i8", len(rows))
    plain = encode_columns(
        stamps,
        [row.key for row in rows],
        [row.value for row in rows],
        headers if any(headers) else None,
        None if len(rows) == header.last_offset_delta + 1 else deltas,
    )
    return decode_columns(plain, len(rows), int(stamps[0]) if len(rows) else 0)
