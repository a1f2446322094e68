"""Kafka clients against the gateway, beside the same client against its own mock cluster and beside each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ingest import Admin, Producer
from ops.bench.appliance import Appliance, running_appliance
from ops.bench.benchmarks import PRODUCE, alternate, common_facts, create_topic
from ops.bench.machine import machine_limits
from ops.bench.measured import run_worker, started_worker

KAFKA = "ops.bench.kafka_worker"
SETTLE_S = 3.0
GATEWAY = "kafka"


def bench_kafka(
    *, runs: int, seconds: float, size: int, batch_size: int, rate: int, connections: int, compression: str
) -> Any:
    """Produce, consume, latency of single records, and the cost of connections that wait."""
    with running_appliance("--brokers", "1", "--kafka-port", "0") as appliance:
        address = f"127.0.0.1:{appliance.status()['ports']['kafka']}"
        produce_facts = {
            "how": "confluent_kafka", "data_dir": "", "records": int(1_500_000 * seconds), "size": size,
            "batch_size": batch_size, "acks": 1, "compression": compression,
        }  # fmt: skip

        def produce(run: int) -> dict[str, Any]:
            topic = create_topic(appliance, f"bench-{run}", "os", configs={"retention.bytes": str(1 << 30)})
            result = _with_cpu(appliance, lambda: run_worker(PRODUCE, topic=topic, address=address, **produce_facts))
            with Admin(str(appliance.data_dir)) as admin:
                admin.delete_topics([topic])
            return result

        results = alternate(
            runs,
            {"produce": produce, "produce_mock_cluster": lambda _: run_worker(PRODUCE, topic="x", **produce_facts)},
        )
        filled = create_topic(appliance, "bench-filled", "os")
        records = int(300_000 * seconds)
        run_worker(PRODUCE, topic=filled, address=address, **produce_facts | {"records": records})

        def consume(client: str) -> Callable[[int], dict[str, Any]]:
            return lambda _: _with_cpu(
                appliance,
                lambda: run_worker(KAFKA, how=client, address=address, topic=filled, records=records, size=size),
            )

        results |= alternate(runs, {f"consume_{name}": consume(name) for name in CLIENTS})

        def latency(run: int) -> dict[str, Any]:
            topic = create_topic(appliance, f"bench-latency-{run}", "os")
            return run_worker(
                KAFKA, how="latency", address=address, topic=topic, rate=rate, records=int(rate * seconds), size=size
            )

        results |= alternate(runs, {"latency": latency})
        results["idle"] = _idle(appliance, address, connections)
        limits = machine_limits(appliance.data_dir)
    return {
        "benchmark": "kafka",
        "rate": rate,
        "compression": compression,
        **common_facts(runs, size, batch_size),
        **results,
        "produce_vs_mock_cluster": round(
            results["produce"]["records_per_s"] / results["produce_mock_cluster"]["records_per_s"], 3
        ),
        "machine": limits,
    }


CLIENTS = ("confluent_kafka", "aiokafka", "kafka_python")


def _with_cpu(appliance: Appliance, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Add the cores that gateway and broker used to what a worker measured, its own start included."""
    gateway, broker, start = appliance.cpu_seconds(GATEWAY), appliance.cpu_seconds(), time.perf_counter()
    result = work()
    took = time.perf_counter() - start
    result["gateway_cpu_cores"] = (appliance.cpu_seconds(GATEWAY) - gateway) / took
    result["broker_cpu_cores"] = (appliance.cpu_seconds() - broker) / took
    return result


def _idle(appliance: Appliance, address: str, connections: int) -> dict[str, Any]:
    """What waiting connections cost, as a part of one core: gateway and broker, beyond what they use without any."""
    topic = create_topic(appliance, "bench-idle", "os")
    seconds = 10.0
    with Producer(str(appliance.data_dir)) as producer:
        producer.send(topic, b"first").result(10)

    def used() -> float:
        start = appliance.cpu_seconds(None)
        began = time.perf_counter()
        time.sleep(seconds)
        return (appliance.cpu_seconds(None) - start) / (time.perf_counter() - began)

    without = used()
    facts = {"how": "connections", "address": address, "topic": topic, "connections": connections}
    with started_worker(KAFKA, seconds=seconds + 2 * SETTLE_S, **facts) as worker:
        time.sleep(SETTLE_S)
        cores = used()
        found = worker.result()
    return {**found, "cpu_cores": round(cores, 4), "cpu_cores_without": round(without, 4)}
