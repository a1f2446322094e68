"""What a log asks of a batch before it takes it. Source: org.apache.kafka.storage.internals.log.LogValidator."""

from __future__ import annotations

from brokerd.storage.config import LogConfig
from brokerd.storage.errors import InvalidRecord, MessageTooLarge
from ingest.limits import LIMITS
from ingest.records.header import CODEC_MASK, HEADER_SIZE, BatchHeader, padded, verify_batch
from ingest.wire.codes import ErrorCode


def validate_batch(view: memoryview, config: LogConfig, wall_ms: int) -> BatchHeader:
    """Check a produced batch and return its header.

    Raises:
        CorruptBatch, UnsupportedFormat: it is not what its producer made.
        InvalidRecord, MessageTooLarge: it contradicts itself or the topic's settings.
    Cost: one CRC pass.
    """
    if view.nbytes > config.max_message_bytes:
        raise MessageTooLarge(f"batch of {view.nbytes} bytes; max.message.bytes is {config.max_message_bytes}")
    header = verify_batch(view)
    size = HEADER_SIZE + header.body_size
    if view.nbytes != size and view.nbytes != padded(size):
        raise InvalidRecord(f"{view.nbytes - size} bytes behind the batch")
    if header.record_count < 1 or header.record_count != header.last_offset_delta + 1:
        raise InvalidRecord(f"{header.record_count} records in {header.last_offset_delta + 1} offsets")
    if header.record_count > LIMITS.batch_records_max:
        raise InvalidRecord(f"{header.record_count} records; at most {LIMITS.batch_records_max} fit a batch")
    if header.producer_id > LIMITS.producer_id_max:
        raise InvalidRecord(f"producer id {header.producer_id}; none beyond {LIMITS.producer_id_max} is ever granted")
    if header.uncompressed_size > LIMITS.decompressed_bytes_max:
        raise MessageTooLarge(f"body of {header.uncompressed_size} bytes once decompressed")
    if not header.attributes & CODEC_MASK and header.uncompressed_size not in (0, header.body_size):
        raise InvalidRecord(f"body of {header.body_size} bytes that says {header.uncompressed_size}")
    if config.timestamp_type == "CreateTime" and (
        header.max_timestamp_ms - wall_ms > config.timestamp_after_max_ms
        or wall_ms - header.base_timestamp_ms > config.timestamp_before_max_ms
    ):
        raise InvalidRecord(
            f"timestamps {header.base_timestamp_ms}..{header.max_timestamp_ms} are too far from the broker's {wall_ms}",
            code=ErrorCode.INVALID_TIMESTAMP,
        )
    return header
