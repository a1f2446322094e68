"""A member of a group that writes down all it sees, a line of JSON each, in one write: what a kill leaves is whole.

`python -m tests.faults.group_member BOOTSTRAP TOPIC GROUP STRATEGY MAX_POLL_MS` writes to standard output.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from ingest import Consumer
from ingest.consumer import RebalanceListener, TopicPartition
from ingest.errors import ForebayError, RemoteError


def tell(event: str, **fields: Any) -> None:
    os.write(1, json.dumps({"at_s": time.monotonic(), "event": event, **fields}).encode() + b"\n")


class Teller(RebalanceListener):
    """Write down what comes and goes. What is taken away is done with when that is written."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        identity = self._consumer.group_metadata()
        if identity is not None:
            tell("assigned", generation=identity.generation, partitions=[name.partition for name in partitions])

    def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        commit(self._consumer)
        tell("revoked", partitions=[name.partition for name in partitions])

    def on_partitions_lost(self, partitions: Sequence[TopicPartition]) -> None:
        tell("lost", partitions=[name.partition for name in partitions])


def commit(consumer: Consumer) -> None:
    offsets = {name: consumer.position(*name) for name in consumer.assignment()}
    asked_s = time.monotonic()
    try:
        consumer.commit(offsets, timeout_ms=1000)  # well within max_poll_interval_ms
        tell("committed", asked_s=asked_s, offsets={name.partition: offset for name, offset in offsets.items()})
    except RemoteError as error:
        tell("refused", code=error.code)
    except ForebayError as error:
        tell("unknown", reason=str(error))


def main(bootstrap: str, topic: str, group: str, strategy: str, max_poll_ms: int) -> None:
    dice = random.Random(os.getpid())
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    consumer = Consumer(
        bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        partition_assignment_strategy=strategy,
        max_poll_interval_ms=max_poll_ms,
        heartbeat_interval_ms=300,
    )
    consumer.subscribe([topic], listener=Teller(consumer))
    tell("started", pid=os.getpid())
    turn_s = time.monotonic()
    while not stopping:
        before_s, turn_s = turn_s, time.monotonic()
        if turn_s - before_s > max_poll_ms / 1000 and consumer.assignment():
            commit(consumer)  # it stood still: perhaps others have gone on meanwhile
        read: dict[int, list[int]] = {}
        for record in consumer.poll(20, max_records=50):
            place = read.setdefault(record.partition, [record.offset, record.offset - 1])
            assert record.offset == place[1] + 1, "a gap within a poll"
            place[1] = record.offset
        if read:
            tell("read", ranges=read)
        if dice.random() < 0.2 and all(consumer.position(*name) >= 0 for name in consumer.assignment()):
            commit(consumer)
    consumer.close()
    tell("left")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
