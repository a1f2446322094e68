"""Decide what an append will write, before anything is written. Pure: batches and the log's state in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from brokerd.storage.config import LogConfig
from brokerd.storage.log_values import Appended
from brokerd.storage.producer_state import ProducerState
from brokerd.storage.validation import validate_batch
from ingest.records.header import HEADER_SIZE, BatchHeader, encode_leader_half, padded

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PADDING = bytes(8)


class Staged(msgspec.Struct):
    """An append ready to be written.

    Attributes:
        appended: The answer for each batch of the call, duplicates included.
        news: What is written, as (producer's header, base offset, bytes in the segment).
        vectors: For one pwritev, `size_bytes` in all.
        end_offset: Of the log once it is written.
    """

    appended: list[Appended]
    news: list[tuple[BatchHeader, int, int]]
    vectors: list[Buffer]
    size_bytes: int
    end_offset: int


def stage(
    batches: Sequence[Buffer],
    producers: ProducerState,
    config: LogConfig,
    *,
    base_offset: int,
    leader_epoch: int,
    high_watermark: int,
    wall_ms: int,
    leader_flags: int,
) -> Staged:
    """Check batches and give them their offsets; `producers` is asked, not changed.

    Raises:
        CorruptBatch, UnsupportedFormat, InvalidRecord, MessageTooLarge, SequenceError, ProducerFenced: of any batch.
    Cost: one CRC pass over each batch, no copy of a body.
    """
    offset = base_offset
    appended: list[Appended] = []
    news: list[tuple[BatchHeader, int, int]] = []
    vectors: list[Buffer] = []
    before: dict[int, BatchHeader] = {}
    total = 0
    for batch in batches:
        view = memoryview(batch)
        header = validate_batch(view, config, wall_ms)
        known = producers.check(header, before.get(header.producer_id) if before else None)
        if known is not None:
            appended.append(Appended(known.base_offset, known.last_offset, known.append_time_ms, True))
            continue
        if header.producer_id >= 0 and len(batches) > 1:
            before[header.producer_id] = header
        size = HEADER_SIZE + header.body_size
        vectors.append(
            encode_leader_half(
                view,
                base_offset=offset,
                leader_epoch=leader_epoch,
                append_time_ms=wall_ms,
                high_watermark=high_watermark,
                leader_flags=leader_flags,
            )
        )
        vectors.append(view[HEADER_SIZE:size])
        space = padded(size)
        if space > size:
            vectors.append(_PADDING[: space - size])
        total += space
        last = offset + header.last_offset_delta
        news.append((header, offset, space))
        appended.append(Appended(offset, last, wall_ms))
        offset = last + 1
    return Staged(appended, news, vectors, total, offset)
