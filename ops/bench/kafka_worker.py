"""One run of a Kafka client in a process of its own: a topic read, latency of single records, connections that wait."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ops.bench.measured import quantile_ms

FETCH_BYTES = 8 << 20
STAMP = struct.Struct("<q")
WAIT_S = 120.0


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    work: dict[str, Callable[..., dict[str, Any]]] = {
        "confluent_kafka": _confluent,
        "aiokafka": _aiokafka,
        "kafka_python": _kafka_python,
        "latency": _latency,
        "connections": _connections,
    }
    return work[arguments.pop("how")](**arguments)


def _consumed(count: int, size: int, seconds: float, cpu: float) -> dict[str, Any]:
    return {
        "records_per_s": count / seconds,
        "mb_per_s": count * size / seconds / 1e6,
        "seconds": seconds,
        "cpu_cores": cpu / seconds,
    }


def _confluent(address: str, topic: str, records: int, size: int) -> dict[str, Any]:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "bench",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": FETCH_BYTES,
            "queued.min.messages": 1_000_000,  # else it asks for no more for a second once 100,000 wait, or 64 MB
            "queued.max.messages.kbytes": 1_048_576,
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    count = len(consumer.consume(1, 30))
    start, cpu = time.perf_counter(), time.process_time()
    while count < records:
        count += len(consumer.consume(10_000, 1.0))
    found = _consumed(count, size, time.perf_counter() - start, time.process_time() - cpu)
    consumer.close()
    return found


def _aiokafka(address: str, topic: str, records: int, size: int) -> dict[str, Any]:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    async def read() -> dict[str, Any]:
        partition = TopicPartition(topic, 0)
        consumer = AIOKafkaConsumer(bootstrap_servers=address, max_partition_fetch_bytes=FETCH_BYTES)
        await consumer.start()
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        count = len((await consumer.getmany(timeout_ms=30_000, max_records=1)).get(partition, ()))
        start, cpu = time.perf_counter(), time.process_time()
        while count < records:
            count += sum(map(len, (await consumer.getmany(timeout_ms=1000)).values()))
        found = _consumed(count, size, time.perf_counter() - start, time.process_time() - cpu)
        await consumer.stop()
        return found

    return asyncio.run(read())


def _kafka_python(address: str, topic: str, records: int, size: int) -> dict[str, Any]:
    from kafka import KafkaConsumer, TopicPartition

    partition = TopicPartition(topic, 0)
    consumer = KafkaConsumer(
        bootstrap_servers=address, max_partition_fetch_bytes=FETCH_BYTES, max_poll_records=10_000, group_id=None
    )
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    count = len(consumer.poll(30_000, max_records=1).get(partition, ()))
    start, cpu = time.perf_counter(), time.process_time()
    while count < records:
        count += sum(map(len, consumer.poll(1000).values()))
    found = _consumed(count, size, time.perf_counter() - start, time.process_time() - cpu)
    consumer.close()
    return found


def _latency(address: str, topic: str, rate: int, records: int, size: int) -> dict[str, Any]:
    """Produce single records at a steady rate by one client, and take the time until another has read each."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

    quiet = {"bootstrap.servers": address, "log_level": 0}
    producer = Producer({**quiet, "linger.ms": 0, "acks": "all"})
    consumer = Consumer({**quiet, "group.id": "bench", "enable.auto.commit": False})
    producer.produce(topic, bytes(size))
    producer.flush(10)
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    assert consumer.poll(30) is not None
    took: list[float] = []

    def read() -> None:
        end = time.monotonic() + WAIT_S
        while len(took) < records and time.monotonic() < end:
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                took.append((time.monotonic_ns() - STAMP.unpack_from(message.value() or b"")[0]) / 1e9)

    reader = threading.Thread(target=read)
    reader.start()
    acked: list[float] = []
    pad = bytes(size - STAMP.size)
    due = time.monotonic_ns()
    for _ in range(records):
        due += 1_000_000_000 // rate
        while (left := due - time.monotonic_ns()) > 0:
            producer.poll(left / 1e9)
        sent = time.monotonic_ns()
        producer.produce(
            topic,
            STAMP.pack(sent) + pad,
            on_delivery=lambda *_, sent=sent: acked.append((time.monotonic_ns() - sent) / 1e9),
        )
    producer.flush(30)
    reader.join()
    consumer.close()
    return {
        "read_back": len(took),
        "acknowledged_p50_ms": quantile_ms(acked, 0.5),
        "acknowledged_p99_ms": quantile_ms(acked, 0.99),
        "end_to_end_p50_ms": quantile_ms(took, 0.5),
        "end_to_end_p99_ms": quantile_ms(took, 0.99),
        "end_to_end_max_ms": quantile_ms(took, 1.0),
    }


def _connections(address: str, topic: str, connections: int, seconds: float) -> dict[str, Any]:
    """Hold connections whose Fetch finds nothing, each asked again when it is answered, as idle consumers do.

    The requests are written here: a thousand clients of a library would be what is measured.
    """

    async def one(fetch: bytes, answered: list[int]) -> None:
        host, port = address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        while True:
            writer.write(fetch)
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            await reader.readexactly(size)
            answered[0] += 1

    async def hold() -> dict[str, Any]:
        fetch, answered = _empty_fetch(topic), [0]
        tasks = [asyncio.create_task(one(fetch, answered)) for _ in range(connections)]
        print("ready", flush=True)
        _, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        failed = sum(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        return {"connections": connections, "failed": failed, "answers_per_s": answered[0] / seconds}

    return asyncio.run(hold())


def _empty_fetch(topic: str) -> bytes:
    """Return a Fetch request, version 4, that waits half a second for one byte beyond the first record."""
    name = topic.encode()
    body = struct.pack(">hhih", 1, 4, 7, -1) + struct.pack(">iiiib", -1, 500, 1, FETCH_BYTES, 0)
    body += struct.pack(">ih", 1, len(name)) + name + struct.pack(">iiqi", 1, 0, 1, FETCH_BYTES)
    return struct.pack(">i", len(body)) + body


if __name__ == "__main__":
    socket.setdefaulttimeout(30)
    print(json.dumps(main(json.loads(sys.argv[1]))))
