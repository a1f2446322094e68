"""What the supervisor's core is told, and what it asks for. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

# Events


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class ZygoteUp:
    """The zygote can fork."""


@dataclass(frozen=True, slots=True)
class ZygoteLost:
    """It has ended; forks it was asked for may never be answered. `permanent`: another would end the same way."""

    reason: str
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Adopted:
    """A process of an earlier supervisor lives and answers.

    Attributes:
        keep: It is what is asked for. Else it is ended first, and started anew if it is still wanted.
    """

    name: str
    pid: int
    restarts: int
    ready: bool
    serving: bool
    keep: bool


@dataclass(frozen=True, slots=True)
class Started:
    """The process exists and has been let go."""

    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """It could not be forked."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Serving:
    """A standby waits for its turn."""

    name: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The process serves."""

    name: str


@dataclass(frozen=True, slots=True)
class Exited:
    """Its pidfd says that it is dead; `reason` is what it said last, if anything."""

    name: str
    reason: str = ""
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """Its counter on the progress page."""

    name: str
    beats: int


@dataclass(frozen=True, slots=True)
class Inspected:
    """What its threads do; answers `Inspect`."""

    name: str
    stopped: bool
    excused: bool


@dataclass(frozen=True, slots=True)
class StopRequested:
    """End everything; a second time: at once."""


Event = (
    Tick
    | ZygoteUp
    | ZygoteLost
    | Adopted
    | Started
    | StartFailed
    | Serving
    | Ready
    | Exited
    | Observed
    | Inspected
    | StopRequested
)


# Effects


@dataclass(frozen=True, slots=True)
class StartZygote:
    pass


@dataclass(frozen=True, slots=True)
class Start:
    """Have the zygote fork it."""

    name: str


@dataclass(frozen=True, slots=True)
class Inspect:
    """Look why it makes no progress."""

    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM, and SIGCONT lest it sleeps through it."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL."""

    name: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person may want to know."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class AllReady:
    """Every process serves, for the first time."""


@dataclass(frozen=True, slots=True)
class Done:
    """All processes are gone; `failure` says why it had to be, empty after a stop on request."""

    failure: str = ""


Effect = StartZygote | Start | Inspect | Terminate | Kill | Note | AllReady | Done
