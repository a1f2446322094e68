"""Writers and readers of a compacted topic under a fault run, and what each record was when it was sent."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from ingest.consumer import Consumer
from ingest.errors import ForebayError
from ingest.log.names import partition_name
from ingest.producer import Delivery, Producer
from ingest.records.batch import Record, decode_batch
from ingest.records.header import verify_batch, verify_header


class Sent(NamedTuple):
    """One record, by the number in its header, which is its key's order too."""

    key: bytes
    value: bytes | None


class Ledger:
    """What was sent, and where each of it was first seen."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.model: dict[bytes, bytes | None] = {}
        self.problems: list[str] = []
        self._places: dict[tuple[int, int], int] = {}

    def check(self, who: str, partition: int, record: Record) -> int:
        """See to it that a record is what was sent, and where it was before; return its number."""
        number = int(dict(record.headers)["n"] or b"-1")
        if (record.key, record.value) != self.sent[number]:
            self.problems.append(f"{who}: record {number} at {partition}/{record.offset} is another than was sent")
        if self._places.setdefault((partition, record.offset), number) != number:
            self.problems.append(f"{who}: offset {partition}/{record.offset} holds another record than before")
        return number


class KeyedProducer:
    """One producer in a thread that sets and deletes keys, as fast as few are under way."""

    def __init__(self, ledger: Ledger, bootstrap: str, topic: str, *, keys: int, seed: int, per_s: int) -> None:
        self._ledger = ledger
        self._topic = topic
        self._keys = keys
        self._pause_s = 1 / per_s
        self._dice = random.Random(seed)
        self._producer = Producer(bootstrap, delivery_timeout_ms=300_000)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keyed", daemon=True)
        self.acknowledged = 0
        self.failures: list[str] = []

    def __enter__(self) -> KeyedProducer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        self._producer.close(0.1) if kind else self._producer.close(60)

    def finish(self) -> None:
        """Send nothing new, and wait until all is acknowledged."""
        self._stopping.set()
        self._thread.join()
        self._producer.flush(60)

    def await_more(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until so many more are acknowledged."""
        wanted, deadline = self.acknowledged + count, time.monotonic() + timeout_s
        while self.acknowledged < wanted:
            assert time.monotonic() < deadline, f"{count} more acknowledgements"
            time.sleep(0.01)

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_s):
            ledger = self._ledger
            number = len(ledger.sent)
            key = b"key-%d" % self._dice.randrange(self._keys)
            value = None if self._dice.random() < 0.2 else b"%d" % number + bytes(self._dice.randrange(200))
            ledger.sent.append(Sent(key, value))
            ledger.model[key] = value
            self._producer.send(self._topic, value, key, [("n", b"%d" % number)], on_delivery=self._delivered)

    def _delivered(self, delivery: Delivery) -> None:
        error = delivery.exception()
        if error is None:
            self.acknowledged += 1
        else:
            self.failures.append(repr(error))


class KeyedTail:
    """A consumer in a thread that reads a topic from its start, again and again from there once it has it all."""

    def __init__(self, ledger: Ledger, bootstrap: str, topic: str, partitions: int, *, local: bool) -> None:
        self._ledger = ledger
        self._consumer = Consumer(bootstrap, auto_offset_reset="earliest", local=local)
        self._places = [(topic, number) for number in range(partitions)]
        self._who = "maps" if local else "fetches"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"tail-{self._who}", daemon=True)
        self.rounds = 0

    def __enter__(self) -> KeyedTail:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        try:
            self._consumer.assign(self._places)
            while not self._stopping.is_set():
                self._read_to_the_end()
                self.rounds += 1
                self._consumer.seek_to_beginning()
        except ForebayError as error:
            self._ledger.problems.append(f"{self._who}: {error!r}")

    def _read_to_the_end(self) -> None:
        last: dict[int, int] = {}
        newest: dict[bytes, int] = {}
        idle = 0
        while idle < 3 and not self._stopping.is_set():
            records = self._consumer.poll(100, 500)
            idle = 0 if records else idle + 1
            for record in records:
                number = self._ledger.check(self._who, record.partition, record)
                if record.offset <= last.get(record.partition, -1):
                    self._ledger.problems.append(f"{self._who}: offset {record.offset} comes late or again")
                if number <= newest.get(record.key, -1):
                    self._ledger.problems.append(f"{self._who}: {record.key!r} goes back to {number}")
                last[record.partition], newest[record.key] = record.offset, number


def replay(ledger: Ledger, bootstrap: str, topic: str, partitions: int, *, local: bool) -> dict[bytes, bytes]:
    """Read a topic from its start to its end; return what is not deleted."""
    state: dict[bytes, bytes | None] = {}
    with Consumer(bootstrap, auto_offset_reset="earliest", local=local) as consumer:
        places = [(topic, number) for number in range(partitions)]
        consumer.assign(places)
        ends = consumer.end_offsets(places)  # type: ignore[arg-type]
        while any(consumer.position(*place) < end for place, end in ends.items()):
            for record in consumer.poll(1000, 1000):
                ledger.check("replay", record.partition, record)
                state[record.key] = record.value
    return {key: value for key, value in state.items() if value is not None}


def replay_files(ledger: Ledger, home: Path, topic_id: bytes, partitions: int) -> dict[bytes, bytes]:
    """Do the same with the files of one broker's replicas."""
    state: dict[bytes, bytes | None] = {}
    for number in range(partitions):
        following = -1
        for path in sorted((home / partition_name(topic_id, number)).glob("*.log")):
            data, position = path.read_bytes(), 0
            while data[position : position + 4].strip(b"\0"):
                header = verify_header(data, position)
                batch = data[position : position + header.size]
                verify_batch(batch, header)
                assert header.base_offset >= following, f"{path} at {position}"
                following = header.next_offset
                for record in decode_batch(batch, "", number, header).to_records():
                    ledger.check(str(home), number, record)
                    state[record.key] = record.value
                position += header.padded_size
    return {key: value for key, value in state.items() if value is not None}
