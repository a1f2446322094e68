"""The broker's end of a compaction worker: started through exec, heard without waiting, killed if need be."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import msgspec

from brokerd.storage.compaction.job import Done, Failed, Job, Report, decode_report, encode
from ingest.errors import StorageError

_MODULE = "brokerd.storage.compaction.worker"
_READ_BYTES = 65536
_BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")  # it needs none of their threads and buffers


class WorkerProcess:
    """One worker. Thread: the owner's; nothing here waits.

    Attributes:
        pid: Of the process.
        gone: It has ended, and what it said was heard.
    """

    def __init__(self, job: Job) -> None:
        """Start it. Its standard input ends with this process, and it with that.

        Raises:
            StorageError: the system refused.
        """
        self._buffer = bytearray()
        self._said_all = self._babbled = self.gone = False
        try:
            job_fd = os.memfd_create("compaction-job")
            try:
                with open(job_fd, "wb", closefd=False) as file:
                    file.write(encode(job))
                os.lseek(job_fd, 0, os.SEEK_SET)
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", _MODULE, str(job_fd)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                    pass_fds=(job_fd,),
                    env={**os.environ, **dict.fromkeys(_BLAS, "1")},
                )
            finally:
                os.close(job_fd)
        except OSError as error:
            raise StorageError(f"the compaction worker can't be started: {error}", path=job.directory) from error
        assert self._process.stdout is not None
        self._fd = self._process.stdout.fileno()
        os.set_blocking(self._fd, False)
        self.pid = self._process.pid

    def poll(self) -> list[Report]:
        """Return what it has said; the last is `Done` or `Failed`, whatever became of it."""
        if self.gone:
            return []
        ended = self._process.poll() is not None  # looked at first: what it said before it ended is there by then
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, _READ_BYTES):
                self._buffer += data
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest)
        reports: list[Report] = []
        for line in () if self._babbled else lines:
            try:
                reports.append(decode_report(line))
            except msgspec.DecodeError as error:  # a stray print: what it says is not to be trusted any more
                reports.append(Failed("error", f"the worker said {line[:100]!r}: {error}"))
                self._babbled = True
                self.kill()
                break
        self._said_all |= any(isinstance(report, Done | Failed) for report in reports)
        if ended:
            self.gone = True
            self._close()
            if not self._said_all:
                reports.append(Failed("error", f"the worker ended with {self._process.returncode}"))
        return reports

    def kill(self) -> None:
        """End it; `poll` goes on until it is gone."""
        self._process.kill()
        self._said_all = True

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
