"""The zygote: a process with every module imported that does nothing but fork, on order, and reap.

`python -m ops.supervisor.zygote FD`: FD is its end of a datagram socket to the supervisor. It takes no lock, starts no
thread and makes no ZeroMQ context, so its children begin clean, in milliseconds, and share its pages.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys

import msgspec
import setproctitle

from ingest.machine import start_ticks
from ops.supervisor import child
from ops.supervisor.orders import ORDER_BYTES_MAX, Broken, Fork, Forked, Imported, Importing, Order, Reaped, Report

_decode = msgspec.msgpack.Decoder(Order).decode


class Zygote:
    """Fork on order until the supervisor's end of the socket is closed."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._poll = select.poll()
        self._poll.register(link, select.POLLIN)
        self._children: dict[int, int] = {}  # pidfd -> pid

    def run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._children:
                    self._reap(fd)
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._link, ORDER_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return False
        if not data:
            return False
        order = _decode(data)
        if isinstance(order, Importing):
            return self._import(order.modules)
        assert len(fds) == 1, "a child needs its tether"
        self._fork(order, socket.socket(fileno=fds[0]))
        return True

    def _import(self, modules: list[str]) -> bool:
        for module in modules:
            try:
                importlib.import_module(module)
            except Exception as error:  # whatever a module does when it is imported
                self._report(Broken(f"can't import {module}: {type(error).__name__}: {error}"))
                return False
        gc.collect()
        gc.freeze()  # no collection touches these pages again, in no child
        self._report(Imported(len(os.listdir("/proc/self/task"))))
        return True

    def _fork(self, order: Fork, tether: socket.socket) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            tether.close()
            self._report(Forked(order.name, order.incarnation, 0, 0, f"can't fork: {error.strerror}"))
            return
        if pid == 0:
            self._let_go()
            child.run_child(order, tether)
        pidfd = os.pidfd_open(pid)  # not reaped yet, so the number can't be another's
        tether.close()
        self._children[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        self._report(Forked(order.name, order.incarnation, pid, start_ticks(pid) or 0), [pidfd])

    def _let_go(self) -> None:
        """In the child: drop what is the zygote's, properly, so that no object is left to close a number twice."""
        self._link.close()
        for pidfd in self._children:
            os.close(pidfd)
        self._children.clear()

    def _reap(self, pidfd: int) -> None:
        pid = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self._report(Reaped(pid, status))

    def _report(self, report: Report, fds: list[int] | None = None) -> None:
        with contextlib.suppress(OSError):  # the supervisor has gone; the next poll says so
            socket.send_fds(self._link, [msgspec.msgpack.encode(report)], fds or [])


def main() -> None:
    gc.disable()
    os.setsid()  # Ctrl-C is the supervisor's
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    setproctitle.setproctitle("forebay: zygote")
    with socket.socket(fileno=int(sys.argv[1])) as link:
        link.set_inheritable(False)
        Zygote(link).run()


if __name__ == "__main__":
    main()
