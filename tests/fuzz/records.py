"""Decoders of ingest/records: headers, whole batches, both bodies, the codecs."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import partial

import msgspec

from ingest.limits import KIB, LIMITS, MIB
from ingest.records.batch import decode_batch, encode_batch
from ingest.records.columns import decode_columns, encode_columns
from ingest.records.compression import CODEC_NAMES, NONE, ZSTD, compress, decompress
from ingest.records.header import (
    BatchHeader,
    check_fields,
    decode_header,
    encode_leader_half,
    encode_producer_half,
    hop_headers,
    verify_batch,
    verify_header,
)
from ingest.records.rows import Row, decode_rows, encode_rows
from tests.fuzz.decoder import Decoder

STAMPS = [1_700_000_000_000 + i * i for i in range(20)]
KEYS = [b"dev-%d" % (i * 7) if i % 5 else None for i in range(20)]
VALUES = [b"v" * (i % 9) if i % 7 else None for i in range(20)]
HEADERS = [(("site", b"A"), ("e", None)) if i % 2 else () for i in range(20)]
ROWS = [Row(i * 2, STAMPS[i], KEYS[i], VALUES[i], HEADERS[i]) for i in range(20)]


def placed(batch: bytes) -> bytes:
    """Give a producer's batch the leader's half of its header."""
    header = encode_leader_half(batch, base_offset=7, leader_epoch=2, append_time_ms=STAMPS[0], high_watermark=7)
    return header + batch[len(header) :]


def rows_batch(codec: int) -> bytes:
    plain = encode_rows(ROWS)
    body = compress(codec, plain)
    header = encode_producer_half(
        body,
        attributes=codec,
        base_timestamp_ms=STAMPS[0],
        max_timestamp_ms=STAMPS[-1],
        record_count=len(ROWS),
        last_offset_delta=ROWS[-1].offset_delta,
        uncompressed_size=0,
    )
    return header + body


COLUMN_BATCHES = [encode_batch(STAMPS, KEYS, VALUES, HEADERS, codec=codec) for codec in range(5)]
ROW_BATCHES = [rows_batch(codec) for codec in range(5)]
BATCHES = [placed(batch) for batch in COLUMN_BATCHES + ROW_BATCHES]
SEGMENT = b"".join(batch + bytes(-len(batch) % 8) for batch in BATCHES)


def _read_batch(data: bytes) -> object:
    """Decode as a reader does, but without the CRC that would hide everything behind it."""
    header = decode_header(data)
    check_fields(header)
    columns = decode_batch(data, "t", 0, header)
    return columns.to_records()


def _read_columns(data: bytes) -> object:
    """The first four bytes are the count of the header, in thousands where it is large."""
    count = int.from_bytes(data[:3], "little") % (LIMITS.batch_records_max + 1)
    body = decode_columns(data[3:], count, 5)
    if count <= 10_000:
        body.keys.to_list(), body.values.to_list()
    return body


def _header_of(data: bytes) -> BatchHeader:
    count, last_delta = struct.unpack_from("<ii", data.ljust(8, b"\0"))
    return msgspec.structs.replace(decode_header(BATCHES[5]), record_count=max(0, count), last_offset_delta=last_delta)


def _read_rows(data: bytes) -> object:
    return decode_rows(data[8:], _header_of(data))


def _unpack(codec: int, known: bool, data: bytes) -> object:
    size = int.from_bytes(data[:3], "little") if known else None
    return decompress(
        codec,
        data[3:],
        size=size,
        size_max=LIMITS.decompressed_bytes_max,
        ratio_max=LIMITS.decompression_ratio_max,
    )


def _columns_corpus() -> list[bytes]:
    bodies = [
        encode_columns(STAMPS, KEYS, VALUES, HEADERS),
        encode_columns(STAMPS, None, [b"12345678"] * 20),
        encode_columns([STAMPS[0]] * 20, [b"k"] * 20, None),
    ]
    return [(20).to_bytes(3, "little") + body for body in bodies]


def _columns_bombs() -> list[bytes]:
    count = LIMITS.batch_records_max.to_bytes(3, "little")
    lengths = [0] * 11
    nothing = struct.pack("<HHIII11I4x", 1, 3, 0, 0, 11, *lengths)
    empty_strings = struct.pack("<HHIII11I4x", 1, 0, 0, 0, 11, *lengths)
    # one entry of the header dictionary that is all headers of three bytes
    many = LIMITS.batch_bytes_max // 3
    entry = b"\xdd" + many.to_bytes(4, "big") + b"\x92\xa0\xc0" * many
    lengths[8:11] = [4, 8, len(entry)]
    ids = bytes(8) + struct.pack("<ii", 0, len(entry)) + entry + bytes(-len(entry) % 8)
    headers = struct.pack("<HHIII11I4x", 1, 3, 0, 0, 11, *lengths) + ids
    return [count + nothing, count + empty_strings, (1).to_bytes(3, "little") + headers]


def _rows_bombs() -> list[bytes]:
    small = b"\x0c\x00\x00\x00\x01\x01\x00"
    count = LIMITS.batch_records_max
    record = b"\x00\x00\x00\x01\x01\x80\x04" + b"\x00\x01" * 256
    with_headers = (b"\x8e\x08" + record) * 30_000
    return [
        struct.pack("<ii", 30_000, 30_000) + with_headers,
        struct.pack("<ii", count, count) + small * count,
        struct.pack("<ii", 2**31 - 1, 2**31 - 1) + small * count,
        struct.pack("<ii", 1, 0) + b"\xff" * (16 * MIB),
    ]


def _codec_bombs(codec: int, known: bool) -> list[bytes]:
    size = LIMITS.decompressed_bytes_max
    declared = (size if size < 1 << 24 else (1 << 24) - 1).to_bytes(3, "little")
    packed = [compress(codec, bytes(size + 1))]
    if codec != NONE:
        packed.append(compress(codec, bytes(4 * size)))
    if codec == ZSTD:
        block = (0 | 1 << 1 | (128 * KIB) << 3).to_bytes(3, "little") + b"A"
        packed.append(b"\x28\xb5\x2f\xfd\x00\x88" + block * 100_000)  # a window of 128 MiB, 12 GiB of output
    return [(declared if known else b"\0\0\0") + data for data in packed]


def decoders() -> Iterable[Decoder]:
    """Return the decoders of batches."""
    yield Decoder("header", [batch[:96] for batch in BATCHES], decode_header)
    yield Decoder("verify_header", [batch[:96] for batch in BATCHES], verify_header)
    yield Decoder("verify_batch", BATCHES, verify_batch)
    yield Decoder("hop_headers", [SEGMENT, BATCHES[0]], lambda data: list(hop_headers(data)))
    yield Decoder("batch", BATCHES, _read_batch)
    yield Decoder("columns", _columns_corpus(), _read_columns, bombs=_columns_bombs)
    yield Decoder(
        "rows",
        [struct.pack("<ii", len(ROWS), ROWS[-1].offset_delta) + encode_rows(ROWS)],
        _read_rows,
        bombs=_rows_bombs,
        rss_bytes_max=400 * MIB,  # a million records are that many objects
    )
    text = b"the pool in front of a power plant " * 60
    for codec in range(5):
        for known in (False, True):
            yield Decoder(
                f"unpack_{CODEC_NAMES[codec]}_{'known' if known else 'unknown'}",
                [len(data).to_bytes(3, "little") + compress(codec, data) for data in (text, bytes(3000), b"")],
                partial(_unpack, codec, known),
                bombs=partial(_codec_bombs, codec, known),
                rss_bytes_max=224 * MIB,  # the output, a zstd window full of it, and the input kept in a file
            )
