"""One latency run: records at a steady rate, each stamped, read back by another process through the mapping."""

from __future__ import annotations

import json
import multiprocessing
import struct
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from ops.bench.measured import quantile_ms

STAMP = struct.Struct("<q")


def _read(data_dir: str, topic: str, count: int, local: bool, pipe: Connection) -> None:
    from ingest import Consumer

    took: list[float] = []
    with Consumer(data_dir, auto_offset_reset="latest", local=local) as consumer:
        consumer.assign([(topic, 0)])
        consumer.position(topic, 0)
        consumer.poll_arrays(10)
        pipe.send("ready")
        deadline = time.monotonic() + 120
        while len(took) < count and time.monotonic() < deadline:
            for columns in consumer.poll_arrays(1000):
                now = time.monotonic_ns()
                for value in columns.values.to_list():
                    took.append((now - STAMP.unpack_from(value)[0]) / 1e9)
    pipe.send(took)


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    from ingest import Producer

    topic, rate, count = arguments["topic"], arguments["rate"], arguments["records"]
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    reader = context.Process(
        target=_read, args=(arguments["data_dir"], topic, count, arguments["local"], theirs), daemon=True
    )
    with Producer(arguments["data_dir"], linger_ms=0) as producer:
        producer.send(topic, bytes(100)).result(10)
        reader.start()
        assert mine.recv() == "ready"
        pad = bytes(arguments["size"] - STAMP.size)
        acks: list[float] = []
        due = time.monotonic_ns()
        cpu, start = time.process_time(), time.monotonic()
        for _ in range(count):
            due += 1_000_000_000 // rate
            wait = due - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            sent = time.monotonic_ns()
            producer.send(
                topic,
                STAMP.pack(sent) + pad,
                b"device-001",
                on_delivery=lambda _, sent=sent: acks.append((time.monotonic_ns() - sent) / 1e9),  # type: ignore[misc]
            )
        producer.flush()
        seconds = time.monotonic() - start
        took = mine.recv()
        reader.join()
    return {
        "records_per_s": count / seconds,
        "end_to_end_p50_ms": quantile_ms(took, 0.5),
        "end_to_end_p99_ms": quantile_ms(took, 0.99),
        "end_to_end_max_ms": quantile_ms(took, 1.0),
        "read_back": len(took),
        "cpu_cores": (time.process_time() - cpu) / seconds,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
