"""What `forebay doctor` says of logs that can't be compacted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from brokerd.serving.stats import CompactedStats
from ingest.errors import TransportError
from ops.cli import compaction_check
from ops.supervisor.control_client import Identity


def test_doctor_names_the_logs_that_are_not_compacted_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stats = {
        "compacted": [
            CompactedStats("settings", 0, dirty_bytes=60, clean_bytes=40, cleaned_end=0, uncleanable="CRC at byte 7"),
            CompactedStats("settings", 1, dirty_bytes=60, clean_bytes=40, cleaned_end=0),
        ]
    }
    raw = msgspec.Raw(msgspec.json.encode(stats))
    identity = Identity(name="broker-2", role="broker", pid=1, incarnation=1, state="running", uptime_s=1.0, stats=raw)

    def ask(path: Path, command: str) -> bytes:
        assert command == "stats"
        if path.name == "broker-1.ctl":
            raise TransportError("nobody listens")
        return msgspec.json.encode(identity) + b"\n"

    processes = [SimpleNamespace(name=name, role=name.partition("-")[0]) for name in ("mqtt", "broker-1", "broker-2")]
    found = SimpleNamespace(run_dir=tmp_path, status=SimpleNamespace(processes=processes))
    monkeypatch.setattr(compaction_check, "ask", ask)
    monkeypatch.setattr(compaction_check, "find", lambda data_dir: found)
    (check,) = compaction_check.compaction_checks(tmp_path)
    assert check.what == "settings-0 of broker-2 is not compacted, and grows"
    assert check.why == "CRC at byte 7"


def test_an_appliance_that_does_not_run_has_nothing_to_say(tmp_path: Path) -> None:
    assert list(compaction_check.compaction_checks(tmp_path)) == []
