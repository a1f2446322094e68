"""The processes of group members on this machine, by pidfd: their end is known at once, however long sessions are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import zmq

from brokerd.groups.member import Watch
from ingest.machine import PID_MAX, has_ended, pid_namespace
from ingest.wire.group_messages import MemberProcess

WATCHED_MAX = 4096  # a descriptor each; members beyond have to be heard

MemberKey = tuple[str, str]  # (group, member id)


class MemberProcesses:
    """Watch processes. Thread: the broker loop.

    Args:
        machine: This machine's boot id: a pid of another, or of another namespace, is no process here.
    """

    def __init__(self, poller: zmq.Poller, machine: str) -> None:
        self._poller = poller
        self._machine = machine
        self._namespace = pid_namespace()
        self._fds: dict[MemberKey, int] = {}
        self._members: dict[int, MemberKey] = {}

    def carry_out(self, watches: Iterable[Watch]) -> tuple[list[MemberKey], list[MemberKey]]:
        """Begin and end to watch; return whose processes are seen to live, and whose have ended already.

        Those of whom neither is known are not watched: they have to be heard.
        """
        alive, ended = [], []
        for watch in watches:
            key = (watch.group, watch.member_id)
            self._forget(key)
            process = watch.process
            if process is None or (process.machine, process.pid_namespace) != (self._machine, self._namespace):
                continue
            if not 0 < process.pid <= PID_MAX:
                continue
            fd = self._open(process)
            has_gone = has_ended(process.pid, process.start_ticks)  # after it was opened: it can't be recycled now
            if has_gone:
                ended.append(key)
            if fd is not None and has_gone is False:
                self._fds[key], self._members[fd] = fd, key
                self._poller.register(fd, zmq.POLLIN)
                alive.append(key)
            elif fd is not None:
                os.close(fd)
        return alive, ended

    def _open(self, process: MemberProcess) -> int | None:
        if len(self._fds) >= WATCHED_MAX:
            return None
        try:
            return os.pidfd_open(process.pid)
        except OSError:
            return None

    def _forget(self, key: MemberKey) -> None:
        fd = self._fds.pop(key, None)
        if fd is not None:
            del self._members[fd]
            self._poller.unregister(fd)
            os.close(fd)

    def ended(self, ready: Iterable[Any]) -> list[MemberKey]:
        """Return the members whose processes have ended, of descriptors that are readable."""
        found = [self._members[fd] for fd in ready if fd in self._members]
        for key in found:
            self._forget(key)
        return found

    def close(self) -> None:
        for key in list(self._fds):
            self._forget(key)
