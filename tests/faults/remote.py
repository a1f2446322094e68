"""Clients on another machine than the test's: `python -m tests.faults.remote produce|read|describe …` as a process.

`produce` writes a line for each event, which `replay` gives to the test's history; it ends well on SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from ingest.admin import Admin
from ingest.errors import ForebayError
from tests.faults.history import History
from tests.faults.native import NativeProducer
from tests.faults.readers import read_back


class _Told(History):
    """A history that is written down elsewhere."""

    def transmitted(self, source: int, seq: int) -> None:
        _say("transmitted", source, seq)

    def acknowledged(self, source: int, seq: int, at_s: float) -> None:
        _say("acknowledged", source, seq, at_s)

    def failed(self, source: int, seq: int) -> None:
        _say("failed", source, seq)


def _say(*words: object) -> None:
    os.write(1, f"{' '.join(map(str, words))}\n".encode())  # at once: two threads tell


def replay(path: Path, history: History) -> None:
    """Give a history what `produce` wrote; all machines of a test have one monotonic clock."""
    for line in path.read_text().splitlines():
        match line.split():
            case ["transmitted", source, seq]:
                history.transmitted(int(source), int(seq))
            case ["acknowledged", source, seq, at_s]:
                history.acknowledged(int(source), int(seq), float(at_s))
            case ["failed", source, seq]:
                history.failed(int(source), int(seq))


def produce(run: str, source: str, bootstrap: str, topic: str) -> None:
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with NativeProducer(_Told(int(run)), bootstrap, topic, source=int(source)) as producer:
        stopping.wait()
        producer.finish(60)


def read(bootstrap: str, topic: str) -> None:
    values = read_back(bootstrap, topic, local=False)
    print(json.dumps({partition: [value.decode() for value in found] for partition, found in values.items()}))


def describe(bootstrap: str, topic: str) -> None:
    """Print the cluster as it is; wait until a broker answers."""
    while True:
        try:
            with Admin(bootstrap, timeout_ms=2000) as admin:
                metadata = admin.metadata()
                break
        except ForebayError:
            time.sleep(0.1)
    (found,) = [found for found in metadata.topics if found.name == topic]
    shown = {
        "topic_id": found.topic_id.hex(),
        "alive": {broker.broker_id: broker.alive for broker in metadata.brokers},
        "partitions": {
            p.partition: {"leader": p.leader, "replicas": p.replicas, "isr": p.isr} for p in found.partitions
        },
    }
    print(json.dumps(shown))


if __name__ == "__main__":
    {"produce": produce, "read": read, "describe": describe}[sys.argv[1]](*sys.argv[2:])
