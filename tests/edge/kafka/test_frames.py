"""Frames out of streams, however they are cut."""

from __future__ import annotations

import itertools
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.kafka.frames import FrameParser, FrameTooLarge


def framed(*bodies: bytes) -> bytes:
    return b"".join(struct.pack(">i", len(body)) + body for body in bodies)


@given(st.lists(st.binary(min_size=8, max_size=300), max_size=8), st.lists(st.integers(0, 2000)))
def test_frames_come_whole_and_in_order_however_the_stream_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream = framed(*bodies)
    parser = FrameParser(300)
    found = []
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        found += [bytes(frame) for frame in parser.feed(stream[start:end])]
    assert found == bodies
    assert parser.buffered_bytes == 0


@pytest.mark.parametrize("size", [-1, -(2**31), 0, 7, 301, 2**31 - 1, 0x47455420])  # the last is b"GET "
def test_a_size_that_no_request_has_is_refused_at_once(size: int) -> None:
    with pytest.raises(FrameTooLarge, match=str(size)):
        FrameParser(300).feed(struct.pack(">i", size))


def test_what_a_size_claims_is_not_allocated() -> None:
    parser = FrameParser(1 << 30)
    assert parser.feed(struct.pack(">i", 1 << 30) + b"x") == []
    assert parser.buffered_bytes == 5


def test_a_large_frame_in_small_pieces_is_joined_once() -> None:
    parser = FrameParser(1 << 24)
    body = bytes(1 << 22)
    stream = framed(body)
    found = []
    for start in range(0, len(stream), 1000):
        found += parser.feed(stream[start : start + 1000])
    assert [frame.nbytes for frame in found] == [len(body)]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_small_pieces_take_no_more_memory_than_they_hold(size: int) -> None:
    parser = FrameParser(1 << 24)
    stream = framed(bytes(1 << 20))
    for start in range(0, len(stream) // 2, size):
        assert parser.feed(stream[start : start + size]) == []
    assert sum(map(sys.getsizeof, parser._parts)) < 1.2 * parser.buffered_bytes
