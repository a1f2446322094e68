"""Walk the batches of a segment file: by headers alone, or with every byte checked. Reads are large and few."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ingest.errors import CorruptBatch, UnsupportedFormat
from ingest.limits import KIB, LIMITS, MIB
from ingest.records.checksum import crc32c
from ingest.records.header import HEADER_SIZE, MAGIC, BatchHeader, verify_batch, verify_header

HOP_WINDOW_BYTES = 4 * KIB
SCAN_WINDOW_BYTES = MIB
_VERSION_MAX = 32  # one format in a few years


def walk_headers(fd: int, position: int, end: int, offset: int) -> Iterator[tuple[int, BatchHeader]]:
    """Yield (position, header) of batch after batch, bodies unread, until zeros or `end`.

    Args:
        offset: The least base offset the first batch may have.
    Raises:
        CorruptBatch: at the first bytes that are no header in order; `position` says where.
        OSError: the device refused.
    Cost: one read of 4 KiB per batch, or per 4 KiB of small ones.
    """
    window, start = b"", position
    epoch = -1
    while position < end:
        if position - start + HEADER_SIZE > len(window):
            window, start = os.pread(fd, min(HOP_WINDOW_BYTES, end - position), position), position
        header = _next(window, position - start, position, end, offset, epoch)
        if header is None:
            return
        yield position, header
        offset, epoch = header.next_offset, header.leader_epoch
        position += header.padded_size


def walk_batches(fd: int, position: int, end: int, offset: int, epoch: int = -1) -> Iterator[tuple[int, BatchHeader]]:
    """Yield (position, header) like `walk_headers`, each body's CRC checked too.

    Raises:
        CorruptBatch: at the first batch that is not whole and valid.
        OSError: the device refused.
    Cost: reads everything, 1 MiB or one batch at a time.
    """
    window, start = memoryview(b""), position
    while position < end:
        if position - start + HEADER_SIZE > len(window):
            window, start = _read(fd, position, min(SCAN_WINDOW_BYTES, end - position)), position
        header = _next(window, position - start, position, end, offset, epoch)
        if header is None:
            return
        if position - start + header.size > len(window):
            size = max(SCAN_WINDOW_BYTES, header.padded_size)
            window, start = _read(fd, position, min(size, end - position)), position
        at = position - start
        try:
            verify_batch(window[at : at + header.size], header)
        except CorruptBatch as error:
            raise CorruptBatch(f"at byte {position}: {error}", position=position) from None
        yield position, header
        offset, epoch = header.next_offset, header.leader_epoch
        position += header.padded_size


def _read(fd: int, position: int, size: int) -> memoryview:
    return memoryview(os.pread(fd, size, position))


def _next(window: bytes | memoryview, at: int, position: int, end: int, offset: int, epoch: int) -> BatchHeader | None:
    """Return the header at `position`, None where the log ends in zeros."""
    if not any(window[at : at + HEADER_SIZE]):
        return None
    try:
        header = verify_header(window, at)
    except CorruptBatch as error:
        raise CorruptBatch(f"at byte {position}: {error}", position=position) from None
    except UnsupportedFormat as error:
        # A newer version does not verify as ours; where it does, or is no number a version will have, the byte is bad.
        verifies = crc32c(window[at + 8 : at + HEADER_SIZE]) == int.from_bytes(window[at + 4 : at + 8], "little")
        if not verifies and MAGIC[3] < window[at + 3] < _VERSION_MAX:
            raise
        raise CorruptBatch(f"at byte {position}: {error}", position=position) from None
    if header.base_offset < offset or header.leader_epoch < epoch or header.body_size > LIMITS.batch_bytes_max:
        raise CorruptBatch(
            f"at byte {position}: batch {header.base_offset} epoch {header.leader_epoch} after"
            f" offset {offset} epoch {epoch}",
            position=position,
        )
    if position + header.padded_size > end:
        raise CorruptBatch(f"batch at byte {position} passes the end {end}", position=position)
    return header


def find_magic(fd: int, position: int, end: int) -> Iterator[int]:
    """Yield the positions, multiples of 8 in [position, end), that hold a batch's magic; each must be checked."""
    while position < end:
        window = os.pread(fd, min(SCAN_WINDOW_BYTES, end - position), position)
        if not window:
            return
        at = window.find(MAGIC)
        while at >= 0:
            if (position + at) % 8 == 0:
                yield position + at
            at = window.find(MAGIC, at + 1)
        position += max(8, len(window) // 8 * 8)
