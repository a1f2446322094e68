"""What the supervisor is asked to run: processes, and where they live."""

from __future__ import annotations

import hashlib

import msgspec

RESERVED_NAMES = ("supervisor", "zygote")


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One process.

    Attributes:
        name: Its title, and the name of its control socket; unique in the appliance.
        role: broker, controller, gateway, kafka, bridge or monitor.
        entry: `module:function`, called with the config and a lifeline; see ingest.lifeline.
        config_type: `module:Struct` that `config` is decoded to.
        config: The config as JSON.
        standby: It may wait for its turn for as long as it likes; one of its role being ready is enough.
        stop_stage: Processes of a lower stage are stopped, and gone, before those of the next.
    """

    name: str
    role: str
    entry: str
    config_type: str
    config: bytes
    standby: bool = False
    stop_stage: int = 0

    @property
    def digest(self) -> str:
        """Name this spec by its content: a running process of another digest is not the one that is asked for."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a supervisor needs to know.

    Attributes:
        run_dir: Where control sockets, progress page and state file are.
        ports: Of each listener, already picked.
        addresses: The same as host:port.
        log_path: Where processes write what they have to say; empty for the supervisor's own stderr.
    """

    data_dir: str
    run_dir: str
    incarnation: int
    processes: list[ProcessSpec]
    ports: dict[str, int] = {}
    addresses: dict[str, str] = {}
    log_path: str = ""
