"""The producer's core: order, retries, sequences, give-ups."""

from __future__ import annotations

from ingest.client.batch import ProducerBatch
from ingest.client.partition_queue import IN_FLIGHT_MAX, PartitionQueue
from ingest.client.sender import (
    NeedProducerId,
    RefreshMetadata,
    Resolved,
    Sender,
    SendProduce,
)
from ingest.errors import Fenced, RemoteError, TransportError
from ingest.records.header import decode_header
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import ProducedPartition

TIMEOUT_MS = 10_000


def make_sender(*, idempotent: bool = True, linger_ms: int = 0) -> Sender:
    sender = Sender(codec=0, idempotent=idempotent, linger_ms=linger_ms, delivery_timeout_ms=TIMEOUT_MS)
    if idempotent:
        assert sender.drain(0) == [NeedProducerId(-1, -1)]
        sender.on_producer_id(7, 0)
    return sender


def make_queue(leader: int = 1, known_producer_id: int = 7) -> PartitionQueue:
    queue = PartitionQueue("t", b"i" * 16, 0, 65536)
    queue.known_producer_id = known_producer_id
    queue.leader = leader
    queue.leader_epoch = 1
    return queue


def gather(sender: Sender, queue: PartitionQueue, values: list[bytes], now_ms: int = 0) -> ProducerBatch:
    batch = ProducerBatch(queue, now_ms)
    for value in values:
        batch.timestamps.append(now_ms)
        batch.keys.append(None)
        batch.values.append(value)
        batch.size += len(value)
    queue.open = batch
    sender.activate(queue)
    return batch


def send_one(sender: Sender, queue: PartitionQueue, value: bytes, now_ms: int = 0) -> ProducerBatch:
    batch = gather(sender, queue, [value], now_ms)
    assert sender.drain(now_ms) == [SendProduce(queue.leader, [batch])]
    return batch


def ok(offset: int) -> list[ProducedPartition]:
    return [ProducedPartition(0, offset, 0, 0)]


def refused(code: ErrorCode) -> list[ProducedPartition]:
    return [ProducedPartition(int(code))]


def sequence_of(batch: ProducerBatch) -> tuple[int, int]:
    header = decode_header(batch.data)
    return header.producer_epoch, header.base_sequence


def test_an_acknowledged_batch_carries_its_offset_and_leaves_nothing_behind() -> None:
    sender, queue = make_sender(), make_queue()
    batch = send_one(sender, queue, b"a")
    assert sender.on_produced([batch], ok(41), 1) == [Resolved(batch)]
    assert batch.base_offset == 41
    assert batch.error is None
    assert sender.idle


def test_sequences_count_records_over_batches() -> None:
    sender, queue = make_sender(), make_queue()
    first = gather(sender, queue, [b"a", b"b", b"c"])
    sender.drain(0)
    second = send_one(sender, queue, b"d")
    assert [sequence_of(first), sequence_of(second)] == [(0, 0), (0, 3)]


def test_no_more_than_five_batches_are_under_way() -> None:
    sender, queue = make_sender(), make_queue()
    batches = [send_one(sender, queue, b"%d" % n) for n in range(IN_FLIGHT_MAX)]
    late = gather(sender, queue, [b"late"])
    assert sender.drain(0) == []
    sender.on_produced([batches[0]], ok(0), 1)
    assert sender.drain(1) == [SendProduce(1, [late])]


def test_until_the_broker_knows_the_producer_one_batch_is_under_way() -> None:
    """Of two, a broker that has just started refuses the first, and takes the second: any sequence is the first."""
    sender, queue = make_sender(), make_queue(known_producer_id=-1)
    first = send_one(sender, queue, b"a")
    second = gather(sender, queue, [b"b"])
    assert sender.drain(0) == []
    sender.on_produced([first], refused(ErrorCode.NOT_LEADER_OR_FOLLOWER), 1)
    assert sender.drain(1000) == [SendProduce(1, [first])]
    assert sender.next_ms(1000) is None
    sender.on_produced([first], ok(0), 1001)
    assert sender.drain(1001) == [SendProduce(1, [second])]
    third = send_one(sender, queue, b"c", now_ms=1001)
    assert [sequence_of(batch)[1] for batch in (second, third)] == [1, 2]


def test_a_lost_answer_is_asked_again_with_the_same_bytes_and_before_later_batches() -> None:
    sender, queue = make_sender(), make_queue()
    first, second = send_one(sender, queue, b"a"), send_one(sender, queue, b"b")
    bytes_before = first.data
    sender.on_failed([first], TransportError("gone"), 1)
    sender.on_failed([second], TransportError("gone"), 1)
    third = gather(sender, queue, [b"c"], 1)
    sent = [batch for effect in sender.drain(1000) if isinstance(effect, SendProduce) for batch in effect.batches]
    assert sent == [first, second, third]
    assert first.data == bytes_before


def test_not_leader_asks_for_metadata_and_tries_again() -> None:
    sender, queue = make_sender(), make_queue()
    batch = send_one(sender, queue, b"a")
    assert sender.on_produced([batch], refused(ErrorCode.NOT_LEADER_OR_FOLLOWER), 1) == [RefreshMetadata()]
    queue.leader = 2
    assert sender.drain(1000) == [SendProduce(2, [batch])]


def test_a_definite_refusal_fails_the_batch_and_bumps_the_epoch_for_what_follows() -> None:
    sender, queue = make_sender(), make_queue()
    bad, good = send_one(sender, queue, b"bad"), send_one(sender, queue, b"good")
    assert sender.on_produced([bad], refused(ErrorCode.INVALID_RECORD), 1) == [Resolved(bad)]
    assert isinstance(bad.error, RemoteError)
    assert bad.error.definite
    sender.on_produced([good], refused(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER), 1)
    assert sender.drain(1000) == [NeedProducerId(7, 0)]
    sender.on_producer_id(7, 1)
    assert sender.drain(1001) == [SendProduce(1, [good])]
    assert sequence_of(good) == (1, 0)


def test_out_of_order_behind_an_unanswered_batch_waits_for_that_batch() -> None:
    sender, queue = make_sender(), make_queue()
    first, second = send_one(sender, queue, b"a"), send_one(sender, queue, b"b")
    sender.on_failed([first], TransportError("gone"), 1)
    sender.on_produced([second], refused(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER), 1)
    sent = [batch for effect in sender.drain(1000) if isinstance(effect, SendProduce) for batch in effect.batches]
    assert sent == [first, second]
    assert sequence_of(second) == (0, 1)


def test_the_epoch_is_not_bumped_while_an_outcome_is_unknown() -> None:
    sender, queue = make_sender(), make_queue()
    first, second = send_one(sender, queue, b"a"), send_one(sender, queue, b"b", now_ms=5_000)
    sender.on_failed([first], TransportError("gone"), 1)
    assert sender.expire(TIMEOUT_MS) == [Resolved(first)]
    assert sender.drain(TIMEOUT_MS) == []
    sender.on_produced([second], refused(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER), TIMEOUT_MS)
    assert sender.drain(TIMEOUT_MS + 1000) == [NeedProducerId(7, 0)]


def test_a_batch_given_up_while_under_way_is_never_sent_again() -> None:
    sender, queue = make_sender(), make_queue()
    batch = send_one(sender, queue, b"a")
    assert sender.expire(TIMEOUT_MS) == [Resolved(batch)]
    assert sender.on_failed([batch], TransportError("gone"), TIMEOUT_MS) == []
    assert sender.idle
    assert [e for e in sender.drain(TIMEOUT_MS + 1000) if isinstance(e, SendProduce)] == []


def test_a_duplicate_sequence_counts_as_acknowledged() -> None:
    sender, queue = make_sender(), make_queue()
    batch = send_one(sender, queue, b"a")
    assert sender.on_produced([batch], refused(ErrorCode.DUPLICATE_SEQUENCE_NUMBER), 1) == [Resolved(batch)]
    assert batch.error is None


def test_a_fenced_producer_fails_everything_and_sends_no_more() -> None:
    sender, queue = make_sender(), make_queue()
    batch = send_one(sender, queue, b"a")
    gathered = gather(sender, queue, [b"b"])
    effects = sender.on_produced([batch], refused(ErrorCode.INVALID_PRODUCER_EPOCH), 1)
    assert effects == [Resolved(batch), Resolved(gathered)]
    assert isinstance(gathered.error, Fenced)
    assert sender.drain(1000) == []


def test_linger_gathers_until_it_has_passed_or_is_forced() -> None:
    sender, queue = make_sender(linger_ms=10), make_queue()
    batch = gather(sender, queue, [b"a"], 100)
    assert sender.drain(105) == []
    assert sender.next_ms(105) == 110
    assert sender.drain(105, force=True) == [SendProduce(1, [batch])]


def test_what_found_no_connection_was_not_attempted() -> None:
    sender, queue = make_sender(), make_queue()
    batch = send_one(sender, queue, b"a")
    sender.not_sent([batch], 1)
    assert not batch.attempted
    assert sender.drain(1000) == [SendProduce(1, [batch])]


def test_without_idempotence_no_producer_id_is_asked_for() -> None:
    sender, queue = make_sender(idempotent=False), make_queue()
    batch = send_one(sender, queue, b"a")
    assert sequence_of(batch) == (-1, -1)


def test_one_request_carries_one_batch_of_each_partition_of_a_broker() -> None:
    sender = make_sender()
    queues = [make_queue(leader=n % 2) for n in range(4)]
    batches = [gather(sender, queue, [b"a"]) for queue in queues]
    assert sender.drain(0) == [SendProduce(0, [batches[0], batches[2]]), SendProduce(1, [batches[1], batches[3]])]


def test_a_busy_caller_is_waited_for_while_its_batch_fills_fast() -> None:
    sender, queue = make_sender(), make_queue()
    batch = gather(sender, queue, [bytes(20_000)])
    assert batch.size * 3 < queue.limit
    assert sender.drain(1, busy=True) == []
    assert sender.drain(1) == [SendProduce(1, [batch])], "but not when it pauses"


def test_a_busy_caller_is_not_waited_for_where_its_batch_fills_slowly() -> None:
    sender, queue = make_sender(), make_queue()
    batch = gather(sender, queue, [bytes(2_000)])
    assert sender.drain(2, busy=True) == [SendProduce(1, [batch])]
    gather(sender, queue, [bytes(2_000)], 2)
    assert sender.drain(4, busy=True) == [], "while one is under way the next gathers"


def test_busy_is_who_has_gathered_more_than_one_record_over_all_partitions() -> None:
    sender = make_sender()
    assert not sender.gathered(1)
    gather(sender, make_queue(), [b"a"])
    assert not sender.gathered(2)
    gather(sender, make_queue(), [b"b"])
    assert sender.gathered(2)


def test_overdue_batches_are_found_wherever_they_are() -> None:
    sender, queue = make_sender(), make_queue()
    first = send_one(sender, queue, b"1", 0)
    second = gather(sender, queue, [b"2"], 5)
    queue.close_open()
    third = gather(sender, queue, [b"3"], 9)
    assert queue.overdue(-1) == []
    assert queue.overdue(5) == [first, second]
    assert queue.overdue(9) == [first, second, third]


def test_a_gap_in_one_partition_holds_back_no_other() -> None:
    sender, stuck, other = make_sender(), make_queue(), make_queue()
    lost = send_one(sender, stuck, b"lost", 0)
    under_way = send_one(sender, stuck, b"under way", 5)
    assert sender.expire(TIMEOUT_MS) == [Resolved(lost)]
    send_one(sender, other, b"goes on under the old epoch", TIMEOUT_MS)
    sender.on_produced([lost], refused(ErrorCode.NOT_LEADER_OR_FOLLOWER), TIMEOUT_MS)
    assert sender.drain(TIMEOUT_MS) == [], "what is under way there may be in the log"
    sender.on_produced([under_way], ok(0), TIMEOUT_MS)
    assert sender.drain(TIMEOUT_MS) == [NeedProducerId(7, 0)]


def test_a_partition_takes_the_next_epoch_once_nothing_of_the_last_is_under_way() -> None:
    sender, gap, other = make_sender(), make_queue(), make_queue()
    lost = send_one(sender, gap, b"lost", 0)
    old = send_one(sender, other, b"old", TIMEOUT_MS)
    sender.expire(TIMEOUT_MS)
    sender.on_produced([lost], refused(ErrorCode.NOT_LEADER_OR_FOLLOWER), TIMEOUT_MS)
    assert sender.drain(TIMEOUT_MS) == [NeedProducerId(7, 0)]
    sender.on_producer_id(7, 1)
    assert sequence_of(send_one(sender, gap, b"anew", TIMEOUT_MS)) == (1, 0)
    gathered = gather(sender, other, [b"new"], TIMEOUT_MS)
    assert sender.drain(TIMEOUT_MS) == []
    sender.on_failed([old], TransportError("lost"), TIMEOUT_MS)
    assert sender.drain(TIMEOUT_MS + 100) == [SendProduce(1, [old])]
    assert sequence_of(old) == (0, 0)
    sender.on_produced([old], ok(0), TIMEOUT_MS + 100)
    assert sender.drain(TIMEOUT_MS + 100) == [SendProduce(1, [gathered])]
    assert sequence_of(gathered) == (1, 0)


def test_a_broker_that_throttles_is_sent_nothing_until_it_is_over_and_others_are() -> None:
    sender, queue, other = make_sender(), make_queue(), make_queue(leader=2)
    batch = send_one(sender, queue, b"a")
    sender.on_throttled(1, 700, 100)
    sender.on_produced([batch], ok(0), 100)
    held, free = gather(sender, queue, [b"b"], 100), gather(sender, other, [b"c"], 100)
    assert sender.drain(100, force=True) == [SendProduce(2, [free])]
    assert sender.drain(799, force=True) == []
    assert sender.next_ms(200) == 800
    assert sender.drain(800) == [SendProduce(1, [held])]
    assert sender.throttle_ms_total == 700
