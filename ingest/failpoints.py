"""Named places where a test kills, stops, delays or fails this process; nothing happens while none is armed.

`FOREBAY_FAILPOINTS="storage.after_write=kill@3,storage.before_sync=sleep:50"` arms them at import. An action with
`@n` fires once, at the n-th time its place is passed; without, each time. Where `FOREBAY_FAILPOINTS_DIR` names a
directory, an entry fires only by taking the file of its name, `storage.after_write=kill`, out of it: a test lays it
there when it wants, one process takes it, and the one started in its place gets past. A file that holds a pid is for
that process alone.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

from ingest.errors import ConfigError

DIRECTORY_VARIABLE = "FOREBAY_FAILPOINTS_DIR"

_armed: dict[str, list[tuple[str, int]]] = {}  # name -> [(action, at which hit; 0 for each)]
_hits: dict[str, int] = {}


def arm(text: str) -> None:
    """Arm failpoints, replacing what was armed; an empty text disarms all.

    Raises:
        ConfigError: naming the entry that is no `name=kill|stop|eio|enospc|sleep:ms[@n]`.
    """
    _armed.clear()
    _hits.clear()
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, action = entry.partition("=")
        action, _, at = action.partition("@")
        verb, _, argument = action.partition(":")
        if verb not in ("kill", "stop", "eio", "enospc", "sleep") or (at and not at.isdigit()):
            raise ConfigError(f"failpoint {entry!r}: expected name=kill|stop|eio|enospc|sleep:ms[@n]")
        if verb == "sleep" and not argument.isdigit():
            raise ConfigError(f"failpoint {entry!r}: sleep takes milliseconds, as in sleep:50")
        _armed.setdefault(name, []).append((action, int(at or 0)))


def failpoint(name: str) -> None:
    """Pass the place called `name`.

    Raises:
        OSError: EIO or ENOSPC where a test armed that.
    Cost: one look at an empty dictionary.  Thread: any.
    """
    if _armed:
        _pass(name)


def _pass(name: str) -> None:
    actions = _armed.get(name)
    if actions is None:
        return
    hit = _hits[name] = _hits.get(name, 0) + 1
    for action, at in actions:
        if at not in (0, hit) or not _may_fire(f"{name}={action}"):
            continue
        verb, _, argument = action.partition(":")
        if verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif verb == "sleep":
            time.sleep(int(argument) / 1000)
        else:
            number = errno.EIO if verb == "eio" else errno.ENOSPC
            raise OSError(number, f"{os.strerror(number)} (failpoint {name})")


def _may_fire(entry: str) -> bool:
    """Whether nobody lays files for entries to fire, or this process took this entry's."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if not directory:
        return True
    path = Path(directory) / entry
    try:
        if path.read_text() not in ("", str(os.getpid())):
            return False
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


arm(os.environ.get("FOREBAY_FAILPOINTS", ""))
