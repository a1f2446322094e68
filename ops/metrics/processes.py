"""CPU and memory of the appliance's processes, read from /proc by the pids they name."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
from prometheus_client.core import Metric

from ops.metrics.families import Sample, counter, gauge
from ops.metrics.view import View


def process_families(view: View) -> Iterator[Metric]:
    """Yield what is known of processes. Cost: three small reads of /proc a process."""
    names = [([answer.name, answer.role], 1.0) for answer in view.processes]
    names += [([silence.name, ""], 0.0) for silence in view.silent]
    cpu: list[Sample] = []
    memory: list[Sample] = []
    for answer in view.processes:
        try:
            process = psutil.Process(answer.pid)
            with process.oneshot():
                times = process.cpu_times()
                cpu.append(([answer.name], times.user + times.system))
                memory.append(([answer.name], process.memory_info().rss))
        except psutil.Error:
            continue  # it died since it answered
    label = ["process"]
    yield gauge("forebay_process_up", "1 if it answers on its control socket.", ["process", "role"], names)
    yield gauge(
        "forebay_process_uptime_seconds",
        "Since this incarnation began.",
        label,
        [([answer.name], answer.uptime_s) for answer in view.processes],
    )
    yield counter(
        "forebay_process_restarts",
        "Restarts seen since the monitor began.",
        label,
        [([name], float(count)) for name, count in sorted(view.restarts.items())],
    )
    yield counter("forebay_process_cpu_seconds", "CPU time; from zero with each incarnation.", label, cpu)
    yield gauge("forebay_process_resident_memory_bytes", "Memory, the mapped log included.", label, memory)
