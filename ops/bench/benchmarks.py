"""The benchmarks: each starts an appliance of its own, runs workers in turn with their peers, and gives one object.

Every figure stands beside what the machine could do in the same run; quote ratios, machines are noisy.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from ingest import Admin
from ops.bench.appliance import Appliance, running_appliance
from ops.bench.machine import machine_limits
from ops.bench.measured import medians, run_worker, started_worker
from ops.bench.mosquitto import running_mosquitto

PRODUCE = "ops.bench.produce_worker"
CONSUME = "ops.bench.consume_worker"
LATENCY = "ops.bench.latency_worker"
MQTT = "ops.bench.mqtt_worker"
SUBSCRIBER = "ops.bench.mqtt_subscriber"
RECOVER = "ops.bench.recover_worker"


def create_topic(
    appliance: Appliance,
    name: str,
    durability: str,
    copies: int = 1,
    partitions: int = 1,
    configs: Mapping[str, str] = {},
) -> str:
    """Create a topic and return its name."""
    with Admin(str(appliance.data_dir)) as admin:
        admin.create_topic(name, partitions, copies, configs={"durability": durability, **configs})
    return name


def alternate(runs: int, contenders: Mapping[str, Callable[[int], dict[str, Any]]]) -> dict[str, Any]:
    """Run the contenders in turn, `runs` times each, and return the medians by name."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for run in range(runs):
        for name, work in contenders.items():
            results[name].append(work(run))
    return {name: medians(done) for name, done in results.items()}


def bench_produce(*, runs: int, seconds: float, size: int, batch_size: int, durability: str, compression: str) -> Any:
    """`send()` and `send_arrays` end to end to one broker, beside confluent-kafka against its mock cluster."""
    with running_appliance("--brokers", "1") as appliance:
        records = {"send": int(1_000_000 * seconds), "send_arrays": int(5_000_000 * seconds * 100 / max(100, size))}
        records["confluent_kafka"] = records["send"]
        common = {
            "data_dir": str(appliance.data_dir),
            "size": size,
            "batch_size": batch_size,
            "compression": compression,
        }

        def contender(how: str, acks: Any) -> Callable[[int], dict[str, Any]]:
            def work(run: int) -> dict[str, Any]:
                topic = create_topic(
                    appliance, f"bench-{how}-{run}", durability, configs={"retention.bytes": str(1 << 30)}
                )
                cpu, start = appliance.cpu_seconds(), time.perf_counter()
                result = run_worker(PRODUCE, how=how, topic=topic, records=records[how], acks=acks, **common)
                result["broker_cpu_cores"] = (appliance.cpu_seconds() - cpu) / (time.perf_counter() - start)
                with Admin(str(appliance.data_dir)) as admin:
                    admin.delete_topics([topic])
                return result

            return work

        contenders = {"send": contender("send", "all"), "send_arrays": contender("send_arrays", "all")}
        if importlib.util.find_spec("confluent_kafka"):
            contenders["confluent_kafka"] = contender("confluent_kafka", "all")
        results = alternate(runs, contenders)
        limits = machine_limits(appliance.data_dir)
    if "confluent_kafka" in results:
        del results["confluent_kafka"]["broker_cpu_cores"]
        results["send_vs_confluent_kafka"] = round(
            results["send"]["records_per_s"] / results["confluent_kafka"]["records_per_s"], 3
        )
    return {
        "benchmark": "produce",
        "durability": durability,
        **common_facts(runs, size, batch_size),
        **results,
        "machine": limits,
    }


def bench_consume(*, runs: int, seconds: float, size: int, batch_size: int) -> Any:
    """Reading a topic of the page cache's size: arrays and records from the mapping, arrays over ZeroMQ."""
    total = int(1_500_000 * seconds * 100 / max(100, size))
    with running_appliance("--brokers", "1") as appliance:
        topic = create_topic(appliance, "bench-consume", "os")
        directory = str(appliance.data_dir)
        fill = run_worker(
            PRODUCE, how="send_arrays", data_dir=directory, topic=topic, records=total, size=size,
            batch_size=max(batch_size, 262_144), acks="all", compression="none",
        )  # fmt: skip

        def contender(how: str, local: bool) -> Callable[[int], dict[str, Any]]:
            return lambda _: run_worker(
                CONSUME, how=how, data_dir=directory, topic=topic, records=fill["records"], size=size, local=local,
                fetch=8 << 20,
            )  # fmt: skip

        results = alternate(
            runs,
            {
                "poll_arrays_mapped": contender("poll_arrays", True),
                "poll_mapped": contender("poll", True),
                "poll_arrays_zeromq": contender("poll_arrays", False),
            },
        )
        limits = machine_limits(appliance.data_dir)
    facts = common_facts(runs, size, int(fill["batch_bytes_mean"]))
    return {"benchmark": "consume", **facts, **results, "machine": limits}


def bench_latency(*, runs: int, seconds: float, size: int, rate: int) -> Any:
    """From `send` to a local reader that is woken, at a steady rate, under both durabilities in turn."""
    with running_appliance("--brokers", "1") as appliance:

        def contender(durability: str, local: bool) -> Callable[[int], dict[str, Any]]:
            def work(run: int) -> dict[str, Any]:
                topic = create_topic(appliance, f"bench-{durability}-{local}-{run}", durability)
                return run_worker(
                    LATENCY, data_dir=str(appliance.data_dir), topic=topic, rate=rate, records=int(rate * seconds),
                    size=size, local=local,
                )  # fmt: skip

            return work

        results = alternate(
            runs,
            {"os": contender("os", True), "fsync": contender("fsync", True), "os_zeromq": contender("os", False)},
        )
        limits = machine_limits(appliance.data_dir)
    return {"benchmark": "latency", "rate": rate, **common_facts(runs, size, 0), **results, "machine": limits}


def bench_mqtt(*, runs: int, seconds: float, size: int, connections: int, window: int) -> Any:
    """PUBACKs per second of QoS 1 publishers: the gateway, after fdatasync, in turn with mosquitto."""
    arguments = {"host": "127.0.0.1", "connections": connections, "window": window, "size": size, "seconds": seconds}
    with running_appliance("--brokers", "1") as appliance:
        port = appliance.status()["ports"]["mqtt"]

        def gateway(_: int) -> dict[str, Any]:
            cpu, broker_cpu, start = appliance.cpu_seconds("gateway"), appliance.cpu_seconds(), time.perf_counter()
            result = run_worker(MQTT, port=port, **arguments)
            took = time.perf_counter() - start
            result["gateway_cpu_cores"] = (appliance.cpu_seconds("gateway") - cpu) / took
            result["broker_cpu_cores"] = (appliance.cpu_seconds() - broker_cpu) / took
            return result

        def mosquitto(_: int) -> dict[str, Any]:
            with running_mosquitto() as peer_port, started_worker(SUBSCRIBER, port=peer_port, **arguments) as sink:
                result = run_worker(MQTT, port=peer_port, **arguments)
                received = sink.result()
            took = received["last_monotonic_s"] - result["start_monotonic_s"]
            return {**result, "received": received["received"], "received_per_s": received["received"] / took}

        contenders = {"gateway": gateway}
        if shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin"):
            contenders["mosquitto"] = mosquitto
        results = alternate(runs, contenders)
        limits = machine_limits(appliance.data_dir)
    if "mosquitto" in results:
        ours, peer = results["gateway"]["pubacks_per_s"], results["mosquitto"]
        results["gateway_vs_mosquitto_pubacks"] = round(ours / peer["pubacks_per_s"], 3)
        results["gateway_vs_mosquitto_received"] = round(ours / peer["received_per_s"], 3)
    facts = {"connections": connections, "window": window, **common_facts(runs, size, 0)}
    return {"benchmark": "mqtt", **facts, **results, "machine": limits}


def bench_recover(*, runs: int, gigabytes: float) -> Any:
    """Start, memory, and a broker killed with much stored: how long until it serves and producers get acks again."""
    directory = Path(tempfile.mkdtemp(prefix="forebay-bench-"))
    try:
        with running_appliance("--brokers", "3", data_dir=directory) as appliance:
            up_seconds = appliance.up_seconds
            topic = create_topic(appliance, "bench-recover", "fsync")
            wanted = int(gigabytes * 1e9 / 1024)
            fill = run_worker(
                PRODUCE, how="send_arrays", data_dir=str(directory), topic=topic, records=wanted, size=1024,
                batch_size=1 << 20, acks="all", compression="none",
            )  # fmt: skip
            with Admin(str(directory)) as admin:
                leader = admin.describe_topic(topic).partitions[0].leader
            gaps = []
            for _ in range(runs):
                pid = next(p["pid"] for p in appliance.status()["processes"] if p["name"] == f"broker-{leader}")
                gaps.append(run_worker(RECOVER, data_dir=str(directory), topic=topic, pid=pid, seconds=3.0))
            everything = _kill_everything_and_return(appliance)
            limits = machine_limits(directory)
        with running_appliance("--brokers", "3") as idle:
            time.sleep(60)
            pss = sum(_pss_without_logs(pid) for pid in _family(idle))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return {
        "benchmark": "recover",
        "runs": runs,
        "up_seconds_3_brokers": round(up_seconds, 3),
        "stored_gb": round(fill["records"] * 1024 / 1e9, 2),
        "killed_broker": medians(gaps),
        "ack_gap_ms_each": [round(gap["ack_gap_ms"], 1) for gap in gaps],
        "up_seconds_after_killing_everything": round(everything, 3),
        "pss_mb_60_s_after_start": round(pss / 1e6, 1),
        "machine": limits,
    }


def _kill_everything_and_return(appliance: Appliance) -> float:
    for pid in _family(appliance):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    appliance.up()
    return appliance.up_seconds


def _family(appliance: Appliance) -> list[int]:
    """Return the pids of all processes of an appliance: those it lists, their zygote and its supervisor."""
    pids = set(appliance.pids())
    for pid in list(pids):
        pids.update(parent.pid for parent in psutil.Process(pid).parents() if parent.name().startswith("forebay"))
    return sorted(pids)


def _pss_without_logs(pid: int) -> int:
    """Return a process's proportional share of memory in bytes, mappings of segment files left out."""
    total, counted = 0, True
    try:
        with open(f"/proc/{pid}/smaps") as smaps:
            for line in smaps:
                first = line.split(maxsplit=1)[0]
                if "-" in first and not first.endswith(":"):
                    counted = not line.rstrip().endswith(".log")
                elif counted and first == "Pss:":
                    total += int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return total


def common_facts(runs: int, size: int, batch_size: int) -> dict[str, Any]:
    """Return what every result says of itself."""
    return {
        "runs": runs,
        "record_bytes": size,
        "batch_size": batch_size,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
