"""The cleaner chooses a log, sees its run through in another process, and outlives whatever becomes of that."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from brokerd.storage.compaction import worker_process
from brokerd.storage.compaction.choice import urgency
from brokerd.storage.compaction.cleaner import BACKOFF_MS_MAX, HUNG_MS, Cleaner, CleanerSettings
from brokerd.storage.compaction.job import Done, Failed, Job, Progress, Report, decode_report
from brokerd.storage.compaction.log_compaction import Dirt
from brokerd.storage.compaction.run import Run
from brokerd.storage.compaction.worker import Reporter
from brokerd.storage.compaction.worker_process import WorkerProcess
from brokerd.storage.config import LogConfig
from brokerd.storage.log import Log
from tests.brokerd.storage.compaction.cleaning import Item, age, batch_of, read_log, seal
from tests.brokerd.storage.stores import TOPIC, Store, flip

MakeStore = Callable[..., Store]
BACKOFF_MS = CleanerSettings().backoff_ms


class Replica:
    def __init__(self, log: Log) -> None:
        self.log = log
        self.purge_limit = 2**62


class HandWorker:
    """A worker in this process that does what a test says."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.gone = self.killed = False
        self.reports: list[Report] = []

    def poll(self) -> list[Report]:
        said, self.reports = self.reports, []
        return said

    def kill(self) -> None:
        self.killed = self.gone = True

    def work(self) -> None:
        Run(self.job, b"seed", self.reports.append).run()
        self.gone = True


class Tended:
    """A cleaner over some logs, with workers of a test's."""

    def __init__(self, *logs: Log) -> None:
        self.replicas = [Replica(log) for log in logs]
        self.workers: list[HandWorker] = []
        self.cleaner = Cleaner(self.start)

    def start(self, job: Job) -> HandWorker:
        self.workers.append(HandWorker(job))
        return self.workers[-1]

    def step(self, now_ms: int = 0, **options: Any) -> None:
        for _ in range(8):
            self.cleaner.step(lambda: self.replicas, now_ms, **options)
            for replica in self.replicas:
                replica.log._disk.join_background()


def fill(store: Store, log: Log, *, keys: int = 5, count: int = 40) -> None:
    for number in range(count):
        log.append([batch_of([Item(b"k%d" % (number % keys), b"%d" % number + bytes(200))])], wall_ms=0)
    seal(store, log)


def values(log: Log) -> list[bytes]:
    return [(item.value or b"").rstrip(b"\0") for _, item in read_log(log)]


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store(cleanup_policy="compact", segment_bytes=16384)


def test_a_worker_process_compacts_and_the_log_is_served_meanwhile(store: Store) -> None:
    log = store.open()
    fill(store, log)
    workers: list[WorkerProcess] = []

    def start(job: Job) -> WorkerProcess:
        workers.append(WorkerProcess(job))
        return workers[-1]

    cleaner = Cleaner(start)
    until(cleaner, log, workers, lambda: cleaner.counts.runs == 1)
    assert values(log) == [b"35", b"36", b"37", b"38", b"39"]
    assert cleaner.cleaned == [(TOPIC, 0)]
    counts = cleaner.counts
    assert (counts.failures, counts.records_dropped) == (0, 35)
    assert counts.read_bytes > 2 * 40 * 200
    assert counts.written_bytes > 5 * 200
    until(cleaner, log, workers, lambda: workers[0].gone)
    assert len(workers) == 1


def until(cleaner: Cleaner, log: Log, workers: list[WorkerProcess], done: Callable[[], bool], now_ms: int = 0) -> None:
    """Step until something is so, woken by what the worker says or by its end."""
    deadline = time.monotonic() + 60
    replica = Replica(log)
    while not done():
        assert time.monotonic() < deadline
        cleaner.step(lambda: [replica], now_ms)
        if workers and not workers[-1].gone:
            select.select([workers[-1]._fd], [], [], 0.01)


def test_a_worker_that_is_killed_costs_its_run_alone_and_another_comes_later(store: Store) -> None:
    log = store.open()
    fill(store, log)
    before = read_log(log)
    workers: list[WorkerProcess] = []

    def start(job: Job) -> WorkerProcess:
        workers.append(WorkerProcess(job))
        return workers[-1]

    cleaner = Cleaner(start)
    cleaner.settings = CleanerSettings(io_bytes_per_s=1)  # it never gets far
    until(cleaner, log, workers, lambda: bool(workers))
    os.kill(workers[0].pid, signal.SIGKILL)
    until(cleaner, log, workers, lambda: cleaner.counts.failures == 1)
    assert cleaner.uncleanable == {(TOPIC, 0): "the worker ended with -9"}
    assert read_log(log) == before
    cleaner.settings = CleanerSettings()
    until(cleaner, log, workers, lambda: cleaner.counts.runs == 1, now_ms=BACKOFF_MS)
    assert cleaner.uncleanable == {}
    assert len(values(log)) == 5


def test_a_worker_that_says_what_no_worker_says_costs_its_run_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = store.open()
    fill(store, log)
    before = read_log(log)
    workers: list[WorkerProcess] = []

    def start(job: Job) -> WorkerProcess:
        workers.append(WorkerProcess(job))
        return workers[-1]

    monkeypatch.setattr(worker_process, "_MODULE", "this")  # it prints a poem
    cleaner = Cleaner(start)
    until(cleaner, log, workers, lambda: bool(workers) and workers[0].gone)
    assert cleaner.counts.failures == 1
    assert "The Zen of Python" in cleaner.uncleanable[TOPIC, 0]
    assert read_log(log) == before


def test_a_worker_ends_with_its_broker(store: Store) -> None:
    log = store.open()
    fill(store, log)
    script = (
        "import sys, msgspec\n"
        "from brokerd.storage.compaction.job import decode_job\n"
        "from brokerd.storage.compaction.worker_process import WorkerProcess\n"
        "worker = WorkerProcess(decode_job(sys.stdin.readline()))\n"
        "print(worker.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    job = log.begin_compaction(log.dirt(), "ab" * 8, purge_end=0, map_bytes_max=1 << 20, io_bytes_per_s=1)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as broker:
        assert broker.stdin is not None
        assert broker.stdout is not None
        broker.stdin.write(msgspec.json.encode(job).decode() + "\n")
        broker.stdin.flush()
        pidfd = os.pidfd_open(int(broker.stdout.readline()))
        assert select.select([pidfd], [], [], 0.3)[0] == [], "it works, slowly"
        broker.kill()
        assert select.select([pidfd], [], [], 10)[0] == [pidfd]
        os.close(pidfd)


def test_who_says_nothing_for_a_minute_is_killed(store: Store) -> None:
    log = store.open()
    fill(store, log)
    tended = Tended(log)
    tended.step(0)
    (worker,) = tended.workers
    tended.step(HUNG_MS)
    assert not worker.killed
    worker.reports.append(Progress(10, 5))
    tended.step(HUNG_MS + 1)
    tended.step(2 * HUNG_MS + 1)
    assert not worker.killed
    tended.step(2 * HUNG_MS + 2)
    assert worker.killed
    assert tended.cleaner.counts.failures == 1
    assert (tended.cleaner.counts.read_bytes, tended.cleaner.counts.written_bytes) == (10, 5)
    tended.step(3 * HUNG_MS)
    tended.workers[-1].work()
    tended.step(3 * HUNG_MS)
    assert tended.cleaner.counts.runs == 1


def test_failures_are_tried_again_later_and_later_and_one_process_at_a_time(store: Store) -> None:
    log = store.open()
    fill(store, log)
    tended = Tended(log)
    waits, now_ms = [], 0
    for _ in range(8):
        tended.step(now_ms)
        worker = tended.workers[-1]
        worker.reports.append(Failed("full", "no room"))
        tended.step(now_ms)
        assert len(tended.workers) == len(waits) + 1, "the process has not ended yet"
        worker.gone = True
        failed_ms = now_ms
        while len(tended.workers) == len(waits) + 1:
            now_ms += 5000
            tended.step(now_ms)
        waits.append(now_ms - failed_ms)
    assert BACKOFF_MS <= waits[0] < 2 * BACKOFF_MS
    assert waits == sorted(waits)
    assert BACKOFF_MS_MAX <= waits[-1] < BACKOFF_MS_MAX + BACKOFF_MS
    assert tended.cleaner.damaged == {}


def test_damage_that_a_worker_meets_is_told(store: Store) -> None:
    log = store.open()
    fill(store, log)
    flip(store.partition_path / f"{0:020d}.log", 500)
    tended = Tended(log)
    tended.step()
    workers: list[WorkerProcess] = [WorkerProcess(tended.workers[0].job)]
    reports: list[Report] = []
    while not reports or not isinstance(reports[-1], Failed):
        select.select([workers[0]._fd], [], [], 10)
        reports += workers[0].poll()
    assert isinstance(reports[-1], Failed)
    tended.workers[0].reports = reports
    tended.step()
    assert list(tended.cleaner.damaged) == [(TOPIC, 0)]
    assert "CRC" in tended.cleaner.uncleanable[TOPIC, 0]


@pytest.mark.parametrize("change", ["the policy", "the cleaner", "the log"])
def test_a_run_that_is_not_wanted_any_more_is_ended(store: Store, change: str) -> None:
    log = store.open()
    fill(store, log)
    before = read_log(log)
    tended = Tended(log)
    tended.step()
    if change == "the policy":
        log.alter_config(LogConfig(cleanup_policy="delete"))
    elif change == "the cleaner":
        tended.cleaner.settings = CleanerSettings(enable=False)
    else:
        log.close()
    tended.step()
    assert tended.workers[0].killed
    assert tended.cleaner.counts.failures == 0
    tended.step(10 * BACKOFF_MS)
    assert len(tended.workers) == 1
    assert read_log(log) == before


def test_nothing_begins_while_the_disk_is_full_or_the_cleaner_is_off(store: Store) -> None:
    log = store.open()
    fill(store, log)
    tended = Tended(log)
    tended.step(may_start=False)
    tended.cleaner.settings = CleanerSettings(enable=False)
    tended.step()
    assert tended.workers == []
    tended.cleaner.settings = CleanerSettings()
    tended.step()
    assert len(tended.workers) == 1


def test_the_dirtiest_log_comes_first(store: Store) -> None:
    logs = [store.open(partition) for partition in range(20)]
    for number, log in enumerate(logs):
        fill(store, log, count=20)
        tended = Tended(log)
        if number != 13:
            tended.step()
            tended.workers[0].work()
            tended.step()
            fill(store, log, count=1)
    tended = Tended(*logs)
    tended.step()
    assert tended.workers[0].job.directory.endswith("-13")
    assert len(tended.cleaner.dirt) == 20
    assert tended.cleaner.dirt[TOPIC, 13].ratio == 1.0


def test_tombstones_whose_time_has_come_are_reason_enough_once_no_replica_needs_them(make_store: MakeStore) -> None:
    store = make_store(cleanup_policy="compact", delete_retention_ms=1000)
    log = store.open()
    age(store, 1000)
    log.append([batch_of([Item(b"a", None)])], wall_ms=0)
    seal(store, log)
    tended = Tended(log)
    tended.step()
    tended.workers[0].work()
    tended.step()
    tended.replicas[0].purge_limit = 0
    age(store, 10_000)
    tended.step(BACKOFF_MS)
    assert len(tended.workers) == 1
    tended.replicas[0].purge_limit = 1
    tended.step(2 * BACKOFF_MS)
    tended.workers[1].work()
    tended.step(2 * BACKOFF_MS)
    assert read_log(log) == []
    tended.step(3 * BACKOFF_MS)
    assert len(tended.workers) == 2


def test_a_run_that_had_no_room_for_all_keys_is_followed_by_another_at_once(store: Store) -> None:
    log = store.open()
    for start in range(0, 12_000, 500):
        log.append([batch_of(Item(b"%d" % n, b"v") for n in range(start, start + 500))], wall_ms=0)
    seal(store, log)
    tended = Tended(log)
    tended.cleaner.settings = CleanerSettings(map_bytes_max=24 << 13)
    for count in (1, 2):
        tended.step()
        assert len(tended.workers) == count
        tended.workers[-1].work()
        tended.step()
    assert log.cleaned_end == 11_000


@pytest.mark.parametrize(
    ("dirty", "clean", "oldest_ms", "purges", "wanted"),
    [
        (0, 100, -1, False, None),
        (50, 50, 10, False, None),
        (51, 49, 10, False, (2, 0.51)),
        (1, 99, 1000, False, (3, 0)),
        (1, 99, 1700, True, (3, 700)),
        (1, 99, 999, True, (1, 0.0)),
        (0, 0, -1, True, (1, 0.0)),
    ],
)
def test_how_much_a_log_wants_a_run(
    dirty: int, clean: int, oldest_ms: int, purges: bool, wanted: tuple[int, float] | None
) -> None:
    config = LogConfig(cleanup_policy="compact", max_compaction_lag_ms=1000)
    assert urgency(config, Dirt(0, 0, dirty, clean, oldest_ms), purges=purges) == wanted


def test_a_worker_keeps_to_its_rate_and_reports_while_it_waits() -> None:
    reader, writer = os.pipe()
    reporter = Reporter(writer, bytes_per_s=1_000_000)
    started = time.monotonic()
    for _ in range(8):
        reporter.read(50_000)
        reporter.wrote(50_000)
    took = time.monotonic() - started
    assert 0.79 <= took < 5
    reporter.report(Done(0, [0], 0, 0, 0))
    os.close(writer)
    with open(reader, "rb") as said:
        lines = said.read().splitlines()
    assert len(lines) >= 3
    progress = [report for report in map(decode_report, lines) if isinstance(report, Progress)]
    assert sum(report.read_bytes for report in progress) == 400_000
    assert sum(report.written_bytes for report in progress) == 400_000


def test_settings_are_read_from_broker_configs() -> None:
    assert CleanerSettings.of({}) == CleanerSettings()
    configs = {
        "log.cleaner.enable": "false",
        "log.cleaner.io.max.bytes.per.second": "1048576.0",
        "log.cleaner.dedupe.buffer.size": "1000000",
        "log.cleaner.backoff.ms": "100",
    }
    assert CleanerSettings.of(configs) == CleanerSettings(False, 1048576, 1000000, 100)
    assert CleanerSettings.of({"log.cleaner.io.max.bytes.per.second": "1.7976931348623157E308"}).io_bytes_per_s == 0
