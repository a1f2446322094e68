"""Idempotence: repeats, gaps, fences, the wrap of sequences, and what a rebuild remembers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.storage.errors import InvalidRecord, ProducerFenced, SequenceError
from brokerd.storage.log import Log
from brokerd.storage.producer_state import BATCHES_REMEMBERED, ProducerState
from brokerd.storage.snapshot import decode_snapshot, encode_snapshot
from ingest.records.header import decode_header
from tests.brokerd.storage.stores import Store, make_batch

MakeStore = Callable[..., Store]


def send(log: Log, sequence: int, count: int = 1, *, epoch: int = 0, producer: int = 7) -> tuple[int, bool]:
    (landed,) = log.append([make_batch(b"v" * 20, count, producer=(producer, epoch, sequence))], wall_ms=99)
    return landed.base_offset, landed.duplicate


def test_a_repeated_batch_gets_its_original_offset(store: Store) -> None:
    log = store.open()
    landed = [send(log, sequence, 3) for sequence in range(0, 24, 3)]
    assert landed == [(offset, False) for offset in range(0, 24, 3)]
    for sequence in range(0, 24, 3):
        assert send(log, sequence, 3) == (sequence, True)
    assert log.end_offset == 24


def test_a_gap_is_refused_and_an_old_epoch_fenced(store: Store) -> None:
    log = store.open()
    send(log, 0)
    with pytest.raises(SequenceError) as gap:
        send(log, 2)
    assert gap.value.code == 45
    send(log, 0, epoch=1)
    with pytest.raises(ProducerFenced) as fenced:
        send(log, 1, epoch=0)
    assert fenced.value.code == 47
    with pytest.raises(SequenceError):
        send(log, 5, epoch=2)
    with pytest.raises(SequenceError):
        send(log, 0, 2, epoch=1)  # the same start, another length: no repeat
    with pytest.raises(InvalidRecord):
        send(log, -1, epoch=1)
    assert log.end_offset == 2


def test_sequences_wrap_to_zero(store: Store) -> None:
    log = store.open()
    last = 2**31 - 1
    send(log, last - 1, 4)  # last - 1, last, 0, 1
    assert send(log, 2) == (4, False)
    assert send(log, last - 1, 4) == (0, True)
    with pytest.raises(SequenceError):
        send(log, 4)


def test_batches_of_one_call_follow_each_other(store: Store) -> None:
    log = store.open()
    batches = [make_batch(b"v", producer=(7, 0, sequence)) for sequence in (0, 1, 2)]
    assert [landed.base_offset for landed in log.append(batches, wall_ms=0)] == [0, 1, 2]
    assert [landed.duplicate for landed in log.append(batches, wall_ms=0)] == [True] * 3
    with pytest.raises(SequenceError):
        log.append([make_batch(b"v", producer=(7, 0, sequence)) for sequence in (3, 5)], wall_ms=0)
    assert log.end_offset == 3


def test_at_least_five_batches_are_remembered_and_older_ones_refused(store: Store) -> None:
    log = store.open()
    for sequence in range(20):
        send(log, sequence)
    assert BATCHES_REMEMBERED >= 5
    assert send(log, 20 - BATCHES_REMEMBERED) == (20 - BATCHES_REMEMBERED, True)
    with pytest.raises(SequenceError):
        send(log, 20 - BATCHES_REMEMBERED - 1)


@pytest.mark.parametrize("checkpoints", [(), (10,), (10, 25, 40)])
def test_duplicates_are_known_after_a_kill(make_store: MakeStore, checkpoints: tuple[int, ...]) -> None:
    store = make_store(segment_bytes=16384)
    log = store.open()
    for sequence in range(200):
        send(log, sequence)
        if sequence in checkpoints:
            store.flush()
            assert store.directory is not None
            store.directory.checkpoint()
    log = store.reopen()
    assert send(log, 199) == (199, True)
    assert send(log, 200) == (200, False)
    with pytest.raises(SequenceError):
        send(log, 202)
    assert log.producer_id_max == 7


def test_truncation_cuts_the_producer_state_back(make_store: MakeStore) -> None:
    store = make_store(segment_bytes=16384)
    log = store.open()
    for sequence in range(200):
        send(log, sequence)
    log.truncate_to(180)
    assert send(log, 180) == (180, False)  # not "duplicate, offset 180": it is not in the log
    assert send(log, 179) == (179, True)
    log.truncate_to(20)
    assert send(log, 20) == (20, False)


def test_an_idle_producer_is_forgotten_by_running_time(make_store: MakeStore) -> None:
    store = make_store(producer_id_expiration_ms=1000)
    log = store.open()
    assert store.directory is not None
    store.directory.maintain(5000)
    send(log, 5)
    store.directory.maintain(6000)
    assert send(log, 5) == (0, True)
    store.directory.maintain(6001)
    assert send(log, 77) == (1, False)
    assert log.producer_id_max == 7


def test_checkpoint_snapshots_do_not_pile_up(make_store: MakeStore) -> None:
    store = make_store()
    log = store.open()
    assert store.directory is not None
    for sequence in range(30):
        send(log, sequence)
        store.flush()
        store.directory.checkpoint()
    assert len(list(store.partition_path.glob("*.snapshot"))) <= 2


producer_batches = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 6), st.integers(1, 3)), max_size=40
)


@given(producer_batches, st.integers(0, 40))
def test_a_snapshot_and_the_batches_behind_it_give_the_same_state(
    batches: list[tuple[int, int, int, int]], cut: int
) -> None:
    whole, offset, accepted = ProducerState(), 0, []
    for producer_id, epoch, sequence, count in batches:
        header = decode_header(make_batch(b"", count, producer=(producer_id, epoch, sequence)))
        try:
            if whole.check(header) is not None:
                continue
        except (SequenceError, ProducerFenced):
            continue
        whole.apply(header, offset, 5, 6)
        accepted.append((header, offset))
        offset += count
    cut = min(cut, len(accepted))
    part = ProducerState()
    for header, at in accepted[:cut]:
        part.apply(header, at, 5, 6)
    snapshot = decode_snapshot(encode_snapshot(cut, 6, part), cut)
    assert snapshot is not None
    again = snapshot.state()
    for header, at in accepted[cut:]:
        again.apply(header, at, 5, 6)
    assert again.producers == whole.producers
    assert again.producer_id_max == whole.producer_id_max


@given(st.binary(max_size=200), st.integers(0, 2000))
def test_a_snapshot_with_a_flipped_bit_is_not_believed(data: bytes, position: int) -> None:
    state = ProducerState()
    state.apply(decode_header(make_batch(producer=(1, 0, 0))), 0, 5, 6)
    good = bytearray(encode_snapshot(1, 6, state))
    good[position % len(good)] ^= 1 << (position % 8)
    assert decode_snapshot(bytes(good), 1) is None
    assert decode_snapshot(data, 1) is None
