"""How patient the supervisor is; all in ms unless the name says otherwise."""

from __future__ import annotations

import msgspec


class SupervisionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of the supervisor's core.

    Attributes:
        hung_ms: A process whose counter stands still for so long, outside the disk and a debugger, is killed. The
            counter is due once a second. A zygote that does not fork within it is replaced.
        starting_hung_ms: The same before it serves: recovery may be long.
        excused_ms: From then on not even a slow disk excuses it.
        settled_ms: Having served for so long clears a process's failures: its next restart is at once.
        back_off_ms, back_off_ms_max: Before the second, third … restart in a row, doubled each time.
        start_failures_max: So many failures of one process before all were ready once end the whole start.
        stop_ms: A stage of the shutdown that takes longer is killed.
        killed_ms: SIGKILL takes effect within this, or the disk holds the process.
        held_up_ms: A gap between two events longer than this means that the supervisor itself was not running.
    """

    tick_ms: int = 250
    hung_ms: int = 6_000
    starting_hung_ms: int = 60_000
    excused_ms: int = 60_000
    settled_ms: int = 2_000
    forgiven_ms: int = 300_000
    back_off_ms: int = 100
    back_off_ms_max: int = 5_000
    start_failures_max: int = 3
    stop_ms: int = 15_000
    killed_ms: int = 10_000
    held_up_ms: int = 1_500

    def __post_init__(self) -> None:
        assert self.tick_ms < self.held_up_ms <= self.hung_ms <= self.starting_hung_ms
        assert self.back_off_ms <= self.back_off_ms_max
