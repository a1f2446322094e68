"""Runs of a worker process, one after another and in turn with a peer's, and the medians of what they measured."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def run_worker(module: str, **arguments: Any) -> dict[str, Any]:
    """Run `python -m module` with JSON arguments in a fresh process and return the JSON it prints.

    Raises:
        SystemExit: the worker failed; its last lines are the message.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(arguments)],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stderr.decode()[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class Worker:
    """A worker that runs beside others."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def result(self) -> dict[str, Any]:
        """Wait for its end and return the JSON it prints."""
        output, _ = self._process.communicate(timeout=120)
        result: dict[str, Any] = json.loads(output.splitlines()[-1])
        return result


@contextmanager
def started_worker(module: str, **arguments: Any) -> Iterator[Worker]:
    """Start a worker, wait for its first line, and end it in any case."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield Worker(process)
    finally:
        process.kill()
        process.wait()


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each number over the runs, and the first value of what is no number."""
    first = runs[0]
    result: dict[str, Any] = {}
    for name, value in first.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            result[name] = value
        else:
            result[name] = round(statistics.median(run[name] for run in runs), 4)
    return result


def quantile_ms(seconds: list[float], quantile: float) -> float:
    """Return a quantile of durations in milliseconds."""
    ordered = sorted(seconds)
    return round(ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1000, 3)
