"""Every bound on what a peer may send, in one place, checked before anything of that size is allocated."""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Limits(msgspec.Struct, frozen=True):
    """Sizes in bytes unless the name says otherwise."""

    request_header_bytes_max: int = 64 * KIB
    response_header_bytes_max: int = 8 * MIB
    payload_frames_max: int = 16
    request_bytes_max: int = 100 * MIB  # socket.request.max.bytes, Kafka's default
    response_bytes_max: int = 100 * MIB
    batch_bytes_max: int = 16 * MIB  # the most any topic's max.message.bytes may allow
    decompressed_bytes_max: int = 64 * MIB
    decompression_ratio_max: int = 1000  # zstd reaches 32,000 x on zeros: that is an attack, not data
    batch_records_max: int = 1_000_000
    producer_id_max: int = 2**62  # int64 in Kafka
    record_headers_max: int = 256
    batch_headers_max: int = 1_000_000  # distinct ones for columns: 100 MB of objects at worst
    request_timeout_ms_max: int = 60_000  # what a request may wait at a broker; clients ask again
    parked_produces_max: int = 1000  # of one connection at a broker; our clients have five per partition
    client_id_chars_max: int = 255  # of one that is remembered, for its quota
    topic_name_chars_max: int = 249  # Kafka's Topic.MAX_NAME_LENGTH
    member_metadata_bytes_max: int = 1 * MIB  # a whole group must fit a record of its offsets topic: 1 MB

    def __post_init__(self) -> None:
        assert self.request_header_bytes_max < self.request_bytes_max
        assert self.batch_bytes_max < self.request_bytes_max
        assert self.batch_bytes_max <= self.decompressed_bytes_max


LIMITS = Limits()
