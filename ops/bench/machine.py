"""What this machine can do at all, measured in the same run: the yardstick for every figure."""

from __future__ import annotations

import os
import statistics
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import zmq

from ingest.limits import KIB, MIB
from ingest.records.checksum import crc32c

REPEATS = 5
CALLS = 100_000


def machine_limits(directory: Path) -> dict[str, float]:
    """Measure memcpy, CRC, pwrite, pwrite + fdatasync, a ZeroMQ round trip and the interpreter; about three seconds.

    Args:
        directory: On the disk that the appliance uses.
    """
    return {
        "memcpy_gb_per_s": round(_memcpy_gb_per_s(), 2),
        "crc32c_gb_per_s": round(_crc_gb_per_s(), 2),
        "pwrite_gb_per_s": round(_pwrite_gb_per_s(directory), 2),
        "pwrite_new_gb_per_s": round(_pwrite_new_gb_per_s(directory), 2),
        "pwrite_fdatasync_p50_ms": round(_fdatasync_p50_ms(directory), 3),
        "zmq_round_trip_p50_ms": round(_round_trip_p50_ms(), 3),
        "python_call_ns": round(_best_seconds(_calls) / CALLS * 1e9, 1),
        "python_optimized_build": "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
    }


def _best_seconds(work: object, repeats: int = REPEATS) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()  # type: ignore[operator]
        best = min(best, time.perf_counter() - start)
    return best


def _memcpy_gb_per_s() -> float:
    source, target = np.ones(64 * MIB, np.uint8), np.zeros(64 * MIB, np.uint8)
    return 64 * MIB / _best_seconds(lambda: np.copyto(target, source)) / 1e9


def _crc_gb_per_s() -> float:
    data = bytes(16 * MIB)
    return 16 * MIB / _best_seconds(lambda: crc32c(data)) / 1e9


def _pwrite_gb_per_s(directory: Path) -> float:
    block = bytes(256 * KIB)
    with tempfile.TemporaryFile(dir=directory) as file:

        def write() -> None:
            for index in range(256):
                os.pwrite(file.fileno(), block, index * len(block))

        return 256 * len(block) / _best_seconds(write) / 1e9


def _pwrite_new_gb_per_s(directory: Path) -> float:
    """Write what was never in memory, as a log does; a virtual machine may have to ask its host for each page."""
    block = bytes(256 * KIB)
    with tempfile.TemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, 1024 * len(block))
        start = time.perf_counter()
        for index in range(1024):
            os.pwrite(file.fileno(), block, index * len(block))
        return 1024 * len(block) / (time.perf_counter() - start) / 1e9


def _calls() -> None:
    numbers: list[int] = []
    take = numbers.append
    for number in range(CALLS):
        take(number)


def _fdatasync_p50_ms(directory: Path) -> float:
    block = bytes(16 * KIB)
    took = []
    with tempfile.TemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, 16 * MIB)
        os.fsync(file.fileno())
        for index in range(200):
            start = time.perf_counter()
            os.pwrite(file.fileno(), block, index * len(block))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - start)
    return statistics.median(took) * 1000


def _round_trip_p50_ms() -> float:
    context = zmq.Context()
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/echo"
        router = context.socket(zmq.ROUTER)
        router.bind(endpoint)
        stop = threading.Event()

        def echo() -> None:
            while not stop.is_set():
                if router.poll(50):
                    router.send_multipart(router.recv_multipart())

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        dealer = context.socket(zmq.DEALER)
        dealer.connect(endpoint)
        took = []
        for _ in range(500):
            start = time.perf_counter()
            dealer.send(b"x")
            dealer.recv()
            took.append(time.perf_counter() - start)
        stop.set()
        thread.join()
        dealer.close()
        router.close()
        context.term()
    return statistics.median(took) * 1000
