"""The producer's machinery without threads: the sender core, the cluster's sockets and the memory in between."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from ingest.client.batch import Delivery, ProducerBatch
from ingest.client.cluster import ANY_BROKER, Answered, Cluster, monotonic_ms
from ingest.client.partition_queue import PartitionQueue
from ingest.client.producer_topic import HeldRecord, ProducerTopic, add_extras
from ingest.client.sender import (
    Effect,
    NeedProducerId,
    RefreshMetadata,
    Resolved,
    Sender,
    SendProduce,
)
from ingest.errors import ForebayError, RequestTimedOut, TransportError
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.messages import InitProducerIdRequest, ProducedPartition, ProducePartition, ProduceRequest

log = logging.getLogger("forebay.producer")

REQUEST_TIMEOUT_MS = 30_000
PROBE_MS = 1_000  # how often a producer without acknowledgements asks a broker whether it has a quota there
PRODUCER_ID_TIMEOUT_MS = 2_000


class _UnderWay:
    """A produce request without an answer yet; `given_up` are batches that went to another broker since."""

    __slots__ = ("batches", "broker_id", "given_up")

    def __init__(self, broker_id: int, batches: list[ProducerBatch]) -> None:
        self.broker_id = broker_id
        self.batches = batches
        self.given_up: set[ProducerBatch] = set()


class Pipeline:
    """Batches on their way to the brokers. Thread: under the producer's lock.

    Attributes:
        free_bytes: What of buffer.memory is not reserved by batches and held records.
        held_timeout_ms: How long a record is held whose topic is not known.
        resolved: Batches whose callbacks are to be called, outside the lock.
    """

    def __init__(
        self, cluster: Cluster, sender: Sender, *, acks: int, buffer_memory: int, held_timeout_ms: int
    ) -> None:
        self.cluster = cluster
        self.sender = sender
        self.topics: dict[str, ProducerTopic] = {}
        self.free_bytes = buffer_memory
        self.resolved: list[ProducerBatch] = []
        self.records_total = 0
        self.batches_total = 0
        self.batch_bytes_total = 0
        self._acks = acks
        self._under_way: set[_UnderWay] = set()
        self._counting: set[int] = set()  # brokers at which this client has a quota
        self._probe_at_ms: dict[int, int] = {}
        self.held_timeout_ms = held_timeout_ms
        self._held = 0
        self._calling_back: set[int] = set()  # threads
        self.owner: object = None
        cluster.on_metadata = self._on_metadata

    @property
    def idle(self) -> bool:
        """Nothing is gathered, held, waiting or under way."""
        return self.sender.idle and not self._held

    # ---- batches and memory ------------------------------------------------------------------------------------------

    def open_batch(self, topic: ProducerTopic, queue: PartitionQueue, size: int) -> ProducerBatch:
        """End the queue's open batch, if any, and begin another with memory for `size` bytes reserved.

        Raises:
            RemoteError: no batch of the topic can hold that.
        """
        topic.check_size(size)
        self.close_batch(topic, queue)
        batch = ProducerBatch(queue, monotonic_ms(), self.owner)
        self.reserve(batch, max(size, queue.limit))
        queue.open = batch
        self.sender.activate(queue)
        return batch

    def close_batch(self, topic: ProducerTopic, queue: PartitionQueue) -> None:
        """End the queue's open batch, if any: it waits to be sent; what it did not use of its memory is free."""
        batch = queue.close_open()
        if batch is not None:
            self.reserve(batch, batch.size)
            topic.turn_sticky()

    def drop_half_record(self, batch: ProducerBatch) -> None:
        """After an interruption in `send`: take back what was added of a record, and the batch if it holds no other."""
        queue: PartitionQueue = batch.queue
        if queue.open is batch:
            batch.drop_half_record()
            if not batch.timestamps:
                queue.open = None
                self.reserve(batch, 0)
                self.sender.rest(queue)

    def reserve(self, batch: ProducerBatch, size: int) -> None:
        """Let a batch hold `size` bytes of buffer.memory."""
        self.free_bytes -= size - batch.reserved
        batch.reserved = size

    def hold(self, topic: ProducerTopic, record: HeldRecord, size: int) -> None:
        """Keep a record until its topic is known."""
        batch = record.delivery.batch
        batch.size = size
        self.reserve(batch, size)
        topic.held.append(record)
        self._held += 1

    def release(self, topic: ProducerTopic) -> None:
        """Give the records that waited for the topic to their batches."""
        held, topic.held = topic.held, []
        self._held -= len(held)
        for record in held:
            delivery = record.delivery
            size = delivery.batch.size
            try:
                topic.check_records(keyless=record.key is None, value_sizes=(len(record.value or b""),))
                queue = topic.choose(record.key) if record.partition is None else topic.queue_of(record.partition)
                self.reserve(delivery.batch, 0)
                batch = queue.open
                if batch is None or batch.size + size >= queue.limit:
                    batch = self.open_batch(topic, queue, size)
            except ForebayError as error:
                self._fail_held(record, error)
                continue
            delivery.batch, delivery.index = batch, len(batch.timestamps)
            batch.timestamps.append(record.timestamp_ms)
            batch.keys.append(record.key)
            batch.values.append(record.value)
            batch.size += size
            add_extras(batch, delivery, record.headers, record.on_delivery)

    def _fail_held(self, record: HeldRecord, error: ForebayError) -> None:
        batch = record.delivery.batch
        self.reserve(batch, 0)
        batch.error, batch.resolved = error, True
        if record.on_delivery is not None:
            batch.callbacks = [(record.on_delivery, record.delivery)]
            self.resolved.append(batch)

    def _expire_held(self, now_ms: int) -> None:
        for topic in self.topics.values():
            while topic.held and now_ms - topic.held[0].delivery.batch.created_ms >= self.held_timeout_ms:
                record = topic.held.pop(0)
                self._held -= 1
                reason = self._why_held(topic.name)
                text = f"topic {topic.name} {reason} after {self.held_timeout_ms} ms; the record was never sent"
                self._fail_held(record, RequestTimedOut(text))

    def _why_held(self, topic: str) -> str:
        code = self.cluster.missing.get(topic)
        if code is None:
            return "is not known, no broker answers"
        refused = code not in (ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return f"does not exist and can't be created ({ErrorCode(code).name})" if refused else "does not exist"

    # ---- the work ----------------------------------------------------------------------------------------------------

    def pump(self, *, force: bool = False, busy: bool = False) -> None:
        """Send what is due, take answers, give up on what is overdue; see `Sender.drain`."""
        now_ms = monotonic_ms()
        if not self.sender.idle:  # before anything else: answers can wait, records are waited for
            self._apply(self.sender.drain(now_ms, force=force, busy=busy), now_ms)
        self.cluster.poll(now_ms)
        if self.idle:
            return
        self._apply(self.sender.drain(now_ms, force=force, busy=busy), now_ms)  # where answers made room
        self._apply(self.sender.expire(now_ms), now_ms)
        if self._held:
            self._expire_held(now_ms)
        if self.cluster.unsure:
            self.cluster.poll(now_ms)

    def wait_ms(self) -> int:
        """Return how long to sleep at most before the next `pump`."""
        now_ms = monotonic_ms()
        due = self.sender.next_ms(now_ms)
        wait_ms = 5 if due is None else max(1, due - now_ms)
        return max(0, min(wait_ms, self.cluster.deadline_ms() - now_ms, 5))

    def fail_all(self, error: ForebayError) -> None:
        """Fail everything that is not resolved."""
        self._apply(self.sender.fail_all(error), 0)
        for topic in self.topics.values():
            held, topic.held = topic.held, []
            self._held -= len(held)
            for record in held:
                self._fail_held(record, error)

    def unresolved(self) -> list[Delivery]:
        """Return a handle of every batch that is not final, and those of held records."""
        held = [record.delivery for topic in self.topics.values() for record in topic.held]
        return [Delivery(batch, 0) for batch in self.sender.unresolved()] + held

    def _on_metadata(self) -> None:
        for name, topic in self.topics.items():
            known = self.cluster.topics.get(name)
            if known is not None:
                for queue in topic.update(known):
                    text = f"partition {queue.partition} of {name} is gone: the topic was deleted and created anew"
                    gone = error_from_code(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, text)
                    self._apply(self.sender.retire(queue, gone), monotonic_ms())
                if topic.held:
                    self.release(topic)
        self._leave_deposed()

    def _leave_deposed(self) -> None:
        """Send what is under way to a broker that leads no longer to the one that does: it may never answer."""
        now_ms = monotonic_ms()
        for request in list(self._under_way):
            moved = [
                batch
                for batch in request.batches
                if batch.queue.leader != request.broker_id and batch not in request.given_up
            ]
            if moved:
                request.given_up.update(moved)
                self._apply(self.sender.on_failed(moved, TransportError("another broker leads now"), now_ms), now_ms)

    def _apply(self, effects: Sequence[Effect], now_ms: int) -> None:
        for effect in effects:
            match effect:
                case SendProduce():
                    self._send_produce(effect, now_ms)
                case Resolved(batch=batch):
                    self.reserve(batch, 0)
                    if batch.callbacks is not None:
                        self.resolved.append(batch)
                case RefreshMetadata():
                    self.cluster.wait_for_newer(now_ms)
                case NeedProducerId():
                    self._ask_producer_id(effect, now_ms)

    def _send_produce(self, effect: SendProduce, now_ms: int) -> None:
        batches = effect.batches
        request = _UnderWay(effect.broker_id, batches)
        partitions = []
        for batch in batches:
            self.reserve(batch, batch.size)
            queue: PartitionQueue = batch.queue
            partitions.append(ProducePartition(queue.topic_id, queue.partition, queue.leader_epoch))

        def on_done(answered: Answered) -> None:
            now = monotonic_ms()
            self._under_way.discard(request)
            error, answers = answered.error, [] if answered.error else answered.body.partitions
            self._heed_quota(effect.broker_id, answered, now)
            if not self._acks:
                error, answers = None, [ProducedPartition(0)] * len(batches)
            if error is None and len(answers) != len(batches):
                error = TransportError("an answer for another number of partitions")
            if error is None:
                pairs = [(b, a) for b, a in zip(batches, answers, strict=True) if b not in request.given_up]
                self._apply(self.sender.on_produced([b for b, _ in pairs], [a for _, a in pairs], now), now)
            else:
                self._apply(self.sender.on_failed([b for b in batches if b not in request.given_up], error, now), now)

        broker_id = effect.broker_id
        asks = self._acks != 0 or broker_id in self._counting
        probes = not asks and now_ms >= self._probe_at_ms.get(broker_id, 0)
        if probes:
            self._probe_at_ms[broker_id] = now_ms + PROBE_MS

        def on_probed(answered: Answered) -> None:
            self._heed_quota(broker_id, answered, monotonic_ms())

        if not self.cluster.send(
            broker_id,
            ProduceRequest(self._acks, partitions, tell_throttle=asks or probes),
            on_done if asks else on_probed if probes else None,
            timeout_ms=REQUEST_TIMEOUT_MS,
            payload=[batch.data for batch in batches],
            now_ms=now_ms,
        ):
            self.sender.not_sent(batches, now_ms)
            return
        if self._acks:
            self._under_way.add(request)
        self.batches_total += len(batches)
        for batch in batches:
            self.records_total += batch.count
            self.batch_bytes_total += len(batch.data)
        if not asks:
            self._apply(self.sender.on_produced(batches, [ProducedPartition(0)] * len(batches), now_ms), now_ms)

    def _heed_quota(self, broker_id: int, answered: Answered, now_ms: int) -> None:
        """Take note of a quota. With acks 0 what is under way to a broker that has one is bounded by its answers."""
        if answered.error is not None:
            return
        self.sender.on_throttled(broker_id, answered.body.throttle_ms, now_ms)
        if answered.body.counted:
            self._counting.add(broker_id)
        else:
            self._counting.discard(broker_id)

    def _ask_producer_id(self, effect: NeedProducerId, now_ms: int) -> None:
        def on_done(answered: Answered) -> None:
            if answered.error is None:
                self.sender.on_producer_id(answered.body.producer_id, answered.body.producer_epoch)
            else:
                self.sender.on_producer_id_failed()

        body = InitProducerIdRequest(effect.producer_id, effect.producer_epoch)
        if not self.cluster.send(ANY_BROKER, body, on_done, timeout_ms=PRODUCER_ID_TIMEOUT_MS, now_ms=now_ms):
            self.sender.on_producer_id_failed()

    def run_callbacks(self) -> None:
        """Call the callbacks of resolved batches; one that raises is logged. Thread: any, without the lock."""
        me = threading.get_ident()
        if me in self._calling_back:
            return  # a callback that sends: the loop it was called from goes on with these
        self._calling_back.add(me)
        try:
            while self.resolved:
                self._call_back(self.resolved.pop(0))
        except IndexError:
            pass  # another thread took the last
        finally:
            self._calling_back.discard(me)

    def _call_back(self, batch: ProducerBatch) -> None:
        callbacks, batch.callbacks = batch.callbacks or (), None
        for callback, delivery in callbacks:
            try:
                callback(delivery)
            except Exception:  # the outermost frame of somebody else's code: others wait for their callbacks
                log.exception("on_delivery raised")


def placeholder(owner: object) -> Delivery:
    """Return the handle of a record that is held until its topic is known."""
    return Delivery(ProducerBatch(None, monotonic_ms(), owner), 0)
