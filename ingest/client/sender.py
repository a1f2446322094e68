"""What a producer sends next: batches per partition, sequences, retries, give-ups. A pure core.

Rules it keeps:
- At most `IN_FLIGHT_MAX` batches of a partition are under way; brokers remember as many per producer.
- Until the first of a producer id is acknowledged it is only one: a broker that knows nothing of a producer takes any
  sequence, so that the second would go in where the first was refused, by a broker that is just starting.
- A batch whose outcome is unknown is sent again, byte for byte, with the same sequence, before any later batch.
- A batch that is given up leaves a gap in the sequences of its partition: the epoch is bumped (KIP-360) once no batch's
  outcome is unknown there any more, and what was never appended gets new sequences from 0. Other partitions go on under
  the old epoch, and take the new one when nothing of theirs is under way.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from ingest.client.batch import ProducerBatch
from ingest.client.partition_queue import IN_FLIGHT_MAX, PartitionQueue
from ingest.errors import Fenced, ForebayError, RemoteError, RequestTimedOut, TransportError, UsageError
from ingest.limits import LIMITS
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.messages import ProducedPartition

RETRY_MS_FIRST = 5
RETRY_MS_MAX = 100
_NUMBER = attrgetter("number")

_REFRESH = frozenset(
    {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.UNKNOWN_TOPIC_ID,
    }
)
_NOT_APPENDED = frozenset({ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode.UNKNOWN_PRODUCER_ID})


@dataclass(frozen=True, slots=True)
class SendProduce:
    """Send these batches, of different partitions, to one broker."""

    broker_id: int
    batches: list[ProducerBatch]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The batch is final: acknowledged or failed."""

    batch: ProducerBatch


@dataclass(frozen=True, slots=True)
class RefreshMetadata:
    """A broker's answer proved the metadata old."""


@dataclass(frozen=True, slots=True)
class NeedProducerId:
    """Ask for a producer id, or for the next epoch of the one held."""

    producer_id: int
    producer_epoch: int


Effect = SendProduce | Resolved | RefreshMetadata | NeedProducerId


class Sender:
    """Decide what to send and what the answers mean; touch no socket and no clock.

    Attributes:
        unresolved: Batches in waiting or in flight.
    """

    def __init__(
        self, *, codec: int, idempotent: bool, linger_ms: int, delivery_timeout_ms: int, acks: int = -1
    ) -> None:
        self._codec = codec
        self._idempotent = idempotent
        self._linger_ms = linger_ms
        self._delivery_timeout_ms = delivery_timeout_ms
        self._acks = acks
        self._active: dict[PartitionQueue, None] = {}
        self.producer_id = -1
        self.producer_epoch = -1
        self._asked_for_id = False
        self._gaps: set[PartitionQueue] = set()  # nothing new is sent there before the next epoch
        self.fenced: ForebayError | None = None
        self.retries_total = 0
        self.throttle_ms_total = 0
        self._throttled_until_ms: dict[int, int] = {}  # by broker

    # ---- in ----------------------------------------------------------------------------------------------------------

    def activate(self, queue: PartitionQueue) -> None:
        """Note that the queue has something to send now or later."""
        self._active[queue] = None

    @property
    def idle(self) -> bool:
        """Nothing is gathered, waiting or under way."""
        return not self._active

    def gathered(self, count: int) -> bool:
        """Tell whether as many records or more wait in open batches."""
        for queue in self._active:
            if queue.open is not None:
                count -= len(queue.open.timestamps)
                if count <= 0:
                    return True
        return False

    def on_producer_id(self, producer_id: int, producer_epoch: int) -> None:
        """Take the producer id asked for; where there was a gap, sequences begin anew from 0.

        A gap that came up since it was asked for, with batches whose outcome is unknown, waits for the next epoch.
        """
        self.producer_id, self.producer_epoch = producer_id, producer_epoch
        self._asked_for_id = False
        for queue in [queue for queue in self._gaps if not _is_unsure(queue)]:
            for batch in queue.waiting:
                batch.sequence = -1
            self._gaps.discard(queue)

    def on_producer_id_failed(self) -> None:
        """The request for a producer id failed; `drain` asks again."""
        self._asked_for_id = False

    def on_produced(self, batches: list[ProducerBatch], answers: list[ProducedPartition], now_ms: int) -> list[Effect]:
        """Take a broker's answer for batches sent together."""
        effects: list[Effect] = []
        if len(answers) != len(batches):
            return self.on_failed(batches, TransportError("an answer for another number of partitions"), now_ms)
        for batch, answer in zip(batches, answers, strict=True):
            if answer.error_code == 0:
                batch.base_offset = answer.base_offset
                effects += self._succeeded(batch)
            else:
                effects += self._refused(batch, error_from_code(answer.error_code, answer.message), now_ms)
        return effects

    def on_throttled(self, broker_id: int, throttle_ms: int, now_ms: int) -> None:
        """Send a broker nothing for a while: this client is over its quota there."""
        if throttle_ms > 0:
            self.throttle_ms_total += throttle_ms
            self._throttled_until_ms[broker_id] = now_ms + throttle_ms

    def on_failed(self, batches: list[ProducerBatch], error: ForebayError, now_ms: int) -> list[Effect]:
        """Take an error for a whole request: no answer, or a refusal of all of it."""
        effects: list[Effect] = []
        for batch in batches:
            if isinstance(error, RemoteError):
                effects += self._refused(batch, error, now_ms)
            else:
                effects += self._again(batch, now_ms)
        return effects

    def not_sent(self, batches: Iterable[ProducerBatch], now_ms: int) -> None:
        """Put back batches that there was no connection for."""
        for batch in batches:
            queue = self._leave_flight(batch)
            insort(queue.waiting, batch, key=_NUMBER)
            batch.attempts -= 1
            if batch.attempts == 0:
                batch.attempted = False
            queue.retry_at_ms = now_ms + RETRY_MS_FIRST

    # ---- out ---------------------------------------------------------------------------------------------------------

    def drain(self, now_ms: int, *, force: bool = False, busy: bool = False) -> list[Effect]:
        """Return what to send now.

        Args:
            force: Send gathered records although `linger_ms` has not passed.
            busy: More records come at once: go on gathering while a batch of their partition is under way, or where at
                this pace the gathered one is soon full.
        """
        if self.fenced is not None:
            return []
        effects: list[Effect] = []
        if self._idempotent and (self.producer_id < 0 or self._gaps):
            if not self._asked_for_id and not self._unknown_outcomes():
                self._asked_for_id = True
                effects.append(NeedProducerId(self.producer_id, self.producer_epoch))
            if self.producer_id < 0:
                return effects
        return effects + self._sends(now_ms, force, busy)

    def _sends(self, now_ms: int, force: bool, busy: bool) -> list[Effect]:
        sends: list[Effect] = []
        again = True
        while again:
            again = False
            by_broker: dict[int, list[ProducerBatch]] = {}
            for queue in list(self._active):
                if queue.leader < 0 or self._resumes_ms(queue) > now_ms or self._window_is_full(queue):
                    continue
                batch = self._next(queue, now_ms, force, busy)
                if batch is None:
                    continue
                again = True
                try:
                    self._encode(queue, batch)
                except Exception as error:  # what got past the checks of `send` must not come again for ever
                    text = f"{queue.topic}-{queue.partition}: can't be encoded: {type(error).__name__}: {error}"
                    sends += self._give_up(batch, UsageError(text))
                    continue
                queue.waiting.pop(0)
                batch.attempted = True
                batch.attempts += 1
                batch.topic_id = queue.topic_id
                insort(queue.in_flight, batch, key=_NUMBER)
                by_broker.setdefault(queue.leader, []).append(batch)
            for broker_id, batches in by_broker.items():
                for start in range(0, len(batches), LIMITS.payload_frames_max):
                    sends.append(SendProduce(broker_id, batches[start : start + LIMITS.payload_frames_max]))
        return sends

    def _resumes_ms(self, queue: PartitionQueue) -> int:
        """Return when something may be sent again after an error, or a throttle."""
        return max(queue.retry_at_ms, self._throttled_until_ms.get(queue.leader, 0))

    def _window_is_full(self, queue: PartitionQueue) -> bool:
        known = not self._idempotent or queue.known_producer_id == self.producer_id
        if len(queue.in_flight) >= (IN_FLIGHT_MAX if known else 1):
            return True
        # While one batch gets no answer, later ones may not go on for ever: a broker that remembers it no longer could
        # not tell that it has it.
        following = queue.waiting[0].number if queue.waiting else queue.next_number
        return bool(queue.in_flight) and following - queue.in_flight[0].number >= IN_FLIGHT_MAX

    def _encode(self, queue: PartitionQueue, batch: ProducerBatch) -> None:
        if not self._idempotent:
            if not batch.data:
                batch.encode(self._codec, -1, -1, -1)
            return
        if batch.sequence >= 0:
            return
        epoch = (self.producer_id, self.producer_epoch)
        if queue.sequence_epoch != epoch:
            queue.sequence_epoch, queue.next_sequence = epoch, 0
        batch.encode(self._codec, self.producer_id, self.producer_epoch, queue.next_sequence)
        queue.next_sequence = (queue.next_sequence + batch.count) & 0x7FFFFFFF

    def _next(self, queue: PartitionQueue, now_ms: int, force: bool, busy: bool) -> ProducerBatch | None:
        """Return the batch to send, the first that waits; it leaves the queue once it is encoded."""
        if queue.waiting:
            return None if self._is_held_back(queue, queue.waiting[0]) else queue.waiting[0]
        gathered = queue.open
        if gathered is None or self._is_held_back(queue, gathered):
            return None
        if busy and (queue.in_flight or gathered.fills_soon(queue.limit, now_ms)):
            return None
        if not force and self._linger_ms and now_ms - gathered.created_ms < self._linger_ms:
            return None
        return queue.close_open()

    def _is_held_back(self, queue: PartitionQueue, batch: ProducerBatch) -> bool:
        """Tell whether a batch must wait for an epoch: for the next one, or for the end of the last one here."""
        if not self._idempotent:
            return False
        if queue in self._gaps:
            return not batch.attempted
        changed = queue.sequence_epoch != (self.producer_id, self.producer_epoch)
        return changed and batch.sequence < 0 and bool(queue.in_flight)

    def expire(self, now_ms: int) -> list[Effect]:
        """Give up on batches older than the delivery timeout."""
        effects: list[Effect] = []
        for queue in list(self._active):
            for batch in queue.overdue(now_ms - self._delivery_timeout_ms):
                error = RequestTimedOut(
                    f"{queue.topic}-{queue.partition}: not acknowledged within {self._delivery_timeout_ms} ms; "
                    + ("the outcome is unknown" if batch.attempted else "it was not appended")
                    + (f"; the last answer was {batch.reason}" if batch.reason else "")
                )
                effects += self._give_up(batch, error)
        return effects

    def retire(self, queue: PartitionQueue, error: ForebayError) -> list[Effect]:
        """Fail what waits for a partition that is gone; what is under way is failed when it comes back."""
        queue.retired = error
        effects: list[Effect] = []
        for batch in (*queue.waiting, *([queue.open] if queue.open else [])):
            batch.attempted, batch.sequence = False, -1
            effects += self._give_up(batch, error)
        return effects

    def fail_all(self, error: ForebayError) -> list[Effect]:
        """Fail everything that is not resolved."""
        effects: list[Effect] = []
        for queue in list(self._active):
            for batch in (*queue.in_flight, *queue.waiting, *([queue.open] if queue.open else [])):
                effects += self._give_up(batch, error)
        return effects

    def unresolved(self) -> list[ProducerBatch]:
        """Return all batches that are not final, in order per partition."""
        return [
            batch
            for queue in self._active
            for batch in (*queue.in_flight, *queue.waiting, *([queue.open] if queue.open else []))
        ]

    def next_ms(self, now_ms: int) -> int | None:
        """Return when `drain` has something to do at the latest, None: only after an answer."""
        times = []
        for queue in self._active:
            if self._window_is_full(queue) or queue.leader < 0:
                continue
            first = queue.waiting[0] if queue.waiting else queue.open
            if first is None or self._is_held_back(queue, first):
                continue
            if queue.waiting:
                times.append(max(now_ms, self._resumes_ms(queue)))
            elif queue.open is not None:
                times.append(max(self._resumes_ms(queue), queue.open.created_ms + self._linger_ms))
        return min(times, default=None)

    # ---- outcomes ----------------------------------------------------------------------------------------------------

    def _succeeded(self, batch: ProducerBatch) -> list[Effect]:
        queue = self._leave_flight(batch)
        queue.retries = 0
        queue.known_producer_id = self.producer_id
        return self._resolve(batch, None)

    def _refused(self, batch: ProducerBatch, error: RemoteError, now_ms: int) -> list[Effect]:
        queue: PartitionQueue = batch.queue
        if batch.resolved:  # given up while it was under way
            self.rest(self._leave_flight(batch))
            return []
        if error.code == ErrorCode.DUPLICATE_SEQUENCE_NUMBER:
            return self._succeeded(batch)
        if isinstance(error, Fenced):
            self.fenced = error
            return self.fail_all(error)
        if error.code in _NOT_APPENDED and self._idempotent:
            self._leave_flight(batch)
            earlier = [other for other in (*queue.in_flight, *queue.waiting) if other.number < batch.number]
            insort(queue.waiting, batch, key=_NUMBER)
            batch.attempted = False
            if not any(other.attempted for other in earlier):
                self._gaps.add(queue)
                batch.sequence = -1
            queue.retry_at_ms = now_ms + RETRY_MS_FIRST
            self.retries_total += 1
            return []
        batch.reason = str(error)
        if error.retriable or not error.definite:
            effects = self._again(batch, now_ms, definite=error.definite)
            if error.code in _REFRESH:
                effects.append(RefreshMetadata())
            return effects
        self._leave_flight(batch)
        batch.attempted = False
        return self._give_up(batch, error, leaves_gap=True)

    def _again(self, batch: ProducerBatch, now_ms: int, *, definite: bool = False) -> list[Effect]:
        queue = self._leave_flight(batch)
        if batch.resolved:  # given up while it was under way
            self.rest(queue)
            return []
        if queue.retired is not None:
            return self._give_up(batch, queue.retired)
        if definite and batch.attempts == 1:
            batch.attempted = False
        if batch.topic_id != queue.topic_id:  # sent to a topic that is gone with all it held
            batch.sequence, batch.attempted = -1, False
        insort(queue.waiting, batch, key=_NUMBER)
        queue.retries += 1
        self.retries_total += 1
        queue.retry_at_ms = now_ms + min(RETRY_MS_MAX, RETRY_MS_FIRST << min(queue.retries - 1, 8))
        return []

    def _give_up(self, batch: ProducerBatch, error: ForebayError, *, leaves_gap: bool = False) -> list[Effect]:
        queue: PartitionQueue = batch.queue
        if batch.resolved:
            return []
        if self._idempotent and (batch.attempted or leaves_gap or batch.sequence >= 0):
            self._gaps.add(queue)
        if batch in queue.waiting:
            queue.waiting.remove(batch)
        if queue.open is batch:
            queue.open = None
        return self._resolve(batch, error)

    def _resolve(self, batch: ProducerBatch, error: ForebayError | None) -> list[Effect]:
        self.rest(batch.queue)
        if batch.resolved:
            return []
        batch.error = error
        batch.resolved = True
        batch.data = b""
        return [Resolved(batch)]

    def _leave_flight(self, batch: ProducerBatch) -> PartitionQueue:
        queue: PartitionQueue = batch.queue
        queue.in_flight.remove(batch)
        return queue

    def rest(self, queue: PartitionQueue) -> None:
        """Note that the queue may have nothing left to send."""
        if not queue.in_flight and not queue.waiting and queue.open is None:
            self._active.pop(queue, None)

    def _unknown_outcomes(self) -> bool:
        return any(map(_is_unsure, self._gaps))


def _is_unsure(queue: PartitionQueue) -> bool:
    """Tell whether some batch may be in the log or not."""
    return bool(queue.in_flight) or any(batch.attempted for batch in queue.waiting)
