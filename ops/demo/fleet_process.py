"""The fleet's process as the demo sees it: reports come in, `stop` goes out."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import msgspec

from ops.demo.appliance import DemoError
from ops.demo.fleet import FleetConfig, FleetReport

_END_SECONDS = 5.0


class FleetProcess:
    """Start a fleet and follow it. Thread: the demo's; nothing here waits but `finish` and `close`.

    Attributes:
        report: The last one.
    """

    def __init__(self, config: FleetConfig) -> None:
        command = [sys.executable, "-m", "ops.demo.fleet", msgspec.json.encode(config).decode()]
        self._drain_s = config.drain_s
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
        )
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)
        self._unread = b""
        self.report = FleetReport()

    def follow(self) -> bool:
        """Take the reports that have come; tell whether the last one is there.

        Raises:
            DemoError: the fleet has ended without it.
        """
        assert self._child.stdout is not None
        while True:
            try:
                data = os.read(self._child.stdout.fileno(), 1 << 20)
            except BlockingIOError:
                break
            if not data:
                if self.report.published_by is not None:
                    return True
                raise DemoError(f"the fleet ended unasked, exit code {self._child.wait()}")
            self._unread += data
            *lines, self._unread = self._unread.split(b"\n")
            for line in lines:
                self.report = msgspec.json.decode(line, type=FleetReport)
        return self.report.published_by is not None

    def ask_to_stop(self) -> float:
        """Have it publish no more; return when, on the monotonic clock, its last report is due at the latest."""
        assert self._child.stdin is not None
        self._child.stdin.write(b"stop\n")
        return time.monotonic() + self._drain_s + _END_SECONDS

    def close(self) -> None:
        """End it, wherever it is."""
        if self._child.stdin is not None:
            self._child.stdin.close()
        try:
            self._child.wait(_END_SECONDS if self.report.published_by is not None else 0.5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
