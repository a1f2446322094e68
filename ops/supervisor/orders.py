"""What supervisor and zygote say to each other: one message a datagram, descriptors beside it.

A tether is the stream between supervisor and child. The child waits on it for `GO` before it does anything, so that no
process ever runs that the supervisor has not written down; from then on its end means that the supervisor is gone.
"""

from __future__ import annotations

import msgspec

GO = b"g"
ORDER_BYTES_MAX = 160 * 1024  # below the kernel's default for one datagram


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Start a process; the child's end of its tether comes beside it.

    Attributes:
        slot: Of the progress page.
    """

    name: str
    role: str
    entry: str
    config_type: str
    config: bytes
    digest: str
    standby: bool
    incarnation: int
    slot: int
    run_dir: str


class Importing(msgspec.Struct, frozen=True, tag=True):
    """Import these modules, then say `Imported`; the first order."""

    modules: list[str]


class Imported(msgspec.Struct, frozen=True, tag=True):
    """The zygote can fork."""

    threads: int


class Broken(msgspec.Struct, frozen=True, tag=True):
    """A module can't be imported; the zygote ends."""

    reason: str


class Forked(msgspec.Struct, frozen=True, tag=True):
    """The child exists; its pidfd comes beside it. pid 0: it could not be forked."""

    name: str
    incarnation: int
    pid: int
    start_ticks: int
    reason: str = ""


class Reaped(msgspec.Struct, frozen=True, tag=True):
    """A child has ended and was waited for; `status` is waitpid's."""

    pid: int
    status: int


class Said(msgspec.Struct, frozen=True):
    """A line from child to supervisor over its tether.

    Attributes:
        what: serving (it stands by), ready, or failed.
        permanent: Starting it again would fail the same way.
    """

    what: str
    message: str = ""
    permanent: bool = False


Order = Fork | Importing
Report = Imported | Broken | Forked | Reaped
