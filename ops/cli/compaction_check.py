"""`forebay doctor` asks brokers which logs they can't compact, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ingest.errors import ForebayError
from ops.cli.checks import WARNING, Check
from ops.cli.found import find
from ops.supervisor.control_client import ask, decode_identity
from ops.supervisor.control_server import SUFFIX


class _Compacted(msgspec.Struct, frozen=True):
    """What is read of `brokerd.serving.stats.CompactedStats`, which is slow to import."""

    topic: str
    partition: int
    uncleanable: str = ""


class _Broker(msgspec.Struct, frozen=True):
    compacted: list[_Compacted] = []


def compaction_checks(data_dir: Path) -> Iterator[Check]:
    """Yield a warning for each log whose last run failed; nothing of brokers that don't answer."""
    with contextlib.suppress(ForebayError, OSError):
        found = find(data_dir)
        if found.status is None or found.run_dir is None:
            return
        for process in found.status.processes:
            if process.role == "broker":
                with contextlib.suppress(ForebayError, msgspec.DecodeError):
                    line = ask(found.run_dir / f"{process.name}{SUFFIX}", "stats")
                    broker = msgspec.json.decode(decode_identity(line).stats, type=_Broker)
                    yield from _uncleanable(process.name, broker)


def _uncleanable(name: str, broker: _Broker) -> Iterator[Check]:
    for one in broker.compacted:
        if one.uncleanable:
            what = f"{one.topic}-{one.partition} of {name} is not compacted, and grows"
            next_step = "it is tried again; damage in a log without another copy stays: docs/concepts/compaction.md"
            yield Check("compaction", WARNING, what, one.uncleanable, next_step)
