"""The supervisor process: a thin loop over pidfds, tethers, the zygote, its control socket and signals."""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from ingest.errors import ConfigError
from ingest.machine import machine_id
from ops.supervisor import events, orders
from ops.supervisor.control_server import SUFFIX, Connection, ControlServer
from ops.supervisor.core import SupervisorCore
from ops.supervisor.limits import SupervisionLimits
from ops.supervisor.proc import condition
from ops.supervisor.progress import NAME as PROGRESS_NAME
from ops.supervisor.progress import SLOTS, ProgressPage
from ops.supervisor.spec import Plan
from ops.supervisor.state_file import FORMAT, RunningProcess, SupervisorState, remove_state, write_state
from ops.supervisor.status import SupervisorStats, SupervisorStatus
from ops.supervisor.survivors import Survivor
from ops.supervisor.zygote_link import ZygoteGone, ZygoteLink

NAME = "supervisor"
_READ = selectors.EVENT_READ
_decode_said = msgspec.json.Decoder(orders.Said).decode


class Reporter(Protocol):
    """Who wants to know how the appliance fares."""

    def note(self, level: str, text: str) -> None: ...

    def ready(self, status: SupervisorStatus) -> None: ...


@dataclass(slots=True)
class _Child:
    process: RunningProcess
    pidfd: int
    tether: socket.socket | None
    unread: bytes = b""
    failed: orders.Said | None = None


class Supervisor:
    """Own the processes of one appliance. Thread: the main one; it handles signals while it runs."""

    def __init__(
        self,
        plan: Plan,
        reporter: Reporter,
        *,
        survivors: Sequence[Survivor] = (),
        limits: SupervisionLimits | None = None,
        kill_hung: bool = True,
    ) -> None:
        """Take over survivors, which `survivors.tie` has asked; nothing is started yet."""
        self._plan = plan
        self._specs = {spec.name: spec for spec in plan.processes}
        self._reporter = reporter
        self._run_dir = Path(plan.run_dir)
        self._core = SupervisorCore(plan.processes, limits or SupervisionLimits(), kill_hung=kill_hung)
        self._selector = selectors.DefaultSelector()
        self._page = ProgressPage(self._run_dir / PROGRESS_NAME)
        self._children: dict[str, _Child] = {}
        self._forking: dict[str, tuple[int, socket.socket]] = {}  # name -> incarnation, our end of the tether
        self._slots: dict[str, int] = {}
        self._zygote: ZygoteLink | None = None
        self._zygotes_started = 0
        self._events: deque[events.Event] = deque()
        self._failure: str | None = None
        self._started = time.monotonic()
        self._output_fd = self._open_log()
        for survivor in survivors:
            self._adopt(survivor)

    def run(self) -> str:
        """Run the appliance until it is stopped; return why it failed, empty after a clean stop."""
        _become_subreaper()
        server = ControlServer(self._run_dir / f"{NAME}{SUFFIX}", self._selector, self._answer)
        wake, restore = self._watch_signals()
        try:
            self._events.append(events.Tick())
            while self._failure is None:
                while self._events and self._failure is None:
                    self._step(self._events.popleft())
                if self._failure is None:
                    self._wait()
        finally:
            restore()
            wake.close()
            server.close()
            self._let_go()
        return self._failure

    def status(self) -> SupervisorStatus:
        return SupervisorStatus(
            pid=os.getpid(),
            ready=self._core.ready(),
            stopping=self._core.stopping,
            uptime_s=round(time.monotonic() - self._started, 3),
            data_dir=self._plan.data_dir,
            run_dir=self._plan.run_dir,
            processes=self._core.statuses(),
            ports=self._plan.ports,
            addresses=self._plan.addresses,
            log_path=self._plan.log_path,
        )

    def take_stdio(self) -> None:
        """Let what this process itself prints go to the log."""
        for fd in (1, 2):
            os.dup2(self._output_fd, fd)

    # The loop

    def _wait(self) -> None:
        now_ms = _now_ms()
        timeout_s = max(0.0, (self._core.next_deadline_ms(now_ms) - now_ms) / 1000)
        for key, ready in self._selector.select(timeout_s):
            key.data(ready)
        for name, child in self._children.items():
            self._events.append(events.Observed(name, self._page.beats(child.process.slot)))
        self._events.append(events.Tick())

    def _step(self, event: events.Event) -> None:
        if isinstance(event, events.Observed | events.Inspected) and event.name not in self._children:
            return  # it ended in this round
        for effect in self._core.step(event, _now_ms()):
            self._do(effect)

    def _do(self, effect: events.Effect) -> None:
        match effect:
            case events.Note(level=level, text=text):
                self._note(level, text)
            case events.StartZygote():
                self._start_zygote()
            case events.Start(name=name):
                self._start(name)
            case events.Inspect(name=name):
                found = condition(self._children[name].process.pid)
                excused = found.traced or found.disk_wait
                self._events.append(events.Inspected(name, found.stopped and not found.traced, excused))
            case events.Terminate(name=name):
                self._signal(name, signal.SIGTERM)
                self._signal(name, signal.SIGCONT)
            case events.Kill(name=name):
                self._signal(name, signal.SIGKILL)
            case events.AllReady():
                self._reporter.ready(self.status())
            case events.Done(failure=failure):
                self._failure = failure

    def _note(self, level: str, text: str) -> None:
        _write_line(self._output_fd, level, text)
        self._reporter.note(level, text)

    # Processes

    def _start(self, name: str) -> None:
        if self._zygote is None:
            return  # it ended in this round: ZygoteLost is on its way, and plans the start anew
        spec = self._specs[name]
        ours, theirs = socket.socketpair()
        incarnation = random.getrandbits(53)  # an integer in every JSON reader
        order = orders.Fork(
            name=name,
            role=spec.role,
            entry=spec.entry,
            config_type=spec.config_type,
            config=spec.config,
            digest=spec.digest,
            standby=spec.standby,
            incarnation=incarnation,
            slot=self._slot(name),
            run_dir=self._plan.run_dir,
        )
        with theirs:
            try:
                self._zygote.fork(order, theirs)
            except ZygoteGone:
                ours.close()
                return  # its end is read from the link, and the start is planned anew
            except ConfigError as error:
                ours.close()
                self._events.append(events.StartFailed(name, str(error)))
                return
        self._forking[name] = (incarnation, ours)

    def _forked(self, report: orders.Forked, pidfd: int | None) -> None:
        waiting = self._forking.pop(report.name, None)
        if waiting is None or waiting[0] != report.incarnation or pidfd is None:
            if waiting is not None:
                waiting[1].close()
                self._events.append(events.StartFailed(report.name, report.reason))
            return
        spec, tether = self._specs[report.name], waiting[1]
        process = RunningProcess(
            name=report.name,
            role=spec.role,
            pid=report.pid,
            start_ticks=report.start_ticks,
            incarnation=report.incarnation,
            slot=self._slot(report.name),
            digest=spec.digest,
            restarts=self._core.restarts(report.name),
        )
        self._take(_Child(process, pidfd, tether))
        self._write_state()  # before it runs: whatever happens to this process, the next supervisor knows
        with contextlib.suppress(OSError):
            tether.send(orders.GO)
        self._events.append(events.Started(report.name, report.pid))

    def _adopt(self, survivor: Survivor) -> None:
        process, identity = survivor.process, survivor.identity
        spec = self._specs.get(process.name)
        keep = (
            spec is not None
            and identity is not None
            and identity.digest == spec.digest
            and identity.state != "stopping"
        )
        self._slots[process.name] = process.slot
        self._take(_Child(process, survivor.pidfd, survivor.tether, survivor.unread))
        ready = identity is not None and identity.ready
        serving = identity is not None and identity.state == "running"
        self._events.append(events.Adopted(process.name, process.pid, process.restarts, ready, serving, keep))

    def _take(self, child: _Child) -> None:
        name = child.process.name
        self._children[name] = child
        self._selector.register(child.pidfd, _READ, lambda _: self._exited(name))
        if child.tether is not None:
            child.tether.setblocking(False)
            self._selector.register(child.tether, _READ, lambda _: self._listen(child))
            self._heard(child)

    def _listen(self, child: _Child) -> None:
        """Read what a child says over its tether."""
        if child.tether is None:
            return  # it ended in this round
        try:
            data = child.tether.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop_tether(child)
            return
        child.unread += data
        self._heard(child)

    def _heard(self, child: _Child) -> None:
        name = child.process.name
        while b"\n" in child.unread:
            line, _, child.unread = child.unread.partition(b"\n")
            try:
                said = _decode_said(line)
            except (msgspec.DecodeError, RecursionError):
                continue  # a child of another version
            if said.what == "ready":
                self._events.append(events.Ready(name))
            elif said.what == "serving":
                self._events.append(events.Serving(name))
            elif said.what == "failed":
                child.failed = said

    def _exited(self, name: str) -> None:
        child = self._children.pop(name)
        while child.tether is not None:  # its last words
            before = child.unread
            self._listen(child)
            if child.tether is not None and child.unread == before:
                self._drop_tether(child)
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        _reap(child.process.pid)
        self._write_state()
        said = child.failed or orders.Said("failed")
        self._events.append(events.Exited(name, said.message, said.permanent))

    def _drop_tether(self, child: _Child) -> None:
        assert child.tether is not None
        self._selector.unregister(child.tether)
        child.tether.close()
        child.tether = None

    def _signal(self, name: str, number: signal.Signals) -> None:
        if name in self._children:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._children[name].pidfd, number)

    def _slot(self, name: str) -> int:
        if name not in self._slots:
            self._slots[name] = min(set(range(SLOTS)) - set(self._slots.values()))
        return self._slots[name]

    # The zygote

    def _start_zygote(self) -> None:
        self._drop_zygote()
        modules = sorted({part.partition(":")[0] for s in self._plan.processes for part in (s.entry, s.config_type)})
        self._zygote = ZygoteLink(modules, self._output_fd)
        self._zygotes_started += 1
        self._selector.register(self._zygote.link, _READ, lambda _: self._hear_zygote())

    def _hear_zygote(self) -> None:
        assert self._zygote is not None
        try:
            report, pidfd = self._zygote.receive()
        except ZygoteGone:
            code = self._drop_zygote()
            self._events.append(events.ZygoteLost(f"it ended with {_ending(code)}"))
            return
        match report:
            case orders.Imported(threads=threads):
                if threads != 1:
                    self._note("warning", f"the zygote has {threads} threads: a module starts one when imported")
                self._events.append(events.ZygoteUp())
            case orders.Broken(reason=reason):
                self._drop_zygote()
                self._events.append(events.ZygoteLost(reason, permanent=True))
            case orders.Forked():
                self._forked(report, pidfd)
            case orders.Reaped(pid=pid, status=status):
                code = os.waitstatus_to_exitcode(status)
                if code != 0:  # beside the Note that names it: that one does not wait for this
                    _write_line(self._output_fd, "warning", f"process {pid} ended with {_ending(code)}")

    def _drop_zygote(self) -> int:
        """Let the zygote go, and what it was asked to fork; such a child waits for GO in vain and ends."""
        for _, tether in self._forking.values():
            tether.close()
        self._forking.clear()
        if self._zygote is None:
            return 0
        self._selector.unregister(self._zygote.link)
        code = self._zygote.close()
        self._zygote = None
        _reap()  # those that died just before it, which were still its own when they were heard of
        return code

    # Others

    def _answer(self, command: str, connection: Connection) -> bytes:
        match command:
            case "status":
                return msgspec.json.encode(self.status()) + b"\n"
            case "stop":
                if not self._core.stopping:  # asking twice is no haste; a second signal is
                    self._events.append(events.StopRequested())
                return b'{"stopping": true}\n'
            case "stats":
                restarts = {process.name: process.restarts for process in self._core.statuses()}
                answer = {
                    "name": NAME,
                    "role": NAME,
                    "pid": os.getpid(),
                    "incarnation": self._plan.incarnation,
                    "state": "stopping" if self._core.stopping else "running",
                    "uptime_s": round(time.monotonic() - self._started, 3),
                    "stats": SupervisorStats(self._zygotes_started, restarts),
                }
                return msgspec.json.encode(answer) + b"\n"
        return b'{"error": "unknown command; this socket answers status, stats and stop"}\n'

    def _write_state(self) -> None:
        state = SupervisorState(
            format=FORMAT,
            boot_id=machine_id(),
            data_dir=self._plan.data_dir,
            ports=self._plan.ports,
            processes=[child.process for child in self._children.values()],
        )
        try:
            write_state(self._run_dir, state)
        except OSError as error:
            self._note(
                "error",
                f"can't write {self._run_dir}/supervisor.json ({error.strerror}): should this process "
                "be killed, the next `forebay up` will not find those it runs now",
            )

    def _open_log(self) -> int:
        if not self._plan.log_path:
            return os.dup(2)
        return os.open(self._plan.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _watch_signals(self) -> tuple[socket.socket, _Restore]:
        """Turn SIGTERM, SIGINT and SIGHUP into StopRequested."""
        wake, theirs = socket.socketpair()
        wake.setblocking(False)
        theirs.setblocking(False)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers if not _ignored(number)}
        signal.set_wakeup_fd(theirs.fileno())

        def woken(_: int) -> None:
            for number in wake.recv(64):
                if number in before:
                    self._events.append(events.StopRequested())

        def restore() -> None:
            signal.set_wakeup_fd(-1)
            theirs.close()
            for number, handler in before.items():
                signal.signal(number, handler)

        self._selector.register(wake, _READ, woken)
        return wake, restore

    def _let_go(self) -> None:
        """Close what is open. The page stays: what is mapped is never replaced."""
        self._drop_zygote()
        for child in self._children.values():
            os.close(child.pidfd)
            if child.tether is not None:
                child.tether.close()
        if not self._children:
            remove_state(self._run_dir)
            for socket_path in (*self._run_dir.glob(f"*{SUFFIX}"), *self._run_dir.glob("*.sock")):
                socket_path.unlink(missing_ok=True)
        os.close(self._output_fd)
        self._selector.close()


class _Restore(Protocol):
    def __call__(self) -> None: ...


def _ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _write_line(fd: int, level: str, text: str) -> None:
    seconds, fraction = divmod(time.time_ns() // 1000, 1_000_000)
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    with contextlib.suppress(OSError):  # a full disk must not end the appliance
        os.write(fd, f"{at}.{fraction:06}Z [{level}] {NAME}: {text}\n".encode())


def _reap(pid: int = -1) -> None:
    """Wait for this orphan if it is dead, -1: for all dead ones. Children of a living zygote are that one's to reap."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG)[0]:
            pass


def _become_subreaper() -> None:
    """Inherit the zygote's children should it die, so that they can be waited for whatever pid 1 does."""
    import ctypes

    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


assert sys.platform == "linux", "the command line says so in a plain sentence before it imports this"
