"""The compaction worker: a process of low priority that carries out one job and ends, or ends when its broker does.

`python -m brokerd.storage.compaction.worker FD`: FD holds the job. Standard input is a pipe that nobody writes to: once
it is closed the broker is gone, and so is the worker, at whatever it is. Reports go to standard output.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import traceback

import setproctitle

from brokerd.storage.compaction.job import Failed, Job, Progress, Report, decode_job, encode
from brokerd.storage.compaction.run import Run
from ingest.errors import CorruptBatch, ForebayError

_NICE = 19
_PROGRESS_S = 0.5
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Reporter:
    """Report, and keep to the bytes a second that are allowed."""

    def __init__(self, fd: int, bytes_per_s: int) -> None:
        self._fd = fd
        self._bytes_per_s = bytes_per_s
        self._read = self._written = 0
        self._reported_s = self._free_s = time.monotonic()

    def read(self, size: int) -> None:
        self._read += size
        self._pace(size)

    def wrote(self, size: int) -> None:
        self._written += size
        self._pace(size)

    def _pace(self, size: int) -> None:
        """Wait until what was read and written is no more than is allowed; say meanwhile that all is well."""
        now_s = time.monotonic()
        if self._bytes_per_s:
            self._free_s = max(self._free_s, now_s) + size / self._bytes_per_s
        while True:
            if now_s - self._reported_s >= _PROGRESS_S:
                self.progress()
            wait_s = self._free_s - now_s
            if not self._bytes_per_s or wait_s <= 0:
                return
            time.sleep(min(wait_s, _PROGRESS_S))
            now_s = time.monotonic()

    def progress(self) -> None:
        self._reported_s = time.monotonic()
        self._say(Progress(self._read, self._written))
        self._read = self._written = 0

    def report(self, report: Report) -> None:
        """Say what is done, and before it what it took."""
        self.progress()
        self._say(report)

    def _say(self, report: Report) -> None:
        line = encode(report) + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]


def _end_with_broker() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)  # whatever the other thread is at: it writes into files that only this run knows


def carry_out(job: Job, reporter: Reporter) -> None:
    """Do the job and say how it went."""
    try:
        Run(job, os.urandom(32), reporter.report, on_read=reporter.read, on_write=reporter.wrote).run()
    except CorruptBatch as error:
        reporter.report(Failed("damage", str(error)))
    except FileNotFoundError as error:
        reporter.report(Failed("gone", str(error)))
    except OSError as error:
        reporter.report(Failed("full" if error.errno in _FULL else "error", str(error)))
    except ForebayError as error:
        reporter.report(Failed("error", str(error)))
    except Exception as error:  # the outermost frame: the broker says it, and goes on without
        traceback.print_exc()
        reporter.report(Failed("error", f"{type(error).__name__}: {error}"))


def main() -> None:
    os.nice(_NICE)
    setproctitle.setproctitle("forebay: log cleaner")
    threading.Thread(target=_end_with_broker, name="broker", daemon=True).start()
    with open(int(sys.argv[1]), "rb") as file:
        job = decode_job(file.read())
    carry_out(job, Reporter(1, job.io_bytes_per_s))


if __name__ == "__main__":
    main()
