"""The columns body: one batch of records as a directory of buffers in Arrow's physical layout.

    offset  size  field
    ------  ----  -----------------------------------------------------------------------------------
         0     2  version, 1
         2     2  flags: bit 0 every key is null, bit 1 every value is null
         4     4  key width: bytes of each key, 0xFFFFFFFF where they differ
         8     4  value width, likewise
        12     4  number of buffers, 11
        16    44  length in bytes of each buffer
        60     4  zero
        64        the buffers in this order, each at a multiple of 8, zeros between

    0 timestamps     int64[n]     absent: all are the header's base timestamp
    1 key offsets    int32[n+1]   absent where keys have one width
    2 key data
    3 key validity   bit i of byte i/8, least first; absent: none is null (or all, see flags)
    4 value offsets  5 value data  6 value validity
    7 offset deltas  int32[n]     absent: dense
    8 header ids     int32[n]     index into the dictionary; absent: no record has headers
    9 header offsets int32[m+1]   of the dictionary's m entries
   10 header data    each entry is the msgpack of a list of [key, value or nil]

Source: docs/format/columns.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ingest.errors import CorruptBatch, UnsupportedFormat
from ingest.limits import LIMITS
from ingest.records.header import nbytes

if TYPE_CHECKING:
    from typing_extensions import Buffer

_Part = Any  # bytes or a contiguous array: the type checker does not know that arrays are buffers
Headers = tuple[tuple[str, bytes | None], ...]

COLUMNS_VERSION = 1
VARIABLE_WIDTH = 0xFFFFFFFF
FLAG_NO_KEYS = 0x1
FLAG_NO_VALUES = 0x2
DIRECTORY_SIZE = 64
_BUFFERS = 11
FEW = 32  # records; numpy's cost for each call is more than Python's for these
_DIRECTORY = struct.Struct("<HHIII11I4x")
assert _DIRECTORY.size == DIRECTORY_SIZE
_PADDING = tuple(bytes(-n % 8) for n in range(8))

_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]]).decode
_NO_OFFSETS = np.empty(0, np.int32)


class BinaryColumn(Sequence[bytes | None]):
    """n byte strings over one buffer, some of them null; indexing makes `bytes`, the buffers stay views.

    Attributes:
        data: (total,) uint8, the strings one after another.
        offsets: (n+1,) int32 into `data`; empty where all strings have `width` bytes.
        width: bytes of each string, -1 where they differ.
        valid: (n,) bool, False where null; None where none is null.
    """

    __slots__ = ("_length", "data", "offsets", "valid", "width")

    def __init__(
        self,
        length: int,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int32] = _NO_OFFSETS,
        width: int = -1,
        valid: NDArray[np.bool_] | None = None,
    ) -> None:
        self._length = length
        self.data = data
        self.offsets = offsets
        self.width = width
        self.valid = valid

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.to_list()[index]
        if index < 0:
            index += self._length
        if not 0 <= index < self._length:
            raise IndexError(index)
        if self.valid is not None and not self.valid[index]:
            return None
        if self.width >= 0:
            return self.data[index * self.width : (index + 1) * self.width].tobytes()
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes | None]:
        return iter(self.to_list())

    def to_list(self) -> list[bytes | None]:
        """Return the strings as n `bytes` objects. Cost: one copy."""
        strings: list[bytes | None]
        if self.valid is not None and not self.valid.any():
            return [None] * self._length
        if self.width > 0:
            strings = self.data.view(f"V{self.width}").tolist()
        elif self.width == 0:
            strings = [b""] * self._length
        else:
            data = self.data.tobytes()
            ends = self.offsets.tolist()
            strings = [data[start:end] for start, end in pairwise(ends)]
        if self.valid is not None:
            for index in np.flatnonzero(~self.valid).tolist():
                strings[index] = None
        return strings

    def rows(self, rows: slice) -> BinaryColumn:
        """Return the strings of a slice with step 1. Zero copy of data."""
        start, stop, step = rows.indices(self._length)
        assert step == 1, "rows are contiguous"
        stop = max(start, stop)
        valid = None if self.valid is None else self.valid[start:stop]
        if self.width >= 0:
            data = self.data[start * self.width : stop * self.width] if len(self.data) else self.data
            return BinaryColumn(stop - start, data, width=self.width, valid=valid)
        offsets = self.offsets[start : stop + 1]
        return BinaryColumn(stop - start, self.data[offsets[0] : offsets[-1]], offsets - offsets[0], valid=valid)

    def take(self, rows: NDArray[np.intp]) -> BinaryColumn:
        """Return the strings of ascending row numbers. Cost: one copy of them."""
        valid = None if self.valid is None else self.valid[rows]
        if valid is not None and valid.all():
            valid = None
        if self.width == 0 or not len(self.data) or not len(rows):  # all empty, or all null
            return BinaryColumn(len(rows), self.data[:0], width=0, valid=valid)
        if self.width > 0:
            data = self.data.view(f"V{self.width}")[rows].view(np.uint8)
            return BinaryColumn(len(rows), data, width=self.width, valid=valid)
        offsets = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(self.offsets[rows + 1] - self.offsets[rows], out=offsets[1:])
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        firsts, lasts = rows[np.r_[0, breaks]], rows[np.r_[breaks - 1, len(rows) - 1]]
        view, target, at = self.data.data, np.empty(int(offsets[-1]), np.uint8), 0
        copy = target.data
        for start, end in zip(self.offsets[firsts].tolist(), self.offsets[lasts + 1].tolist(), strict=True):
            copy[at : at + end - start] = view[start:end]
            at += end - start
        return BinaryColumn(len(rows), target, offsets, valid=valid)

    def as_array(self, dtype: Any) -> NDArray[Any]:
        """View the strings as one typed array (n,); zero copy.

        Raises:
            ValueError: they have no common width, it is not the dtype's, or some are null.
        """
        wanted = np.dtype(dtype)
        if self.width != wanted.itemsize or self.valid is not None:
            raise ValueError(f"column is not {self._length} x {wanted.itemsize} bytes without nulls")
        return self.data.view(wanted)


class Stamps(NamedTuple):
    """The timestamps of a batch, encoded: `part` is empty where all are the same."""

    part: _Part
    first_ms: int
    greatest_ms: int
    length: int


class CodedHeaders(NamedTuple):
    """The headers of n records as a body keeps them: (n,) int32 ids into a dictionary of distinct lists."""

    ids: NDArray[np.int32]
    dictionary: list[Headers]


class ColumnsBody(msgspec.Struct, frozen=True):
    """A decoded columns body: views over the buffer it was decoded from.

    Attributes:
        timestamps_ms: (n,) int64.
        offset_deltas: (n,) int32, or None where dense.
        header_ids: (n,) int32 into `header_dictionary`, or None where no record has headers.
    """

    timestamps_ms: NDArray[np.int64]
    keys: BinaryColumn
    values: BinaryColumn
    offset_deltas: NDArray[np.int32] | None = None
    header_ids: NDArray[np.int32] | None = None
    header_dictionary: list[Headers] = []


Encodable = Sequence[bytes | None] | NDArray[Any] | BinaryColumn | None


def encode_stamps(timestamps_ms: Sequence[float] | NDArray[np.int64]) -> Stamps:
    """Encode n timestamps, milliseconds since 1970-01-01 UTC, fractions cut off; of none, all are 0."""
    count = len(timestamps_ms)
    if count < FEW:
        few = [int(stamp) for stamp in timestamps_ms] or [0]
        least, greatest = min(few), max(few)
        return Stamps(b"" if least == greatest else struct.pack(f"<{count}q", *few), few[0], greatest, count)
    if isinstance(timestamps_ms, list):  # through float64, as most are: half the time of a list to int64
        timestamps_ms = np.fromiter(timestamps_ms, np.float64, count)
    stamps = np.asarray(timestamps_ms, "<i8")
    least, greatest = int(stamps.min()), int(stamps.max())
    return Stamps(b"" if least == greatest else stamps, int(stamps[0]), greatest, count)


def encode_columns(
    timestamps_ms: Sequence[float] | NDArray[np.int64],
    keys: Encodable,
    values: Encodable,
    headers: Sequence[Headers | None] | None = None,
    offset_deltas: NDArray[np.int32] | None = None,
) -> bytes:
    """Encode n records as a columns body.

    Args:
        timestamps_ms: (n,) milliseconds since 1970-01-01 UTC.
        keys, values: n byte strings or None; or an array (n,) of a fixed-size dtype; or a BinaryColumn; None: all null.
        headers: n tuples of (name, value); None where no record has any.
        offset_deltas: (n,) int32, ascending from 0, where offsets have holes.
    Cost: one copy of all data.
    """
    return b"".join(columns_parts(encode_stamps(timestamps_ms), keys, values, headers, offset_deltas))


def columns_parts(
    stamps: Stamps,
    keys: Encodable,
    values: Encodable,
    headers: Sequence[Headers | None] | CodedHeaders | None = None,
    offset_deltas: NDArray[np.int32] | None = None,
) -> list[_Part]:
    """Encode as `encode_columns`; the parts, one after another, are the body. Cost: no copy of what comes as arrays."""
    count = stamps.length
    key_width, key_buffers, no_keys = _encode_strings(keys, count)
    value_width, value_buffers, no_values = _encode_strings(values, count)
    buffers = (
        stamps.part,
        *key_buffers,
        *value_buffers,
        b"" if offset_deltas is None else np.ascontiguousarray(offset_deltas, "<i4"),
        *((b"", b"", b"") if headers is None else _encode_dictionary(headers)),
    )
    lengths = [nbytes(part) for part in buffers]
    flags = (FLAG_NO_KEYS if no_keys else 0) | (FLAG_NO_VALUES if no_values else 0)
    parts: list[_Part] = [
        _DIRECTORY.pack(COLUMNS_VERSION, flags, key_width, value_width, _BUFFERS, *lengths),
    ]
    for buffer, length in zip(buffers, lengths, strict=True):
        if length:
            parts.append(buffer)
            if length & 7:
                parts.append(_PADDING[length & 7])
    return parts


def _encode_strings(strings: Encodable, count: int) -> tuple[int, tuple[_Part, _Part, _Part], bool]:
    """Return (width, (offsets, data, validity), all null)."""
    if strings is None:
        return 0, (b"", b"", b""), True
    if isinstance(strings, np.ndarray):
        array = np.ascontiguousarray(strings)
        assert array.shape[0] == count, f"{array.shape[0]} strings for {count} records"
        return (array.nbytes // count if count else 0), (b"", array.reshape(-1).view(np.uint8), b""), False
    if isinstance(strings, BinaryColumn):
        bits: _Part = b"" if strings.valid is None else np.packbits(strings.valid, bitorder="little")
        width = strings.width if strings.width >= 0 else VARIABLE_WIDTH
        return width, (strings.offsets, strings.data, bits), False
    assert len(strings) == count, f"{len(strings)} strings for {count} records"
    validity: _Part = b""
    try:
        data = b"".join(strings)  # type: ignore[arg-type]
    except TypeError:  # a None among them
        valid = np.fromiter((string is not None for string in strings), np.bool_, count)
        if not valid.any():
            return 0, (b"", b"", b""), True
        validity = np.packbits(valid, bitorder="little")
        strings = [string or b"" for string in strings]
        data = b"".join(strings)  # type: ignore[arg-type]
    widths = set(map(len, strings))  # type: ignore[arg-type]
    if len(widths) <= 1:
        return max(widths, default=0), (b"", data, validity), False
    offsets = np.zeros(count + 1, "<i4")
    np.cumsum(np.fromiter(map(len, strings), "<i4", count), out=offsets[1:])  # type: ignore[arg-type]
    return VARIABLE_WIDTH, (offsets, data, validity), False


def _encode_dictionary(headers: Sequence[Headers | None] | CodedHeaders) -> tuple[_Part, _Part, _Part]:
    """Return (ids, offsets, data), the distinct header lists stored once."""
    if isinstance(headers, CodedHeaders):
        return headers.ids, *_encode_entries(headers.dictionary)
    ids: dict[Headers, int] = {}
    index = []
    last: object = ids  # nothing that an entry is
    number = 0
    for entry in headers:
        if entry is not last:  # one object for a run of records need not be hashed for each
            last = entry
            number = ids.setdefault(entry or (), len(ids))
        index.append(number)
    return np.array(index, "<i4"), *_encode_entries(ids)


def _encode_entries(dictionary: Iterable[Headers]) -> tuple[_Part, _Part]:
    entries = [_encode_headers(entry) for entry in dictionary]
    offsets = np.zeros(len(entries) + 1, "<i4")
    np.cumsum([len(entry) for entry in entries], out=offsets[1:])
    return offsets, b"".join(entries)


def decode_columns(body: Buffer, count: int, base_timestamp_ms: int) -> ColumnsBody:
    """Decode a columns body of `count` records into views over it.

    Raises:
        CorruptBatch: lengths, offsets or ids that contradict each other or pass the end.
        UnsupportedFormat: a newer version.
    Cost: O(count) only to check offsets and ids; no copy of data.
    """
    view = memoryview(body).cast("B")
    size = view.nbytes
    if size < DIRECTORY_SIZE:
        raise CorruptBatch(f"columns body of {size} bytes has no directory")
    version, flags, key_width, value_width, buffer_count, *lengths = _DIRECTORY.unpack_from(view)
    if version != COLUMNS_VERSION or buffer_count != _BUFFERS:
        raise UnsupportedFormat(f"columns body version {version} with {buffer_count} buffers; this is version 1")
    position = DIRECTORY_SIZE
    parts: list[memoryview] = []
    for length in lengths:
        parts.append(view[position : position + length])
        position += (length + 7) & -8
        if position > size + 7 or parts[-1].nbytes != length:
            raise CorruptBatch(f"columns body of {size} bytes is cut short")
    if parts[0].nbytes:
        timestamps = _array(parts[0], "<i8", count, "timestamps")
    else:
        timestamps = np.broadcast_to(np.int64(base_timestamp_ms), (count,))
    keys = _decode_strings("key", count, key_width, parts[1:4], bool(flags & FLAG_NO_KEYS))
    values = _decode_strings("value", count, value_width, parts[4:7], bool(flags & FLAG_NO_VALUES))
    deltas = None
    if parts[7].nbytes:
        deltas = _array(parts[7], "<i4", count, "offset deltas")
        if count and (deltas[0] < 0 or (np.diff(deltas) <= 0).any()):
            raise CorruptBatch("offset deltas do not ascend")
    if not parts[8].nbytes:
        return ColumnsBody(timestamps, keys, values, deltas)
    ids = _array(parts[8], "<i4", count, "header ids")
    dictionary = _decode_dictionary(parts[9], parts[10], count)
    if count and (int(ids.min()) < 0 or int(ids.max()) >= len(dictionary)):
        raise CorruptBatch("header id outside the dictionary")
    return ColumnsBody(timestamps, keys, values, deltas, ids, dictionary)


def _array(part: memoryview, dtype: str, count: int, what: str) -> NDArray[Any]:
    if part.nbytes != count * np.dtype(dtype).itemsize:
        raise CorruptBatch(f"{what}: {part.nbytes} bytes for {count} records")
    return np.frombuffer(part, dtype)


def _decode_strings(what: str, count: int, width: int, parts: list[memoryview], all_null: bool) -> BinaryColumn:
    offset_part, data_part, validity_part = parts
    if all_null:
        return BinaryColumn(count, np.empty(0, np.uint8), width=0, valid=np.zeros(count, np.bool_))
    data = np.frombuffer(data_part, np.uint8)
    valid = None
    if validity_part.nbytes:
        if validity_part.nbytes != (count + 7) // 8:
            raise CorruptBatch(f"{what} validity: {validity_part.nbytes} bytes for {count} records")
        valid = np.unpackbits(np.frombuffer(validity_part, np.uint8), count=count, bitorder="little").view(np.bool_)
    if width != VARIABLE_WIDTH:
        if data_part.nbytes != width * count:
            raise CorruptBatch(f"{what} data: {data_part.nbytes} bytes for {count} x {width}")
        return BinaryColumn(count, data, width=width, valid=valid)
    offsets = _array(offset_part, "<i4", count + 1, f"{what} offsets")
    if offsets[0] != 0 or offsets[-1] != data_part.nbytes or (offsets[1:] < offsets[:-1]).any():
        raise CorruptBatch(f"{what} offsets do not ascend from 0 to {data_part.nbytes}")
    return BinaryColumn(count, data, offsets, valid=valid)


def _decode_dictionary(offset_part: memoryview, data_part: memoryview, count: int) -> list[Headers]:
    """Decode at most one entry a record; counts are read before objects are made, for three bytes make a hundred."""
    if offset_part.nbytes < 8 or offset_part.nbytes % 4 or offset_part.nbytes // 4 - 1 > count:
        raise CorruptBatch(f"header dictionary: {offset_part.nbytes} bytes of offsets for {count} records")
    ends = np.frombuffer(offset_part, "<i4")
    if ends[0] != 0 or ends[-1] != data_part.nbytes or (np.diff(ends) <= 0).any():
        raise CorruptBatch("header dictionary offsets do not ascend")
    dictionary: list[Headers] = []
    total = 0
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        length = _array_length(data_part[start:end])
        total += length
        if length > LIMITS.record_headers_max or total > LIMITS.batch_headers_max:
            raise CorruptBatch(f"{length} headers on a record > {LIMITS.record_headers_max}, or too many in the batch")
        try:
            dictionary.append(tuple(_decode_headers(data_part[start:end])))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptBatch(f"record headers: {error}") from None
    return dictionary


def _array_length(entry: memoryview) -> int:
    """Return the length that starts a msgpack array; 0 for anything else, which its decoder will refuse."""
    first = entry[0]
    if first & 0xF0 == 0x90:
        return first & 0x0F
    size = {0xDC: 2, 0xDD: 4}.get(first, 0)
    return int.from_bytes(entry[1 : 1 + size], "big")
