"""The groups of a broker whose partitions of `__consumer_offsets` are real logs, without sockets and clocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from brokerd.groups.records import partition_of
from brokerd.serving.groups import GroupRoom
from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.partition import Partition
from ingest.topic_name import CONSUMER_OFFSETS
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request, api_key_of, decode_body, decode_response
from ingest.wire.message import Message
from ingest.wire.messages import MetadataResponse, PartitionMetadata, TopicMetadata
from replicas.domains import Domains
from replicas.state import PartitionState
from tests.brokerd.storage.stores import TOPIC, Store

READ = b"r" * 16  # the topic that groups read
PEER = Peer(0, b"p")


class LedRoom:
    """A room whose partitions are led here; what it appends is committed at once.

    Attributes:
        in_sync: The brokers that hold what is committed.
    """

    def __init__(self, store: Store, *, partitions: int = 1, in_sync: Sequence[int] = (1,)) -> None:
        directory = store.directory or store.open_directory()
        self.outbox = Outbox()
        self.room = GroupRoom(self.outbox, "1-1")
        self.epoch = 0
        self.now_ms = 0
        self.in_sync = list(in_sync)
        self.partitions = [
            Partition(CONSUMER_OFFSETS, directory.partition(TOPIC, number, store.config), 1)
            for number in range(partitions)
        ]
        self.update()
        self.lead()

    def named(self, partition: int) -> Iterator[str]:
        """Return names of groups of one partition."""
        count = len(self.partitions)
        return (name for number in itertools.count() if partition_of(name := f"g{number}", count) == partition)

    def update(self, deleted: Sequence[bytes] = ()) -> None:
        counts = {CONSUMER_OFFSETS: (TOPIC, len(self.partitions)), "read": (READ, 16)}
        topics = [
            TopicMetadata(name, topic_id, [PartitionMetadata(number, 1, 1, [1], [1]) for number in range(count)], {})
            for name, (topic_id, count) in counts.items()
            if topic_id not in deleted
        ]
        self.room.update(MetadataResponse("c", 1, 1, [], topics, deleted_topic_ids=list(deleted)))

    def lead(self) -> None:
        """Lead all partitions under the next epoch."""
        self.epoch += 1
        for partition in self.partitions:
            self.epoch = max(self.epoch, partition.log.last_epoch + 1)
            state = PartitionState(leader=1, leader_epoch=self.epoch, replicas=self.in_sync, isr=self.in_sync)
            partition.lead(state, dict.fromkeys(self.in_sync, 1), min_in_sync=0, domains=Domains(), now_ms=0)
            self.room.lead(partition)

    def load(self) -> None:
        """Read all that is stored."""
        while self.room.loading:
            self.room.load_some(self.now_ms)

    def send(self, body: Message, *payload: bytes) -> None:
        """Take a request; what it decides is not stored yet."""
        request = Request(api_key_of(body), 1, 1000, body, list(payload), "client")
        self.room.handle(PEER, request, self.now_ms, 0)

    def store(self) -> list[Any]:
        """Store what was decided, have it committed, and return the answers, codes for requests that were refused."""
        self.room.store(0)
        for partition in self.partitions:
            partition.log.advance_high_watermark(partition.log.end_offset)
            self.room.committed(partition)
        return [decode_response([answer.header]) for answer in self.outbox.take()]

    def ask(self, body: Message, *payload: bytes) -> Any:
        """Return the one answer to a request, or the code it is refused with."""
        self.send(body, *payload)
        (response,) = self.store()
        if response.error_code:
            return ErrorCode(response.error_code)
        return decode_body(response, api_key_of(body))
