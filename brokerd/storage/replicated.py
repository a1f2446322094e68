"""Check what a leader sent before a follower appends it, byte for byte. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingest.errors import CorruptBatch
from ingest.records.header import BatchHeader, verify_batch, verify_header

if TYPE_CHECKING:
    from typing_extensions import Buffer


def check_replicated(batches: Buffer, end_offset: int, last_epoch: int) -> list[tuple[int, BatchHeader]]:
    """Return (position, header) of each batch.

    Args:
        end_offset, last_epoch: Of the log that they are to continue.
    Raises:
        CorruptBatch: a batch is damaged or cut short, or does not continue the log.
    Cost: one CRC pass.
    """
    view = memoryview(batches)
    found = []
    position = 0
    while position < view.nbytes:
        header = verify_header(view, position)
        verify_batch(view[position : position + header.size], header)
        if header.base_offset < end_offset or header.leader_epoch < last_epoch:
            raise CorruptBatch(
                f"a batch of epoch {header.leader_epoch} at offset {header.base_offset} does not continue a log that "
                f"ends at {end_offset} in epoch {last_epoch}",
                position=position,
            )
        found.append((position, header))
        position += header.padded_size
        end_offset, last_epoch = header.next_offset, header.leader_epoch
    if position != view.nbytes:
        raise CorruptBatch(f"{position - view.nbytes} bytes of padding are missing", position=position)
    return found


def fitting(batches: list[tuple[int, BatchHeader]], room: int) -> list[tuple[int, BatchHeader]]:
    """Return the batches that fit `room` bytes together, one at least."""
    size = 0
    for count, (_, header) in enumerate(batches):
        size += header.padded_size
        if count and size > room:
            return batches[:count]
    return batches[:]
