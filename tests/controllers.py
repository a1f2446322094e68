"""Which process of an appliance is the cluster's controller, as it says itself."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from brokerd.control.stats import ControllerStats
from ingest.discovery import read_appliance
from ingest.errors import ForebayError
from ops.supervisor.compose import CONTROLLERS
from ops.supervisor.control_client import ask, decode_identity
from ops.supervisor.control_server import SUFFIX


def active_controller(data_dir: Path) -> str:
    """Return the name of the process that is the controller, or believes it is; "" if none here does."""
    run_dir = Path(read_appliance(data_dir).run_dir)
    for name in CONTROLLERS:
        with contextlib.suppress(ForebayError, msgspec.ValidationError):  # one that begins has nothing to say yet
            said = decode_identity(ask(run_dir / f"{name}{SUFFIX}", "stats"))
            if msgspec.json.decode(said.stats, type=ControllerStats).role == "active":
                return name
    return ""
