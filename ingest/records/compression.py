"""Compression of batch bodies: Kafka's four codecs and numbers, unpacked only within a limit known beforehand.

    number  name    form written                             forms read
    ------  ------  ---------------------------------------  ------------------------------------------
         0  none
         1  gzip    RFC 1952, level 6                        any members, one after another
         2  snappy  raw block                                raw block, or xerial's framing (Java clients)
         3  lz4     frame, level 1, blocks independent       frames, one after another
         4  zstd    frame, level 3                           frames, one after another

Nothing a sender wrote about sizes is believed: output goes to a buffer of the size we allow, and a stream that does
not fit is refused. A zstd frame that asks for a window above 128 MiB is refused by libzstd itself.

Source: docs/format/batch.md, "Compression".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cramjam

from ingest.errors import CorruptBatch, DecompressedTooLarge
from ingest.limits import KIB, LIMITS, MIB

if TYPE_CHECKING:
    from typing_extensions import Buffer

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)

CODEC_NAMES = ("none", "gzip", "snappy", "lz4", "zstd")
CODEC_NUMBERS = {name: number for number, name in enumerate(CODEC_NAMES)}

RATIO_FREE_BYTES = 1 * MIB  # up to here any ratio is fine: 64 KiB of zeros is 20 bytes of zstd, and no attack
_FIRST_GUESS_RATIO = 8
_GROWTH = 8  # so that all failed tries together cost less than a seventh of the last one
_GZIP_LEVEL = 6  # Kafka's default, as is zstd's
_ZSTD_LEVEL = 3
_DOES_NOT_FIT = "failed to write whole buffer"  # cramjam's words; tests/ingest/records/test_compression.py pins them

# xerial's snappy framing: this magic, int32 version and int32 lowest version, then blocks of int32 size and raw snappy
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER_SIZE = 16
_XERIAL_BLOCKS_MAX = 64 * KIB  # Java's blocks are 32 KiB, 1 KiB at the least

_DECOMPRESS_INTO: dict[int, Callable[[Any, Any], int]] = {
    GZIP: cramjam.gzip.decompress_into,
    LZ4: cramjam.lz4.decompress_into,
    ZSTD: cramjam.zstd.decompress_into,
}


def compress(codec: int, data: Buffer) -> bytes:
    """Compress `data` with a codec's number, 0..4.

    Cost: one pass and one copy; the GIL is free meanwhile.  Thread: any.
    """
    if codec == NONE:
        return bytes(data)
    if codec == GZIP:
        return bytes(cramjam.gzip.compress(data, level=_GZIP_LEVEL))
    if codec == SNAPPY:
        return bytes(cramjam.snappy.compress_raw(data))
    if codec == LZ4:
        compressor = cramjam.lz4.Compressor(level=1, content_checksum=False, block_linked=False)
        compressor.compress(data if isinstance(data, bytes) else bytes(data))  # it takes no other buffer
        return bytes(compressor.finish())
    assert codec == ZSTD, f"unknown codec {codec}"
    return bytes(cramjam.zstd.compress(data, level=_ZSTD_LEVEL))


def compress_if_smaller(
    codec: int, data: Buffer, *, ratio_max: int = LIMITS.decompression_ratio_max
) -> tuple[int, bytes]:
    """Compress `data` unless that gains nothing, or so much that readers would take it for a bomb.

    Returns:
        The codec that was used in the end, `NONE` or `codec`, and the bytes.
    """
    size = memoryview(data).nbytes
    packed = compress(codec, data)
    if len(packed) >= size or size > _output_limit(len(packed), LIMITS.decompressed_bytes_max, ratio_max):
        return NONE, bytes(data)
    return codec, packed


def decompress(codec: int, data: Buffer, *, size: int | None, size_max: int, ratio_max: int) -> bytearray:
    """Decompress `data` into at most `size_max` bytes and `ratio_max` times its length.

    Args:
        size: Bytes it must give exactly, as the batch header says; None where nothing says it (Kafka's clients).
        size_max: The most bytes of output, whatever `size` says.
        ratio_max: Output bytes an input byte may give; not applied below `RATIO_FREE_BYTES`.
    Raises:
        DecompressedTooLarge: beyond one of the limits; at most the limit was allocated.
        CorruptBatch: no valid stream, or not `size` bytes long.
    Cost: one pass where `size` is given or the codec is snappy, else up to 1.2; the GIL is free meanwhile.
    """
    view = memoryview(data).cast("B")
    limit = _output_limit(view.nbytes, size_max, ratio_max)
    if size is not None and size > limit:
        raise DecompressedTooLarge(f"{_name(codec)} body of {view.nbytes} bytes unpacks to {size} > {limit}")
    if codec == NONE:
        output = _plain(view, limit)
    elif codec == SNAPPY:
        output = _snappy(view, limit)
    elif codec in _DECOMPRESS_INTO:
        output = _stream(codec, view, limit, size)
    else:
        raise CorruptBatch(f"unknown codec {codec}")
    if size is not None and len(output) != size:
        raise CorruptBatch(f"{_name(codec)} body unpacks to {len(output)} bytes, the header says {size}")
    return output


def _name(codec: int) -> str:
    return CODEC_NAMES[codec] if 0 <= codec < len(CODEC_NAMES) else f"codec {codec}"


def _output_limit(input_size: int, size_max: int, ratio_max: int) -> int:
    return min(size_max, max(RATIO_FREE_BYTES, ratio_max * input_size))


def _plain(view: memoryview, limit: int) -> bytearray:
    if view.nbytes > limit:
        raise DecompressedTooLarge(f"body of {view.nbytes} bytes > {limit}")
    return bytearray(view)


def _stream(codec: int, view: memoryview, limit: int, size: int | None) -> bytearray:
    """Try buffers of growing size up to the limit; one of exactly `size` where that is known."""
    capacity = size if size is not None else min(limit, max(4 * KIB, _FIRST_GUESS_RATIO * view.nbytes))
    while True:
        output = bytearray(capacity)
        try:
            written = _DECOMPRESS_INTO[codec](view, output)
        except cramjam.DecompressionError as error:
            if str(error) != _DOES_NOT_FIT:
                raise CorruptBatch(f"{_name(codec)} body of {view.nbytes} bytes: {error}") from None
            if size is not None:
                raise CorruptBatch(f"{_name(codec)} body unpacks to more than the {size} bytes of its header") from None
            if capacity == limit:
                raise DecompressedTooLarge(
                    f"{_name(codec)} body of {view.nbytes} bytes unpacks to more than {limit}"
                ) from None
            del output  # or both would be held at once
            capacity = min(limit, capacity * _GROWTH)
        else:
            del output[written:]
            return output


def _snappy(view: memoryview, limit: int) -> bytearray:
    """Unpack raw snappy or xerial's framing; both name sizes beforehand, which are checked before they are used."""
    if view.nbytes < _XERIAL_HEADER_SIZE or view[: len(_XERIAL_MAGIC)] != _XERIAL_MAGIC:
        blocks = [view]
    else:
        blocks = _xerial_blocks(view)
    sizes = [_snappy_size(block) for block in blocks]
    if sum(sizes) > limit:
        raise DecompressedTooLarge(f"snappy body of {view.nbytes} bytes unpacks to {sum(sizes)} > {limit}")
    output = bytearray(sum(sizes))
    position = 0
    with memoryview(output) as target:
        for block, size in zip(blocks, sizes, strict=True):
            try:
                cramjam.snappy.decompress_raw_into(block, target[position : position + size])
            except cramjam.DecompressionError as error:
                raise CorruptBatch(f"snappy body: {error}") from None
            position += size
    return output


def _snappy_size(block: memoryview) -> int:
    try:
        return cramjam.snappy.decompress_raw_len(block)
    except cramjam.DecompressionError as error:
        raise CorruptBatch(f"snappy body: {error}") from None


def _xerial_blocks(view: memoryview) -> list[memoryview]:
    blocks = []
    position = _XERIAL_HEADER_SIZE
    while position < view.nbytes:
        start = position + 4
        end = start + int.from_bytes(view[position:start], "big")
        if start > view.nbytes or end > view.nbytes:
            raise CorruptBatch(f"snappy block at byte {position} passes the end {view.nbytes}")
        blocks.append(view[start:end])
        if len(blocks) > _XERIAL_BLOCKS_MAX:
            raise CorruptBatch(f"more than {_XERIAL_BLOCKS_MAX} snappy blocks in a body of {view.nbytes} bytes")
        position = end
    return blocks
