"""One produce run in a process of its own: `send`, `send_arrays`, or confluent-kafka, to its mock cluster or not."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

DEVICES = 50


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    work = {"send": _send, "send_arrays": _send_arrays, "confluent_kafka": _confluent}[arguments["how"]]
    cpu = time.process_time()
    count, seconds, extra = work(**{k: v for k, v in arguments.items() if k != "how"})
    size = arguments["size"]
    return {
        "records_per_s": count / seconds,
        "mb_per_s": count * size / seconds / 1e6,
        "records": count,
        "seconds": seconds,
        "cpu_cores": (time.process_time() - cpu) / seconds,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **extra,
    }


def _send(
    data_dir: str, topic: str, records: int, size: int, batch_size: int, acks: Any, compression: str
) -> tuple[int, float, dict[str, Any]]:
    from ingest import Producer

    values = [bytes([65 + n % 26]) * size for n in range(64)]
    keys = [b"device-%03d" % n for n in range(DEVICES)]
    with Producer(data_dir, batch_size=batch_size, acks=acks, compression_type=compression) as producer:
        producer.send(topic, values[0], keys[0]).result(10)
        send = producer.send
        start = time.perf_counter()
        delivery = None
        for turn in range(records // DEVICES):
            value = values[turn & 63]
            for key in keys:
                delivery = send(topic, value, key)
        producer.flush()
        seconds = time.perf_counter() - start
        assert delivery is not None
        delivery.result(0)
        stats = producer.stats()
        mean = stats["batch_bytes_total"] / max(1, stats["batches_sent_total"])
    return records // DEVICES * DEVICES, seconds, {"batch_bytes_mean": mean}


def _send_arrays(
    data_dir: str, topic: str, records: int, size: int, batch_size: int, acks: Any, compression: str
) -> tuple[int, float, dict[str, Any]]:
    import numpy as np

    from ingest import Producer

    rows = 100_000 if size <= 200 else 20_000
    values = np.full((rows, size), 65, np.uint8)
    stamps = np.arange(rows, dtype=np.int64) + 1_700_000_000_000
    keys = np.char.add("device-", (np.arange(rows) % DEVICES).astype("U3")).astype("S10")
    with Producer(data_dir, batch_size=batch_size, acks=acks, compression_type=compression) as producer:
        producer.send_arrays(topic, stamps, keys, values).result(10)
        start = time.perf_counter()
        delivery = None
        turns = max(1, records // rows)
        for _ in range(turns):
            delivery = producer.send_arrays(topic, stamps, keys, values)
        producer.flush()
        seconds = time.perf_counter() - start
        assert delivery is not None
        delivery.result(0)
        stats = producer.stats()
        mean = stats["batch_bytes_total"] / max(1, stats["batches_sent_total"])
    return turns * rows, seconds, {"batch_bytes_mean": mean}


def _confluent(
    data_dir: str, topic: str, records: int, size: int, batch_size: int, acks: Any, compression: str, address: str = ""
) -> tuple[int, float, dict[str, Any]]:
    from confluent_kafka import Producer

    values = [bytes([65 + n % 26]) * size for n in range(64)]
    keys = [b"device-%03d" % n for n in range(DEVICES)]
    producer = Producer(
        {
            **({"bootstrap.servers": address} if address else {"test.mock.num.brokers": 1}),
            "batch.size": batch_size,
            "batch.num.messages": 1_000_000,
            "acks": acks,
            "compression.type": compression,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_048_576,
            "log_level": 0,
        }
    )
    producer.produce(topic, values[0], keys[0])
    producer.flush(10)
    produce = producer.produce
    start = time.perf_counter()
    for turn in range(records // DEVICES):
        value = values[turn & 63]
        for key in keys:
            try:
                produce(topic, value, key)
            except BufferError:
                while True:
                    producer.poll(0.001)
                    try:
                        produce(topic, value, key)
                        break
                    except BufferError:
                        continue
    producer.flush()
    return records // DEVICES * DEVICES, time.perf_counter() - start, {}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
