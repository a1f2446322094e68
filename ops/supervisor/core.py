"""The supervisor's decisions: what to start, when again, what is hung, in which order to end. Pure.

WAITING ──Start──▶ FORKING ──▶ STARTING ──▶ SERVING (a standby) ──▶ READY
   ▲                                │            │                    │
   └────────── Exited ──────────────┴── ENDING ◀─┴── hung, replaced ──┘       ENDING ──Exited──▶ ENDED, at shutdown
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from ops.supervisor.events import (
    Adopted,
    AllReady,
    Done,
    Effect,
    Event,
    Exited,
    Inspect,
    Inspected,
    Kill,
    Note,
    Observed,
    Ready,
    Serving,
    Start,
    Started,
    StartFailed,
    StartZygote,
    StopRequested,
    Terminate,
    Tick,
    ZygoteLost,
    ZygoteUp,
)
from ops.supervisor.limits import SupervisionLimits
from ops.supervisor.spec import ProcessSpec

GUILTY_LOOKS = 2  # a thread that is only now and then inside the disk does not excuse a loop that stands still


class Phase(StrEnum):
    WAITING = "waiting"
    FORKING = "forking"
    STARTING = "starting"
    SERVING = "serving"
    READY = "ready"
    ENDING = "ending"
    ENDED = "ended"


_STATES = {
    Phase.WAITING: "waiting",
    Phase.FORKING: "starting",
    Phase.STARTING: "starting",
    Phase.SERVING: "running",
    Phase.READY: "running",
    Phase.ENDING: "stopping",
    Phase.ENDED: "stopped",
}
_ALIVE = (Phase.STARTING, Phase.SERVING, Phase.READY)


class ProcessStatus(msgspec.Struct, frozen=True):
    """One process as `forebay status` shows it; pid 0: it does not run."""

    name: str
    role: str
    pid: int
    state: str
    restarts: int
    ready: bool
    reason: str = ""


@dataclass(slots=True)
class _Process:
    name: str
    role: str
    standby: bool
    stop_stage: int
    wanted: bool = True
    replacing: bool = False
    phase: Phase = Phase.WAITING
    pid: int = 0
    restarts: int = 0
    failures: int = 0
    due_ms: int = 0
    served_since_ms: int | None = None
    beats: int = -1
    progress_ms: int = 0
    guilty_looks: int = 0
    hung_kills: int = 0
    reason: str = ""


class SupervisorCore:
    """Decide; touch no process, file or clock. Thread: the supervisor's."""

    def __init__(self, specs: Iterable[ProcessSpec], limits: SupervisionLimits, *, kill_hung: bool = True) -> None:
        self._limits = limits
        self._kill_hung = kill_hung
        self._processes = {spec.name: _Process(spec.name, spec.role, spec.standby, spec.stop_stage) for spec in specs}
        self._zygote_up = False
        self._zygote_failures = 0
        self._zygote_due_ms: int | None = None
        self._was_ready = False
        self._stopping = False
        self._hurry = False
        self._stage: int | None = None
        self._kill_at_ms: int | None = None
        self._give_up_at_ms: int | None = None
        self._failure = ""
        self._adopting = False
        self._done = False
        self._last_ms: int | None = None

    @property
    def stopping(self) -> bool:
        return self._stopping

    def ready(self) -> bool:
        """Whether every process serves; of standbys, one of each role."""
        wanted = [process for process in self._processes.values() if process.wanted]
        led = {process.role for process in wanted if process.phase is Phase.READY}
        return not self._stopping and all(
            process.phase is Phase.READY or (process.phase is Phase.SERVING and process.role in led)
            for process in wanted
        )

    def statuses(self) -> list[ProcessStatus]:
        return [
            ProcessStatus(
                process.name,
                process.role,
                process.pid,
                _STATES[process.phase],
                process.restarts,
                process.phase is Phase.READY,
                process.reason,
            )
            for process in self._processes.values()
        ]

    def restarts(self, name: str) -> int:
        return self._processes[name].restarts

    def next_deadline_ms(self, now_ms: int) -> int:
        """Return when a Tick is due at the latest."""
        due = [now_ms + self._limits.tick_ms]
        if self._zygote_up and not self._stopping:
            due += [process.due_ms for process in self._processes.values() if process.phase is Phase.WAITING]
        if not self._stopping:
            due += [process.due_ms for process in self._processes.values() if process.phase is Phase.ENDING]
        due += [at for at in (self._zygote_due_ms, self._kill_at_ms, self._give_up_at_ms) if at is not None]
        return min(due)

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """Take one event; return what to do, in order."""
        self._forgive_own_absence(now_ms)
        effects = self._take(event, now_ms)
        if self._done:
            return effects
        effects += self._shut_down(now_ms) if self._stopping else self._start_due(now_ms)
        if not self._was_ready and self.ready():
            self._was_ready = True
            effects.append(AllReady())
        return effects

    def _take(self, event: Event, now_ms: int) -> list[Effect]:
        match event:
            case Tick():
                return []
            case ZygoteUp():
                self._zygote_up = True
                self._zygote_failures = 0
                return []
            case ZygoteLost(reason=reason, permanent=permanent):
                return self._zygote_lost(reason, permanent, now_ms)
            case StopRequested():
                self._hurry = self._stopping
                self._stopping = True
                return []
            case Adopted():
                return self._adopted(event, now_ms)
            case Exited(name=name, reason=reason, permanent=permanent):
                return self._exited(self._processes[name], reason, permanent, now_ms)
            case Started(name=name, pid=pid):
                process = self._processes[name]
                process.phase, process.pid, process.beats = Phase.STARTING, pid, -1
                process.progress_ms, process.guilty_looks = now_ms, 0
                return []
            case StartFailed(name=name, reason=reason):
                return self._failed(self._processes[name], reason, False, now_ms)
            case Serving(name=name):
                if self._processes[name].phase is Phase.STARTING:
                    self._processes[name].phase = Phase.SERVING
                return []
            case Ready(name=name):
                process = self._processes[name]
                if process.phase in _ALIVE:
                    process.phase, process.served_since_ms, process.reason = Phase.READY, now_ms, ""
                return []
            case Observed(name=name, beats=beats):
                return self._observed(self._processes[name], beats, now_ms)
            case Inspected(name=name, stopped=stopped, excused=excused):
                return self._inspected(self._processes[name], stopped, excused, now_ms)

    # Starting

    def _start_due(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for process in self._processes.values():
            if process.phase is Phase.ENDING and process.due_ms <= now_ms:
                process.due_ms = now_ms + self._limits.killed_ms
                effects.append(Kill(process.name))
        if self._zygote_up and any(p.phase is Phase.FORKING and p.due_ms <= now_ms for p in self._processes.values()):
            effects += self._zygote_lost("it does not answer", False, now_ms)
        if not self._zygote_up:
            if self._zygote_due_ms is None or self._zygote_due_ms <= now_ms:
                # until it answers, nothing is asked of it; should it never answer, it is lost
                self._zygote_due_ms = now_ms + self._limits.starting_hung_ms
                effects.append(StartZygote())
            return effects
        self._zygote_due_ms = None
        for process in self._processes.values():
            if process.phase is Phase.WAITING and process.due_ms <= now_ms:
                process.phase, process.due_ms = Phase.FORKING, now_ms + self._limits.hung_ms
                effects.append(Start(process.name))
        return effects

    def _adopted(self, event: Adopted, now_ms: int) -> list[Effect]:
        process = self._processes.get(event.name)
        if process is None:  # it is not asked for any more
            process = self._processes[event.name] = _Process(event.name, "", False, 0, wanted=False)
        process.pid, process.restarts, process.progress_ms = event.pid, event.restarts, now_ms
        if not event.keep:
            process.phase, process.due_ms, process.replacing = Phase.ENDING, now_ms + self._limits.stop_ms, True
            text = f"{event.name} ({event.pid}) was running with another configuration, or did not answer; ended"
            return [Note("info", text), Terminate(event.name)]
        self._adopting = True
        process.phase = Phase.READY if event.ready else Phase.SERVING if event.serving else Phase.STARTING
        process.served_since_ms = now_ms if event.ready else None
        return [Note("info", f"{event.name} ({event.pid}) was running; taken over")]

    def _exited(self, process: _Process, reason: str, permanent: bool, now_ms: int) -> list[Effect]:
        pid, process.pid = process.pid, 0
        if self._stopping:
            process.phase = Phase.ENDED
            return []
        if not process.wanted:
            del self._processes[process.name]
            return []
        if process.replacing:
            process.phase, process.due_ms, process.replacing = Phase.WAITING, now_ms, False
            return []
        process.restarts += 1
        effects = self._failed(process, reason, permanent, now_ms)
        return [Note("warning", f"{process.name} ({pid}) ended{': ' + reason if reason else ''}"), *effects]

    def _failed(self, process: _Process, reason: str, permanent: bool, now_ms: int) -> list[Effect]:
        """Plan the next start of a process that has ended or could not begin."""
        if self._stopping:
            process.phase = Phase.ENDED
            return []
        limits = self._limits
        since = process.served_since_ms
        if since is not None and now_ms - since >= limits.settled_ms:
            process.failures = 0
            if now_ms - since >= limits.forgiven_ms:
                process.hung_kills = 0
        process.failures += 1
        process.served_since_ms = None
        process.reason = reason
        process.phase = Phase.WAITING
        process.due_ms = now_ms + self._back_off_ms(process.failures)
        if self._may_abort() and (permanent or process.failures >= limits.start_failures_max):
            self._stopping = True
            self._failure = f"{process.name}: {reason or 'it died each time it was started; the log says why'}"
        return []

    def _may_abort(self) -> bool:
        """Whether a failure ends everything: only while nothing has served yet, under this or an earlier supervisor."""
        return not (self._was_ready or self._adopting or self._stopping)

    def _back_off_ms(self, failures: int) -> int:
        if failures <= 1:
            return 0
        return min(self._limits.back_off_ms_max, self._limits.back_off_ms << min(failures - 2, 20))

    def _zygote_lost(self, reason: str, permanent: bool, now_ms: int) -> list[Effect]:
        self._zygote_up = False
        self._zygote_failures += 1
        self._zygote_due_ms = now_ms + self._back_off_ms(self._zygote_failures)
        for process in self._processes.values():
            if process.phase is Phase.FORKING:  # a child that was forked and not let go ends by itself
                process.phase, process.due_ms = Phase.WAITING, now_ms
        if self._may_abort() and (permanent or self._zygote_failures >= self._limits.start_failures_max):
            self._stopping = True
            self._failure = reason
        return [] if self._stopping else [Note("warning", f"the zygote ended ({reason}); starting another")]

    # Progress

    def _forgive_own_absence(self, now_ms: int) -> None:
        """If this process itself was stopped or starved, nobody's counter was looked at: start counting anew."""
        if self._last_ms is not None and now_ms - self._last_ms > self._limits.held_up_ms:
            for process in self._processes.values():
                process.progress_ms += now_ms - self._last_ms
                if process.phase is Phase.FORKING:
                    process.due_ms += now_ms - self._last_ms
        self._last_ms = now_ms

    def _observed(self, process: _Process, beats: int, now_ms: int) -> list[Effect]:
        if beats != process.beats:
            process.beats, process.progress_ms, process.guilty_looks = beats, now_ms, 0
            return []
        if self._kill_hung and process.phase in _ALIVE and now_ms - process.progress_ms >= self._limits.hung_ms:
            return [Inspect(process.name)]
        return []

    def _inspected(self, process: _Process, stopped: bool, excused: bool, now_ms: int) -> list[Effect]:
        stale_ms = now_ms - process.progress_ms
        if process.phase not in _ALIVE or stale_ms < self._limits.hung_ms:
            return []
        if not stopped and stale_ms < self._patience_ms(process):
            return []
        if excused and stale_ms < max(self._limits.excused_ms, 2 * self._patience_ms(process)):
            process.guilty_looks = 0
            return []
        process.guilty_looks += 1
        if process.guilty_looks < GUILTY_LOOKS:
            return []
        process.phase, process.due_ms = Phase.ENDING, now_ms + self._limits.killed_ms
        process.hung_kills += 1
        how = "is stopped" if stopped else "hangs"
        return [
            Note("warning", f"{process.name} ({process.pid}) {how}: no progress for {stale_ms / 1000:.1f} s; killed"),
            Kill(process.name),
        ]

    def _patience_ms(self, process: _Process) -> int:
        """Wait longer each time a process was killed for it: what hangs may be the disk."""
        doublings = min(process.hung_kills, 5)
        if process.phase is Phase.STARTING:
            return self._limits.starting_hung_ms << doublings
        return min(self._limits.hung_ms << doublings, self._limits.excused_ms)

    # Ending

    def _shut_down(self, now_ms: int) -> list[Effect]:
        """End stage after stage: inputs first, so that what they hold is still acknowledged."""
        for process in self._processes.values():
            if process.phase is Phase.WAITING:
                process.phase = Phase.ENDED
        left = [process for process in self._processes.values() if process.phase is not Phase.ENDED]
        if not left:
            self._done = True
            return [Done(self._failure)]
        stage = min(process.stop_stage for process in left)
        if stage != self._stage:
            self._stage, self._kill_at_ms, self._give_up_at_ms = stage, now_ms + self._limits.stop_ms, None
        now = [process for process in left if process.stop_stage == stage]
        effects: list[Effect] = []
        for process in now:
            if process.phase in _ALIVE:
                process.phase = Phase.ENDING
                effects.append(Terminate(process.name))
        assert self._kill_at_ms is not None
        if self._hurry or self._kill_at_ms <= now_ms:
            effects += self._kill_stage(now, now_ms)
        return effects

    def _kill_stage(self, processes: list[_Process], now_ms: int) -> list[Effect]:
        if self._give_up_at_ms is None:
            self._give_up_at_ms = now_ms + self._limits.killed_ms
            names = ", ".join(process.name for process in processes if process.pid)
            return [Note("warning", f"{names}: killed"), *(Kill(p.name) for p in processes if p.pid)]
        if self._give_up_at_ms <= now_ms:
            self._done = True
            names = ", ".join(f"{process.name} ({process.pid})" for process in processes)
            return [Done(f"{names} can't be ended: a disk holds them; they go once it answers")]
        return []
