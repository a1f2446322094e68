"""A Kafka client on another machine than the test's, a process: `python -m tests.faults.kafka_client BOOTSTRAP TOPIC`.

It produces numbers and reads them back, an event a line on its output, until its standard input ends; then it waits for
what it has not read yet. Its last line is what became of it, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

PER_S = 100
PATIENCE_S = 60.0


def brokers(bootstrap: str) -> dict[int, str]:
    """Return where each broker id is, as the client is told."""
    found = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=30).brokers
    return {one.id: f"{one.host}:{one.port}" for one in found.values()}


def main(bootstrap: str, topic: str) -> None:
    # a machine that is cut off answers nothing: what was asked of it is given up after socket.timeout.ms
    common = {"bootstrap.servers": bootstrap, "log_level": 0, "topic.metadata.refresh.interval.ms": 5000}
    common["socket.timeout.ms"] = 10_000
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    acknowledged: list[int] = []
    failed: list[str] = []
    places: dict[int, set[tuple[int, int]]] = {}  # where each number was read; again at the same one is no wonder

    def delivered(error: Any, message: Any) -> None:
        if error is None:
            acknowledged.append(int(message.value()))
            print("acknowledged", message.value().decode(), message.partition(), flush=True)
        else:
            failed.append(f"{message.value()}: {error}")

    producer = Producer({**common, "enable.idempotence": True, "acks": "all"})
    consumer = Consumer(
        {**common, "group.id": f"{topic}-group", "auto.offset.reset": "earliest", "session.timeout.ms": 6000}
    )
    consumer.subscribe([topic])

    def read(timeout_s: float) -> None:
        for message in consumer.consume(1000, timeout_s):
            if not message.error():
                at = (message.partition(), message.offset())
                places.setdefault(int(message.value()), set()).add(at)
                print("read", message.value().decode(), message.partition(), flush=True)

    number = 0
    while not over.is_set():
        producer.produce(topic, b"%d" % number, partition=number % 6, on_delivery=delivered)
        number += 1
        producer.poll(0)
        read(1 / PER_S)
    unsent = producer.flush(PATIENCE_S)
    deadline_s = time.monotonic() + PATIENCE_S
    while set(acknowledged) - places.keys() and time.monotonic() < deadline_s:
        read(0.5)
    consumer.close()
    outcome = {
        "sent": number,
        "failed": failed + ["not told"] * unsent,
        "lost": sorted(set(acknowledged) - places.keys()),
        "twice": sorted(number for number, at in places.items() if len(at) > 1),
        "brokers": brokers(bootstrap),
    }
    print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
