"""Four codecs: round trips, foreign framings, and bombs that are refused before they unpack."""

from __future__ import annotations

import gzip
import random
import struct
import tracemalloc
from collections.abc import Callable

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import CorruptBatch, DecompressedTooLarge
from ingest.limits import KIB, LIMITS, MIB
from ingest.records.compression import (
    CODEC_NAMES,
    CODEC_NUMBERS,
    GZIP,
    LZ4,
    NONE,
    RATIO_FREE_BYTES,
    SNAPPY,
    ZSTD,
    compress,
    compress_if_smaller,
    decompress,
)

CODECS = (NONE, GZIP, SNAPPY, LZ4, ZSTD)
PACKING = (GZIP, SNAPPY, LZ4, ZSTD)
TEXT = b"the pool in front of a power plant " * 4000


def unpack(codec: int, data: bytes, size: int | None = None, size_max: int = 4 * MIB, ratio_max: int = 1000) -> bytes:
    return bytes(decompress(codec, data, size=size, size_max=size_max, ratio_max=ratio_max))


def xerial(blocks: list[bytes]) -> bytes:
    framed = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
    for block in blocks:
        packed = bytes(cramjam.snappy.compress_raw(block))
        framed += struct.pack(">i", len(packed)) + packed
    return framed


def test_codec_names_and_numbers_are_kafkas() -> None:
    assert CODEC_NAMES == ("none", "gzip", "snappy", "lz4", "zstd")
    assert CODEC_NUMBERS == {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


@given(codec=st.sampled_from(CODECS), data=st.binary(max_size=4 * KIB), repeat=st.integers(1, 50), known=st.booleans())
def test_round_trip_gives_the_same_bytes(codec: int, data: bytes, repeat: int, known: bool) -> None:
    data *= repeat
    assert unpack(codec, compress(codec, data), len(data) if known else None) == data


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_is_taken(codec: int, wrap: Callable[[bytes], bytes]) -> None:
    assert unpack(codec, wrap(compress(codec, wrap(TEXT))), len(TEXT)) == TEXT


def test_lz4_blocks_are_independent_or_java_refuses_them() -> None:
    flags = compress(LZ4, TEXT)[4]
    assert flags >> 6 == 1, "frame format version 1"
    assert flags & 0x20, "block independence"


@pytest.mark.parametrize("codec", PACKING)
@pytest.mark.parametrize("known", [True, False])
def test_a_stream_cut_anywhere_or_followed_by_bytes_is_corrupt(codec: int, known: bool) -> None:
    packed = compress(codec, TEXT)
    size = len(TEXT) if known else None
    for cut in [*range(40), len(packed) // 2, len(packed) - 1]:
        with pytest.raises(CorruptBatch):
            unpack(codec, packed[:cut], size)
    with pytest.raises(CorruptBatch):
        unpack(codec, packed + b"garbage", size)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_header_that_names_another_size_is_corrupt(codec: int, wrong: int) -> None:
    with pytest.raises(CorruptBatch, match="header"):
        unpack(codec, compress(codec, TEXT), len(TEXT) + wrong)


def test_an_unknown_codec_is_corrupt() -> None:
    for codec in (5, 6, 7, -1):
        with pytest.raises(CorruptBatch, match=f"unknown codec {codec}"):
            unpack(codec, b"abc")


@given(codec=st.sampled_from(PACKING), noise=st.binary(max_size=300), known=st.booleans())
def test_noise_raises_only_our_errors(codec: int, noise: bytes, known: bool) -> None:
    try:
        unpack(codec, noise, 1000 if known else None)
    except CorruptBatch:
        pass


@pytest.mark.parametrize("codec", PACKING)
@pytest.mark.parametrize("size", [None, 64 * MIB])
def test_a_bomb_is_refused_at_the_limit(codec: int, size: int | None) -> None:
    bomb = compress(codec, bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(DecompressedTooLarge):
            unpack(codec, bomb, size, size_max=4 * MIB, ratio_max=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * MIB


@pytest.mark.parametrize("codec", [GZIP, ZSTD])
@pytest.mark.parametrize("known", [True, False])
def test_a_ratio_beyond_the_limit_is_refused_and_a_small_output_never_is(codec: int, known: bool) -> None:
    zeros = bytes(8 * MIB)
    with pytest.raises(DecompressedTooLarge):
        unpack(codec, compress(codec, zeros), len(zeros) if known else None, size_max=64 * MIB, ratio_max=500)
    zeros = bytes(RATIO_FREE_BYTES)
    assert unpack(codec, compress(codec, zeros), len(zeros) if known else None, ratio_max=1) == zeros


def test_a_zstd_frame_that_lies_about_its_content_size_allocates_nothing() -> None:
    block = (1 | 1 << 1 | (128 * KIB) << 3).to_bytes(3, "little") + b"A"  # the last block: one byte, 128 KiB times
    tebibyte = b"\x28\xb5\x2f\xfd" + bytes([0xC0, 0x50]) + (1 << 40).to_bytes(8, "little") + block
    window_of_2_gib = b"\x28\xb5\x2f\xfd" + bytes([0x00, 21 << 3]) + block
    for frame in (tebibyte, window_of_2_gib):
        with pytest.raises(CorruptBatch):
            unpack(ZSTD, frame)


def test_a_snappy_length_that_lies_allocates_nothing() -> None:
    with pytest.raises(DecompressedTooLarge):
        unpack(SNAPPY, b"\xff\xff\xff\xff\x0f" + b"abc")
    with pytest.raises(CorruptBatch):
        unpack(SNAPPY, b"\xff\xff\xff\xff\x7f" + b"abc")


def test_xerial_framing_of_java_clients_is_read() -> None:
    assert unpack(SNAPPY, xerial([TEXT[:32768], TEXT[32768:65536], b"end"])) == TEXT[:65536] + b"end"
    assert unpack(SNAPPY, xerial([])) == b""


def test_xerial_blocks_that_pass_the_end_are_corrupt() -> None:
    framed = xerial([TEXT[:1000], TEXT[:1000]])
    for cut in range(16, len(framed)):
        try:
            unpack(SNAPPY, framed[:cut], 2000)
        except CorruptBatch:
            continue
        raise AssertionError(f"cut at {cut} was taken")
    with pytest.raises(CorruptBatch, match="more than"):
        unpack(SNAPPY, framed[:16] + (b"\x00\x00\x00\x01\x00" * 70_000))


def test_concatenated_members_and_frames_are_read_as_kafka_clients_read_them() -> None:
    assert unpack(GZIP, gzip.compress(b"one ") + gzip.compress(b"two")) == b"one two"
    for codec in (LZ4, ZSTD):
        assert unpack(codec, compress(codec, b"one ") + compress(codec, b"two")) == b"one two"


def test_a_zstd_frame_streamed_without_its_size_is_read() -> None:
    compressor = cramjam.zstd.Compressor(level=3)
    packed = b""
    for start in range(0, len(TEXT), 10_000):
        compressor.compress(TEXT[start : start + 10_000])
        packed += bytes(compressor.flush())
    assert unpack(ZSTD, packed + bytes(compressor.finish())) == TEXT


@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
def test_an_unknown_size_grows_until_it_fits(codec: int) -> None:
    data = bytes(3 * MIB) + TEXT
    assert unpack(codec, compress(codec, data), ratio_max=100_000) == data


@pytest.mark.parametrize("codec", PACKING)
def test_what_does_not_shrink_or_would_look_like_a_bomb_stays_as_it_is(codec: int) -> None:
    noise = random.Random(codec).randbytes(10_000)
    assert compress_if_smaller(codec, noise) == (NONE, noise)
    used, packed = compress_if_smaller(codec, TEXT)
    assert used == codec
    assert len(packed) < len(TEXT)
    zeros = bytes(16 * MIB)
    used, packed = compress_if_smaller(codec, zeros)
    assert unpack(used, packed, len(zeros), LIMITS.decompressed_bytes_max, LIMITS.decompression_ratio_max) == zeros, (
        "what a producer packs every reader must unpack"
    )
