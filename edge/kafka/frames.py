"""Frames of Kafka's protocol out of a stream of bytes: a size of four bytes, then that much. Pure."""

from __future__ import annotations

import struct

_SIZE = struct.Struct(">i")
FRAME_BYTES_MIN = 8  # api key, version, correlation id
_PIECE_BYTES = 1 << 12  # smaller ones are put together: each costs 40 bytes more than it holds


class FrameTooLarge(Exception):
    """A size that no request may have; the connection is closed."""


class FrameParser:
    """Cut a stream into frames. What a frame claims is not allocated before it has come.

    Attributes:
        bytes_max, bytes_min: The largest and smallest frame that is taken; they change once a client has logged in.
        buffered_bytes: What is held of a frame that is not whole.
    """

    def __init__(self, bytes_max: int, bytes_min: int = FRAME_BYTES_MIN) -> None:
        self.bytes_max, self.bytes_min = bytes_max, bytes_min
        self._parts: list[bytes] = []
        self.buffered_bytes = 0
        self._needed = _SIZE.size

    def feed(self, data: bytes) -> list[memoryview]:
        """Return the frames that are whole now, without their sizes; views of what was fed where that is possible.

        Raises:
            FrameTooLarge: what came before it in the stream is lost with it.
        """
        parts = self._parts
        parts.append(data)
        while len(parts) > 1 and len(parts[-2]) <= len(parts[-1]) < _PIECE_BYTES:
            parts[-2:] = [parts[-2] + parts[-1]]
        self.buffered_bytes += len(data)
        if self.buffered_bytes < self._needed:
            return []
        view = memoryview(b"".join(parts) if len(parts) > 1 else parts[0])
        frames = []
        position = 0
        while view.nbytes - position >= _SIZE.size:
            (size,) = _SIZE.unpack_from(view, position)
            if not self.bytes_min <= size <= self.bytes_max:
                raise FrameTooLarge(f"a frame of {size} bytes; {self.bytes_min} to {self.bytes_max} are taken")
            end = position + _SIZE.size + size
            if end > view.nbytes:
                self._needed = end - position
                break
            frames.append(view[position + _SIZE.size : end])
            position = end
        else:
            self._needed = _SIZE.size
        rest = bytes(view[position:])
        self._parts = [rest] if rest else []
        self.buffered_bytes = len(rest)
        return frames
