"""Librdkafka under a fault run, unchanged, at the Kafka listener: producers, readers and members of a group."""

from __future__ import annotations

import itertools
import threading
import time
from types import TracebackType
from typing import Any

import pytest

from tests.faults.history import History

confluent = pytest.importorskip("confluent_kafka")

POLL_S = 0.05
BURST = 20
QUICK = {  # what librdkafka waits for between tries: a run of seconds has no time for its defaults
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 200,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 200,
    "topic.metadata.refresh.interval.ms": 5000,
    "log_level": 0,
}


class _Worker:
    """A loop in a thread, ended with its context; `problems` is what went wrong."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    def __enter__(self):  # type: ignore[no-untyped-def]  # of the subclass' own type
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.problems.append(f"{self.name} ended: {error!r}")
            raise

    def _run(self) -> None:
        raise NotImplementedError


class ConfluentProducer(_Worker):
    """An idempotent producer with acks=all that sends at a steady pace; each record is sent once by who uses it.

    Args:
        source: In the history; its records go to one partition.
    Attributes:
        places: (partition, offset) of each acknowledged record, by sequence number.
    """

    def __init__(
        self, history: History, address: str, topic: str, *, source: int, partition: int, per_s: int, **options: Any
    ) -> None:
        super().__init__(f"producer-{source}")
        self.source = source
        self.places: dict[int, tuple[int, int]] = {}
        self._history = history
        self._topic = topic
        self._partition = partition
        self._per_s = per_s
        self._producer = confluent.Producer(
            {
                "bootstrap.servers": address,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                "batch.num.messages": 10,  # so that several batches are under way
                "error_cb": self._on_error,
                **QUICK,
                **options,
            }
        )

    def finish(self, timeout_s: float = 60.0) -> None:
        """Send nothing new, and wait until every record has its outcome."""
        self.stop()
        left = self._producer.flush(timeout_s)
        if left:
            self.problems.append(f"{self.name}: {left} records without an outcome after {timeout_s:.0f} s")

    def _run(self) -> None:
        for seq in itertools.count():
            self._history.transmitted(self.source, seq)

            def delivered(error: Any, message: Any, seq: int = seq) -> None:
                self._delivered(seq, error, message)

            self._producer.produce(
                self._topic, self._history.value(self.source, seq), partition=self._partition, on_delivery=delivered
            )
            if seq % BURST == 0:
                self._producer.poll(0)
                if self._stopping.wait(BURST / self._per_s):
                    return

    def _on_error(self, error: Any) -> None:
        if error.fatal():
            self.problems.append(f"{self.name}: {error}")

    def _delivered(self, seq: int, error: Any, message: Any) -> None:
        if error is not None:
            self.problems.append(f"{self.name}: {seq}: {error}")
            return
        self.places[seq] = (message.partition(), message.offset())
        self._history.acknowledged(self.source, seq, time.monotonic())

    def misplaced(self, partitions: dict[int, list[bytes]]) -> list[str]:
        """Return which acknowledged records are not at the offset that the producer was told."""
        return [
            f"{self.name}: {seq} was acknowledged at {place}"
            for seq, place in self.places.items()
            if not 0 <= place[1] < len(partitions[place[0]])
            or partitions[place[0]][place[1]] != self._history.value(self.source, seq)
        ]


class Copy:
    """What was read of a topic, by one reader or by several members of a group together. Thread: any."""

    def __init__(self, partitions: int) -> None:
        self.values: dict[int, list[bytes]] = {number: [] for number in range(partitions)}
        self.again = 0
        self._lock = threading.Lock()

    def add(self, partition: int, offset: int, value: bytes, *, once: bool) -> str:
        """Take a record; return what is wrong with it: a gap before it, another value, or that it came before."""
        with self._lock:
            values = self.values[partition]
            if offset == len(values):
                values.append(value)
                return ""
            self.again += 1
            if offset > len(values) or once:
                return f"{partition} goes on at {offset}, not {len(values)}"
            return "" if values[offset] == value else f"{partition} {offset} changed"

    def reached(self, ends: dict[int, int]) -> bool:
        return all(len(self.values[partition]) >= end for partition, end in ends.items())


class ConfluentReader(_Worker):
    """A consumer of all partitions, or a member of a group.

    Alone it must see each record once, in order. Members may see some again when a partition changes hands; together
    they leave nothing out.
    """

    def __init__(self, address: str, topic: str, copy: Copy, *, group: str = "", number: int = 0) -> None:
        super().__init__(f"{group}-{number}" if group else "reader")
        self.copy = copy
        self._topic = topic
        self._is_member = bool(group)
        self._consumer = confluent.Consumer(
            {
                "bootstrap.servers": address,
                "group.id": group or "nobody",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": self._is_member,
                "auto.commit.interval.ms": 200,
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                "fetch.wait.max.ms": 100,
                "check.crcs": True,
                **QUICK,
            }
        )

    def _run(self) -> None:
        consumer = self._consumer
        if self._is_member:
            consumer.subscribe([self._topic])
        else:
            consumer.assign([confluent.TopicPartition(self._topic, number, 0) for number in self.copy.values])
        try:
            while not self._stopping.is_set():
                for message in consumer.consume(500, POLL_S):
                    self._take(message)
        finally:
            consumer.close()

    def _take(self, message: Any) -> None:
        error = message.error()
        if error is None:
            wrong = self.copy.add(message.partition(), message.offset(), message.value(), once=not self._is_member)
        else:
            wrong = str(error) if error.fatal() or not error.retriable() else ""
        if wrong:
            self.problems.append(f"{self.name}: {wrong}")
