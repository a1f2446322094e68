"""What a supervisor answers on `<run-dir>/supervisor.ctl`."""

from __future__ import annotations

import msgspec

from ops.supervisor.core import ProcessStatus


class SupervisorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `status`.

    Attributes:
        ready: Every process serves.
        stopping: The appliance is on its way down.
        ports: Of each listener.
        addresses: The same as host:port.
    """

    pid: int
    ready: bool
    stopping: bool
    uptime_s: float
    data_dir: str
    run_dir: str
    processes: list[ProcessStatus]
    ports: dict[str, int]
    addresses: dict[str, str] = {}
    log_path: str = ""


class SupervisorStats(msgspec.Struct, frozen=True):
    """The supervisor's own stats, in the answer to `stats`; counters begin with the supervisor."""

    zygotes_started_total: int
    restarts: dict[str, int]
