"""The child's side of supervision: what happens between fork() and the role's `run`, and its lifeline."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import setproctitle
import structlog

from ingest.errors import ConfigError, ForebayError, ForeignDirectory, UnsupportedFormat
from ops.supervisor.control_server import SUFFIX, Connection, ControlServer
from ops.supervisor.orders import GO, Fork, Said
from ops.supervisor.progress import NAME as PROGRESS_NAME
from ops.supervisor.progress import ProgressPage

PERMANENT = (ConfigError, ForeignDirectory, UnsupportedFormat)
UMASK = 0o027
EXIT_FAILED = 1
EXIT_PERMANENT = 78  # sysexits.h, EX_CONFIG
_STDIO = (0, 1, 2)


class ChildLifeline:
    """Implement ingest.lifeline.Lifeline for a process that a zygote forked. Thread: any, once made."""

    def __init__(self, order: Fork, tether: socket.socket) -> None:
        self._order = order
        self._started = time.monotonic()
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._page = ProgressPage(Path(order.run_dir) / PROGRESS_NAME)
        self._beats = self._page.counter(order.slot)
        self._beats[0] += 1
        self._stats: Callable[[], msgspec.Struct] | None = None
        self.is_ready = False
        self.is_stopping = False
        self._tether = tether
        self._supervisor: Callable[[bytes], None] | None = self._send_on_tether
        self._said = threading.Lock()
        signal.signal(signal.SIGTERM, lambda *_: self.stop())

    @property
    def stop_fd(self) -> int:
        return self._stop_fd

    def beat(self) -> None:
        self._beats[0] += 1

    def ready(self) -> None:
        self.is_ready = True
        self.say(Said("ready"))

    def serve_stats(self, stats: Callable[[], msgspec.Struct]) -> None:
        self._stats = stats
        if self._order.standby:
            self.say(Said("serving"))

    def stop(self) -> None:
        """Make `stop_fd` readable."""
        self.is_stopping = True
        os.eventfd_write(self._stop_fd, 1)

    @property
    def state(self) -> str:
        if self.is_stopping:
            return "stopping"
        standing_by = self._order.standby and self._stats is not None
        return "running" if self.is_ready or standing_by else "starting"

    @property
    def supervised(self) -> bool:
        return self._supervisor is not None

    def say(self, said: Said) -> None:
        """Tell the supervisor, if there is one."""
        with self._said:
            if self._supervisor is not None:
                self._supervisor(msgspec.json.encode(said) + b"\n")

    def tie(self, supervisor: Callable[[bytes], None]) -> None:
        """Take this way to a new supervisor, and tell it first who this is. Thread: control."""
        with self._said:
            supervisor(self.identity(with_stats=False))
            self._supervisor = supervisor

    def untie(self) -> None:
        """The supervisor has gone; this process goes on serving."""
        with self._said:
            self._supervisor = None

    def _send_on_tether(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            self._tether.send(line, socket.MSG_DONTWAIT)

    def identity(self, *, with_stats: bool = True) -> bytes:
        """Return the line that answers `stats`. Thread: control."""
        stats = b"null"
        if with_stats and self._stats is not None:
            try:
                stats = msgspec.json.encode(self._stats())
            except Exception:  # a snapshot that fails must not cost the process its control socket
                structlog.get_logger().exception("stats failed")
        order = self._order
        return (
            msgspec.json.encode(
                {
                    "name": order.name,
                    "role": order.role,
                    "pid": os.getpid(),
                    "incarnation": order.incarnation,
                    "state": self.state,
                    "uptime_s": round(time.monotonic() - self._started, 3),
                    "ready": self.is_ready,
                    "supervised": self.supervised,
                    "digest": order.digest,
                    "stats": msgspec.Raw(stats),
                }
            )
            + b"\n"
        )


class ControlThread(threading.Thread):
    """Answer the control socket and notice when the supervisor goes; daemonic, it ends with the process."""

    def __init__(self, order: Fork, lifeline: ChildLifeline, tether: socket.socket) -> None:
        super().__init__(name="control", daemon=True)
        self._lifeline = lifeline
        self._tether = tether
        self._selector = selectors.DefaultSelector()
        self._selector.register(tether, selectors.EVENT_READ, self._tether_ready)
        path = Path(order.run_dir) / f"{order.name}{SUFFIX}"
        self.server = ControlServer(path, self._selector, self._answer)

    def run(self) -> None:
        while True:
            for key, events in self._selector.select():
                key.data(events)

    def _answer(self, command: str, connection: Connection) -> bytes:
        if command == "stats":
            return self._lifeline.identity()
        if command == "supervise":
            connection.pinned = True
            connection.on_close = self._supervisor_gone
            self._lifeline.tie(connection.send_now)
            return b""
        return b'{"error": "unknown command; this socket answers stats"}\n'

    def _tether_ready(self, events: int) -> None:
        with contextlib.suppress(OSError):
            if self._tether.recv(64):
                return
        self._selector.unregister(self._tether)
        self._tether.close()
        self._supervisor_gone()

    def _supervisor_gone(self) -> None:
        self._lifeline.untie()
        structlog.get_logger().warning("the supervisor has gone; this process goes on, `forebay up` takes it over")


def run_child(order: Fork, tether: socket.socket) -> NoReturn:
    """Become the process of this order; called right after fork(), never returns.

    The caller has closed what it does not hand on: this closes any descriptor left beside stdio and tether.
    """
    code = EXIT_FAILED
    try:
        os.setsid()
        _reset_signals()
        os.umask(UMASK)
        close_others({*_STDIO, tether.fileno()})
        if tether.recv(1) != GO:
            os._exit(0)  # the supervisor died before it had written this process down
        setproctitle.setproctitle(f"forebay: {order.name}")
        gc.enable()
        code = _run_role(order, tether)
    except BaseException:  # the outermost frame of the process
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # the zygote's frames are below: they must not unwind here


def _run_role(order: Fork, tether: socket.socket) -> int:
    configure_log(order.name)
    log = structlog.get_logger()
    lifeline = ChildLifeline(order, tether)
    ControlThread(order, lifeline, tether).start()
    try:
        config = msgspec.json.decode(order.config, type=load(order.config_type))
        load(order.entry)(config, lifeline)
        return 0
    except Exception as error:
        permanent = isinstance(error, PERMANENT)
        message = str(error) if isinstance(error, ForebayError) else f"{type(error).__name__}: {error}"
        if isinstance(error, ForebayError):
            log.error("ended", reason=message)
        else:
            log.exception("ended by a bug")
        lifeline.say(Said("failed", message, permanent))
        return EXIT_PERMANENT if permanent else EXIT_FAILED


def load(dotted: str) -> Any:
    """Return what `module:name` names. The name comes from our own role table, never from outside."""
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's affair, and this process is the supervisor's
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def close_others(keep: set[int]) -> None:
    """Close every descriptor but these."""
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(entry))


class _StderrLogger:
    """Write whole lines to stderr; a full disk loses the line, never the process."""

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(2, line.encode(errors="replace") + b"\n")

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def configure_log(name: str) -> None:
    """Let structlog write `time [level] name: event key=value` to stderr."""

    def render(_: object, __: str, event: structlog.typing.EventDict) -> str:
        head = f"{event.pop('timestamp')} [{event.pop('level')}] {name}: {event.pop('event')}"
        trace = event.pop("exception", "")
        fields = " ".join(f"{key}={value!r}" for key, value in event.items())
        return head + (f" {fields}" if fields else "") + (f"\n{trace}" if trace else "")

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("info"),  # what each connection does would fill the disk
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        logger_factory=lambda *_: _StderrLogger(),
        cache_logger_on_first_use=False,
    )
