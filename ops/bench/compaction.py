"""What compaction takes: megabytes a second, its worker's memory, and what producers feel of it meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

from brokerd.serving.stats import BrokerStats
from ingest import Admin
from ingest.discovery import read_appliance
from ingest.wire.messages import ResourceType
from ops.bench.appliance import Appliance, running_appliance
from ops.bench.benchmarks import LATENCY, common_facts, create_topic
from ops.bench.machine import machine_limits
from ops.bench.measured import medians, run_worker
from ops.supervisor.control_client import ask, decode_identity
from ops.supervisor.control_server import SUFFIX

FILL = "ops.bench.compact_worker"
SETTLE_S = 8.0  # the last segment is rolled, and the checkpoint has passed it
LOOK_S = 0.005
LATENCY_S = 5.0
RATE = 500  # records a second to another topic of the same broker
TIMEOUT_S = 600.0
_CONFIGS = {
    "cleanup.policy": "compact",
    "segment.bytes": str(256 << 20),
    "min.cleanable.dirty.ratio": "0.01",
}


def bench_compact(*, runs: int, records: int, keys: int, size: int, compression: str) -> Any:
    """Compact a topic of `records`, while another topic of the broker is produced to and read."""
    results = []
    with running_appliance("--brokers", "1") as appliance:
        _set(appliance, {"log.cleaner.enable": "false", "log.cleaner.backoff.ms": "100"})
        other = create_topic(appliance, "bench-latency", "os")
        calm = _latency(appliance, other)
        for run in range(runs):
            topic = create_topic(appliance, f"bench-compact-{run}", "os", configs=_CONFIGS)
            run_worker(
                FILL, data_dir=str(appliance.data_dir), topic=topic, records=records, keys=keys, size=size,
                compression=compression,
            )  # fmt: skip
            results.append(_compact(appliance, topic, other))
            with Admin(str(appliance.data_dir)) as admin:
                admin.delete_topics([topic])
        limits = machine_limits(appliance.data_dir)
    facts = {"records": records, "keys": keys, "compression": compression, **common_facts(runs, size, 0)}
    return {"benchmark": "compact", **facts, **medians(results), "calm": calm, "machine": limits}


def _compact(appliance: Appliance, topic: str, other: str) -> dict[str, Any]:
    with Admin(str(appliance.data_dir)) as admin:
        admin.alter_configs(topic, {"segment.ms": "1"})  # so that all of it is sealed
        time.sleep(SETTLE_S)
        before = _stats(appliance)
        stored = next(p.size_bytes for p in before.partitions if p.topic == topic)
        felt: dict[str, Any] = {}
        beside = threading.Thread(target=lambda: felt.update(_latency(appliance, other)))
        beside.start()
        time.sleep(LATENCY_S / 5)  # its processes have started
        _set(appliance, {"log.cleaner.enable": "true"})
        started, memory = _await_run(appliance, before.cleaner.runs_total)
        seconds = time.perf_counter() - started
        _set(appliance, {"log.cleaner.enable": "false"})
        beside.join()
    after = _stats(appliance)
    return {
        "mb_per_s": stored / seconds / 1e6,
        "seconds": seconds,
        "worker_memory_mb": memory / 1e6,
        "stored_mb_before": stored / 1e6,
        "stored_mb_after": next(p.size_bytes for p in after.partitions if p.topic == topic) / 1e6,
        "read_mb": (after.cleaner.read_bytes_total - before.cleaner.read_bytes_total) / 1e6,
        "written_mb": (after.cleaner.written_bytes_total - before.cleaner.written_bytes_total) / 1e6,
        "records_dropped": after.cleaner.records_dropped_total - before.cleaner.records_dropped_total,
        **{f"beside_{name}": value for name, value in felt.items()},
    }


def _await_run(appliance: Appliance, runs: int) -> tuple[float, int]:
    """Wait for a run to begin and to end; return when it began, and the greatest memory of its process in bytes."""
    (pid,) = appliance.pids("broker")
    broker, memory, started = psutil.Process(pid), 0, 0.0
    deadline = time.perf_counter() + TIMEOUT_S
    while _stats(appliance).cleaner.runs_total == runs:
        if time.perf_counter() > deadline:
            raise SystemExit("no compaction run ended in time; forebay.log says why")
        for worker in broker.children():
            started = started or time.perf_counter()
            memory = max(memory, _peak_bytes(worker.pid))
        time.sleep(LOOK_S)
    return started, memory


def _peak_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _latency(appliance: Appliance, topic: str) -> dict[str, Any]:
    arguments = {"rate": RATE, "records": int(RATE * LATENCY_S), "size": 100, "local": True}
    result = run_worker(LATENCY, data_dir=str(appliance.data_dir), topic=topic, **arguments)
    return {name: value for name, value in result.items() if name.startswith("end_to_end")}


def _set(appliance: Appliance, configs: dict[str, str | None]) -> None:
    with Admin(str(appliance.data_dir)) as admin:
        admin.alter_configs("", configs, ResourceType.BROKER)


def _stats(appliance: Appliance) -> BrokerStats:
    run_dir = Path(read_appliance(appliance.data_dir).run_dir)
    return msgspec.json.decode(decode_identity(ask(run_dir / f"broker-1{SUFFIX}", "stats")).stats, type=BrokerStats)
