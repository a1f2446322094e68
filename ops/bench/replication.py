"""What copies cost and buy: throughput, latency, what they use when idle, and how long a leader's death is felt."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from ingest import Admin
from ops.bench.appliance import Appliance, running_appliance
from ops.bench.benchmarks import LATENCY, PRODUCE, RECOVER, alternate, common_facts, create_topic
from ops.bench.machine import machine_limits
from ops.bench.measured import run_worker

COPIES = 3
HEALTHY_S = 30.0
SETTLE_S = 10.0  # the first checkpoints and the upkeep of new logs are over


def bench_replication(*, runs: int, seconds: float, size: int, batch_size: int, rate: int) -> Any:
    """`send()` with acks=all and three copies, in turn with acks=1 and one; then latency at a steady rate."""
    with running_appliance("--brokers", "3") as appliance:
        records = int(400_000 * seconds)

        def throughput(copies: int, acks: Any) -> Callable[[int], dict[str, Any]]:
            def work(run: int) -> dict[str, Any]:
                topic = create_topic(
                    appliance, f"bench-{copies}-{run}", "os", copies, configs={"retention.bytes": str(1 << 30)}
                )
                cpu, start = appliance.cpu_seconds(), time.perf_counter()
                result = run_worker(
                    PRODUCE, how="send", data_dir=str(appliance.data_dir), topic=topic, records=records, size=size,
                    batch_size=batch_size, acks=acks, compression="none",
                )  # fmt: skip
                result["broker_cpu_cores"] = (appliance.cpu_seconds() - cpu) / (time.perf_counter() - start)
                with Admin(str(appliance.data_dir)) as admin:
                    admin.delete_topics([topic])
                return result

            return work

        def latency(durability: str) -> Callable[[int], dict[str, Any]]:
            def work(run: int) -> dict[str, Any]:
                topic = create_topic(appliance, f"bench-{durability}-{run}", durability, COPIES)
                return run_worker(
                    LATENCY, data_dir=str(appliance.data_dir), topic=topic, rate=rate, records=int(rate * seconds),
                    size=size, local=True,
                )  # fmt: skip

            return work

        results = alternate(runs, {"acks_1_one_copy": throughput(1, 1), "acks_all_three_copies": throughput(3, "all")})
        results |= alternate(runs, {"os": latency("os"), "fsync": latency("fsync")})
        limits = machine_limits(appliance.data_dir)
    ratio = results["acks_all_three_copies"]["records_per_s"] / results["acks_1_one_copy"]["records_per_s"]
    facts = {"rate": rate, **common_facts(runs, size, batch_size)}
    return {"benchmark": "replication", **facts, **results, "three_copies_vs_one": round(ratio, 3), "machine": limits}


def bench_failover(*, kills: int, partitions: int) -> Any:
    """Kill leaders under load, one after the other; stop one; then kill one that leads a third of many partitions."""
    with running_appliance("--brokers", "3") as appliance:
        topic = create_topic(appliance, "bench-failover", "fsync", COPIES)
        killed = [_gap_ms(appliance, topic, signal.SIGKILL) for _ in range(kills)]
        stopped = [_gap_ms(appliance, topic, signal.SIGSTOP) for _ in range(3)]
        _await_healthy(appliance)
        many = create_topic(appliance, "bench-many", "fsync", COPIES, partitions)
        _await_healthy(appliance)
        led, elected_s = _reelection(appliance, many)
        limits = machine_limits(appliance.data_dir)
    return {
        "benchmark": "failover",
        "kills": kills,
        "killed_leader_ack_gap_ms": {"median": round(median(killed), 1), "max": round(max(killed), 1)},
        "killed_leader_ack_gap_ms_each": [round(gap, 1) for gap in killed],
        "stopped_leader_ack_gap_ms": [round(gap, 1) for gap in stopped],
        "partitions": partitions,
        "partitions_the_dead_led": led,
        "reelected_all_ms": round(1000 * elected_s, 1),
        "machine": limits,
    }


def bench_idle(*, seconds: float, partitions: int) -> Any:
    """The processor time of all processes while nobody asks for anything, as a part of one core."""
    with running_appliance("--brokers", "3") as appliance:
        create_topic(appliance, "bench-idle", "fsync", COPIES, partitions)
        _await_healthy(appliance)
        time.sleep(SETTLE_S)
        before, start = appliance.cpu_seconds_each(), time.perf_counter()
        time.sleep(seconds)
        after, took = appliance.cpu_seconds_each(), time.perf_counter() - start
        limits = machine_limits(appliance.data_dir)
    each = {name: (used - before[name]) / took for name, used in sorted(after.items())}
    return {
        "benchmark": "idle",
        "seconds": seconds,
        "partitions": partitions,
        "copies": COPIES,
        "cpu_cores": round(sum(each.values()), 4),
        "cpu_cores_each": {name: round(cores, 4) for name, cores in each.items()},
        "machine": limits,
    }


def _leader(appliance: Appliance, topic: str) -> int:
    with Admin(str(appliance.data_dir)) as admin:
        return admin.describe_topic(topic).partitions[0].leader


def _pid(appliance: Appliance, broker: int) -> int:
    processes = appliance.status()["processes"]
    return int(next(process["pid"] for process in processes if process["name"] == f"broker-{broker}"))


def _gap_ms(appliance: Appliance, topic: str, number: signal.Signals) -> float:
    """Return how long a producer goes without an acknowledgement after the leader was sent a signal."""
    _await_healthy(appliance)
    pid = _pid(appliance, _leader(appliance, topic))
    found = run_worker(
        RECOVER, data_dir=str(appliance.data_dir), topic=topic, pid=pid, signal=int(number),
        seconds=1.5 if number == signal.SIGKILL else 6.0,
    )  # fmt: skip
    return float(found["ack_gap_ms"])


def _reelection(appliance: Appliance, topic: str) -> tuple[int, float]:
    """Kill a broker; return how many partitions it led, and the seconds until all have another leader."""
    with Admin(str(appliance.data_dir)) as admin:
        before = admin.describe_topic(topic).partitions
        victim = before[0].leader
        os.kill(_pid(appliance, victim), signal.SIGKILL)
        start = time.perf_counter()
        while any(item.leader in (victim, -1) for item in admin.describe_topic(topic).partitions):
            time.sleep(0.005)
        return sum(item.leader == victim for item in before), time.perf_counter() - start


def _await_healthy(appliance: Appliance) -> None:
    deadline = time.monotonic() + HEALTHY_S
    with Admin(str(appliance.data_dir)) as admin:
        while not all(len(p.isr) == len(p.replicas) for topic in admin.list_topics() for p in topic.partitions):
            assert time.monotonic() < deadline, "replicas do not come into sync"
            time.sleep(0.02)
