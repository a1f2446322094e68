"""Where an appliance keeps its things when nobody says otherwise."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

DATA_DIR_VARIABLE = "FOREBAY_DATA_DIR"
CONFIG_VARIABLE = "FOREBAY_CONFIG"
SYSTEM_CONFIG = Path("/etc/forebay/forebay.toml")
SYSTEM_DATA_DIR = Path("/var/lib/forebay")


def default_data_dir() -> Path:
    """Return the data directory of this user: the system's for root, one at home else."""
    given = os.environ.get(DATA_DIR_VARIABLE)
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return SYSTEM_DATA_DIR
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(home) / "forebay"


def resolve_data_dir(given: str | os.PathLike[str] | None) -> Path:
    """Return the data directory as one absolute path without links, so that it has one name."""
    return Path(given or default_data_dir()).expanduser().resolve()


def default_config_file() -> Path | None:
    """Return the configuration file to read when none is named, if there is one."""
    given = os.environ.get(CONFIG_VARIABLE)
    if given:
        return Path(given)
    return SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None


def appliance_id(data_dir: Path) -> str:
    """Return a short name for the appliance of a data directory; the same for as long as it is not moved."""
    return hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:8]


def default_run_dir(data_dir: Path) -> Path:
    """Return where the sockets of this directory's appliance go."""
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if runtime:
        return Path(runtime)
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if session and os.access(session, os.W_OK | os.X_OK):
        return Path(session) / "forebay" / appliance_id(data_dir)
    return Path("/tmp") / f"forebay-{os.geteuid()}-{appliance_id(data_dir)}"


def shared_memory_dir(data_dir: Path) -> Path:
    """Return where state pages go when the run directory is not in memory."""
    return Path("/dev/shm") / f"forebay-{os.geteuid()}-{appliance_id(data_dir)}"
