"""The bytes of version 1: a change here is a change of format, and of docs/format."""

from __future__ import annotations

from brokerd.storage.checkpoint import PARTITION, CheckpointRecord, decode_record, encode_record
from brokerd.storage.producer_state import ProducerState
from brokerd.storage.snapshot import decode_snapshot, encode_snapshot
from ingest.log.index import crc_seed, encode_offset_entry, encode_time_entry
from ingest.log.state_page import encode_marks, encode_page_header, row_tag
from ingest.records.header import decode_header
from tests.brokerd.storage.stores import TOPIC, make_batch

GOLDEN = {
    "index": ("0a000000000200000300000037388d54"),
    "timeindex": ("0068e5cf8b0100000a0000000a78d25b"),
    "page_header": ("464259504147450180000000000100006300000000000000"),
    "row": (
        "67993436010000000200000003000000e94181583d3aa803050000000000000006000000000000000700000000000000"
        "08000000000000000900000000000000"
    ),
    "checkpoint": (
        "46425943225868a00100010001000000123456781234432187650123456789ab02000000000000000300000000000000"
        "040000000000000005000000000000000600000000000000070000000000000008000000000000000900000000000000"
        "0a000000000000000b000000000000000c000000000000000d00000000000000"
    ),
    "snapshot": ("464259534e4150019206907f130000009467cd014d0781079301ccde9195050764666f"),
}


def test_index_entries() -> None:
    seed = crc_seed(1000)
    assert encode_offset_entry(seed, 10, 4096, 3).hex() == GOLDEN["index"]
    assert encode_time_entry(seed, 1_700_000_000_000, 10).hex() == GOLDEN["timeindex"]


def test_the_state_page() -> None:
    assert encode_page_header(256, 99)[:24].hex() == GOLDEN["page_header"]
    assert encode_marks(1, 2, 3, row_tag(TOPIC, 4), 5, 6, 7, 8, 9).hex() == GOLDEN["row"]


def test_a_checkpoint_record() -> None:
    record = CheckpointRecord(
        kind=PARTITION,
        topic_id=TOPIC,
        partition=1,
        recovery_point=2,
        recovery_segment=3,
        recovery_position=4,
        high_watermark=5,
        log_start=6,
        snapshot_offset=7,
        active_since_age_ms=8,
        leader_epoch=9,
        age_ms=10,
        incarnation=11,
        boot_ms=12,
        producer_id_max=13,
    )
    assert encode_record(record).hex() == GOLDEN["checkpoint"]
    assert decode_record(bytes.fromhex(GOLDEN["checkpoint"])) == record


def test_a_producer_snapshot() -> None:
    state = ProducerState()
    state.apply(decode_header(make_batch(b"", 3, producer=(7, 1, 5))), 100, 111, 222)
    assert encode_snapshot(103, 333, state).hex() == GOLDEN["snapshot"]
    found = decode_snapshot(bytes.fromhex(GOLDEN["snapshot"]), 103)
    assert found is not None
    assert found.producers == state.producers
