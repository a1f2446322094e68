"""Producers with the real sender core, readers by fetch at leaders and followers, readers of the mapped files."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from ingest.client.batch import ProducerBatch
from ingest.client.partition_queue import PartitionQueue
from ingest.client.sender import NeedProducerId, Resolved, Sender, SendProduce
from ingest.errors import ForebayError, RequestTimedOut, TransportError
from ingest.records.header import verify_batch, verify_header
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import api_key_of, decode_body, decode_response, encode_request
from ingest.wire.messages import (
    LATEST_TIMESTAMP,
    FetchPartition,
    FetchRequest,
    InitProducerIdRequest,
    ListOffsetsPartition,
    ListOffsetsRequest,
    MetadataRequest,
    MetadataResponse,
    ProducePartition,
    ProduceRequest,
)
from tests.simulation.disk import TOPIC_ID, Batch, Key
from tests.simulation.history import Violation
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

DELIVERY_TIMEOUT_MS = 8_000
REQUEST_TIMEOUT_MS = 1_000
METADATA_MS = 150
KEYS = 40  # of a compacted topic, each in every partition


class Client(Process):
    """Requests to brokers by id, metadata from any of them."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name, "clients")
        self.metadata: MetadataResponse | None = None
        self._number = 0
        self._requests: dict[int, tuple[Any, Any]] = {}
        self._ask_metadata()

    def ask(
        self, broker_id: int, body: Any, payload: list[bytes], on_done: Any, timeout_ms: int = REQUEST_TIMEOUT_MS
    ) -> None:
        """Send a request; `on_done(body or None, payload or error)` is called once."""
        self._number += 1
        number = self._number
        header = encode_request(body, number, timeout_ms, self.name)
        self._requests[number] = (body, on_done)
        self.world.network.post(
            self, f"broker-{broker_id}", lambda process: self.deliver(process, number, header, payload)
        )
        self.after(timeout_ms, lambda: self._give_up(number))

    def deliver(self, process: Any, number: int, header: bytes, payload: list[bytes]) -> None:
        """Have a broker take a request that has reached it."""
        process.receive(self.name, self.incarnation, 0, header, payload)

    def _give_up(self, number: int) -> None:
        found = self._requests.pop(number, None)
        if found is not None:
            found[1](None, RequestTimedOut("no answer"))

    def answered(self, broker_id: int, connection: int, frames: list[bytes]) -> None:
        response = decode_response(frames)
        found = self._requests.pop(response.correlation_id, None)
        if found is None:
            return
        request, on_done = found
        try:
            body = decode_body(response, api_key_of(request))
        except ForebayError as error:
            on_done(None, error)
            return
        on_done(body, response.payload)

    def _ask_metadata(self) -> None:
        broker = self.world.schedule.dice.choice(sorted(self.world.disks))
        self.ask(broker, MetadataRequest(None), [], self._take_metadata, METADATA_MS)
        self.after(METADATA_MS, self._ask_metadata)

    def _take_metadata(self, body: Any, _: Any) -> None:
        if body is not None and (self.metadata is None or body.version >= self.metadata.version):
            self.metadata = body
            self.on_metadata()

    def on_metadata(self) -> None:
        pass

    def partitions(self) -> dict[Key, tuple[int, int]]:
        """Return (leader, leader epoch) of each partition that is produced to, as far as is known here."""
        if self.metadata is None:
            return {}
        alive = {broker.broker_id for broker in self.metadata.brokers if broker.alive}
        return {
            (topic.topic_id, p.partition): (p.leader if p.leader in alive else -1, p.leader_epoch)
            for topic in self.metadata.topics
            for p in topic.partitions
            if topic.topic_id == TOPIC_ID
        }


class SimProducer(Client):
    """Send numbered values to every partition, idempotent, acks=all.

    Attributes:
        stopped_sending: It only finishes what it has begun.
    """

    def __init__(self, world: World, name: str, every_ms: int) -> None:
        self._every_ms = every_ms
        self.sender = Sender(codec=0, idempotent=True, linger_ms=0, delivery_timeout_ms=DELIVERY_TIMEOUT_MS)
        self.queues: dict[Key, PartitionQueue] = {}
        self.stopped_sending = False
        self._sent = 0
        self._values: dict[ProducerBatch, list[bytes]] = {}  # a batch drops them once it is encoded
        self._keys = random.Random(f"{world.seed} {name} keys")
        super().__init__(world, name)
        self.after(1, self._produce)

    @property
    def unresolved(self) -> int:
        return len(self.sender.unresolved())

    def on_metadata(self) -> None:
        for key, (leader, epoch) in self.partitions().items():
            queue = self.queues.setdefault(key, PartitionQueue("t", key[0], key[1], 65536))
            queue.leader, queue.leader_epoch = leader, epoch

    def _produce(self) -> None:
        dice = self.world.schedule.dice
        if self.queues and not self.stopped_sending and self.unresolved < 30:
            queue = self.queues[dice.choice(sorted(self.queues))]
            if queue.open is None:
                queue.open = ProducerBatch(queue, self.now_ms)
                self._values[queue.open] = []
                self.sender.activate(queue)
            for _ in range(dice.randrange(1, 4)):
                self._sent += 1
                self._add(queue.open, b"%s:%d" % (self.name.encode(), self._sent))
        self.after(dice.randrange(1, 2 * self._every_ms), self._produce)

    def _add(self, batch: ProducerBatch, value: bytes) -> None:
        """Add a record; to a compacted topic with one of a few keys, now and then a tombstone, which bears its name."""
        self._values[batch].append(value)
        batch.timestamps.append(self.now_ms)
        batch.size += len(value)
        if self.world.plan.cleanup_policy == "delete":
            batch.keys.append(None)
            batch.values.append(value)
            return
        is_tombstone = self._keys.random() < 0.3
        batch.keys.append(b"%d" % (KEYS * self._keys.random() ** 2))  # some are seldom written again
        batch.values.append(None if is_tombstone else value)
        batch.headers = batch.headers or []
        batch.headers.append((("name", value),) if is_tombstone else None)

    def settle(self) -> None:
        self._act(self.sender.expire(self.now_ms))
        self._act(self.sender.drain(self.now_ms))

    def _act(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case NeedProducerId():
                    broker = self.world.schedule.dice.choice(sorted(self.world.disks))
                    body = InitProducerIdRequest(effect.producer_id, effect.producer_epoch)
                    self.ask(broker, body, [], self._on_producer_id)
                case SendProduce(broker_id=broker_id, batches=batches):
                    self._send(broker_id, batches)
                case Resolved(batch=batch):
                    self._resolved(batch)

    def _on_producer_id(self, body: Any, _: Any) -> None:
        if body is None:
            self.sender.on_producer_id_failed()
        else:
            self.sender.on_producer_id(body.producer_id, body.producer_epoch)

    def _send(self, broker_id: int, batches: list[ProducerBatch]) -> None:
        items = [
            ProducePartition(batch.queue.topic_id, batch.queue.partition, batch.queue.leader_epoch) for batch in batches
        ]

        def done(body: Any, outcome: Any) -> None:
            if body is None:
                error = outcome if isinstance(outcome, ForebayError) else TransportError("lost")
                self._act(self.sender.on_failed(batches, error, self.now_ms))
            else:
                self._act(self.sender.on_produced(batches, body.partitions, self.now_ms))

        self.ask(broker_id, ProduceRequest(-1, items), [bytes(batch.data) for batch in batches], done)

    def _resolved(self, batch: ProducerBatch) -> None:
        key = (batch.queue.topic_id, batch.queue.partition)
        history = self.world.history
        for index, value in enumerate(self._values.pop(batch)):
            if batch.error is None:
                history.acknowledged(key, value, batch.base_offset + index)
            elif not batch.attempted:
                history.failed_for_certain(value)
        history.events["resolved" if batch.error is None else "given up"] += 1


class SimReader(Client):
    """Read one partition from its start through fetches, and believe nothing."""

    def __init__(self, world: World, name: str, partition: int) -> None:
        self._partition = partition
        self.position = 0
        self._last_epoch = -1
        super().__init__(world, name)
        self.after(5, self._fetch)

    def _fetch(self) -> None:
        wait_ms = self.world.schedule.dice.randrange(5, 200)
        for key, (leader, epoch) in self.partitions().items():
            if key[1] == self._partition and leader >= 0:
                item = FetchPartition(*key, self.position, 1 << 16, epoch, self._last_epoch)
                position = self.position
                source, rack = self._choose(key, leader)

                def done(body: Any, payload: Any, key: Key = key, position: int = position) -> None:
                    if body is not None and position == self.position:
                        self._take(key, body.partitions[0], payload)
                    self.after(5, self._fetch)

                if self.world.schedule.dice.random() < 0.1:
                    end = ListOffsetsPartition(*key, LATEST_TIMESTAMP, epoch)
                    self.ask(leader, ListOffsetsRequest([end]), [], partial(self._take_end, self.position))
                self.ask(source, FetchRequest(wait_ms, 1, 1 << 16, [item], rack=rack), [], done)
                return
        self.after(50, self._fetch)

    def _choose(self, key: Key, leader: int) -> tuple[int, str]:
        """Return the broker to ask, and the rack to name."""
        return leader, ""

    def _take_end(self, position: int, body: Any, _: Any) -> None:
        if body is None or body.partitions[0].error_code or self.world.lossy:
            return
        if body.partitions[0].offset < position:
            raise Violation(
                f"C8: {self.name} is told that the log ends at {body.partitions[0].offset}, and has read more"
            )

    def _take(self, key: Key, result: Any, payload: Any) -> None:
        lossy = self.world.lossy
        start = result.log_start_offset
        if (
            result.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
            and self.position < start <= self.world.history.trimmed[key]
        ):
            self.position, self._last_epoch = start, -1
            return
        if result.error_code == ErrorCode.OFFSET_OUT_OF_RANGE and self.world.history.mark[key] >= self.position:
            if not lossy:
                raise Violation(f"I19: {self.name} at {self.position} is told that it is out of range")
            return
        if result.error_code == ErrorCode.CORRUPT_MESSAGE and result.next_offset > self.position and not lossy:
            raise Violation(f"I19: {self.name} at {self.position} is told to go on at {result.next_offset}")
        if result.error_code or result.frame < 0:
            if result.diverging_end_offset >= 0 and not lossy:
                raise Violation(f"I5: {self.name} at {self.position} read what another leader does not have")
            return
        data, at = bytes(payload[result.frame]), 0
        while at < len(data):
            header = verify_header(data, at)
            verify_batch(data[at:], header)
            batch = Batch(header, data[at : at + header.padded_size])
            if header.next_offset > self.position:
                self.world.history.read_on(key, self.position, batch, self.name)
                self.world.history.read(key, self.position, batch, self.name)
                self.position, self._last_epoch = header.next_offset, header.leader_epoch
            at += header.padded_size


class NearReader(SimReader):
    """Read one partition in some rack: where the leader says, at any replica, at the leader in between."""

    def __init__(self, world: World, name: str, partition: int) -> None:
        self._rack = world.schedule.dice.choice(sorted(world.machines))
        self._named = -1
        self._strays = False
        self._refused = False
        super().__init__(world, name, partition)

    def _choose(self, key: Key, leader: int) -> tuple[int, str]:
        assert self.metadata is not None
        if self._refused:  # what a follower does not serve the leader does, if it is not to name one
            self._refused = self._strays = False
            return leader, ""
        topic = next(topic for topic in self.metadata.topics if topic.topic_id == key[0])
        replicas = next(p.replicas for p in topic.partitions if p.partition == key[1])
        source, self._named = self._named, -1
        if source < 0:
            source = self.world.schedule.dice.choice([leader, *replicas])
        self._strays = source != leader
        return source, self._rack

    def _take(self, key: Key, result: Any, payload: Any) -> None:
        if self._strays and (result.error_code == ErrorCode.OFFSET_OUT_OF_RANGE or result.diverging_end_offset >= 0):
            raise Violation(f"C8: {self.name} at {self.position} is told by a follower that there is no such offset")
        self._named = result.preferred_read_replica
        self._refused = self._strays and bool(result.error_code)
        self.world.events["sent to a follower"] += self._named >= 0
        before = self.position
        super()._take(key, result, payload)
        self.world.events["read at a follower"] += self._strays and self.position > before


class LocalReader:
    """Read the files of some broker below the mark on its page, as a process beside it does that maps them."""

    def __init__(self, world: World, partition: int) -> None:
        self._world = world
        self._partition = partition
        self._every()

    def _every(self) -> None:
        dice = self._world.schedule.dice
        self._look(dice.choice(sorted(self._world.disks)))
        self._world.schedule.after(dice.randrange(5, 120), self._every)

    def _look(self, broker_id: int) -> None:
        for key, files in self._world.disks[broker_id].files.items():
            if key[1] != self._partition or files.page_mark < 0 or self._world.lossy:
                continue
            for batch in files.cache[-5:]:
                if batch.header.next_offset <= files.page_mark and batch.header.base_offset not in files.rotten:
                    self._world.history.read(key, batch.header.base_offset, batch, f"a reader of broker {broker_id}")
