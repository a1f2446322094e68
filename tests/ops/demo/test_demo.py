"""`forebay demo` as a user runs it: real brokers, real MQTT, real kills; and nothing left behind."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes import Processes

DEMO = [sys.executable, "-m", "ops.cli.main", "demo"]


def environment(tmp_path: Path) -> dict[str, str]:
    """Its temporary directories go where the test can see them."""
    return {**os.environ, "TMPDIR": str(tmp_path)}


def left_behind(tmp_path: Path) -> list[str]:
    return glob.glob(f"{tmp_path}/*")


@pytest.fixture
def short_tmp() -> Iterator[str]:
    """A short path: sockets have to fit below it."""
    with tempfile.TemporaryDirectory(prefix="fb-") as directory:
        yield directory


def count(output: str, label: str) -> int:
    match = re.search(rf"^{re.escape(label)}\s+([0-9,]+)", output, re.MULTILINE)
    assert match is not None, output
    return int(match[1].replace(",", ""))


def test_kills_cost_nothing_that_was_acknowledged(short_tmp: str) -> None:
    path = Path(short_tmp)
    done = subprocess.run(
        [*DEMO, "--duration", "16", "--devices", "20", "--chaos", "--seed", "3"],
        capture_output=True,
        text=True,
        env=environment(path),
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert count(done.stdout, "acknowledged by PUBACK") > 500
    assert count(done.stdout, "lost") == 0
    assert "topic mqtt with 6 partitions and replication factor 3" in done.stdout
    kills = re.findall(r"SIGKILL to (\S+) \(pid", done.stdout)
    assert count(done.stdout, "killed") == len(kills) >= 3
    assert kills[0].startswith("broker-")
    assert len(re.findall(r"(?:read back|in its place) \d+ ms after", done.stdout)) == len(kills)
    assert count(done.stdout, "leaders elected") >= 2, "the first led two partitions"
    assert 0 < count(done.stdout, "longest without PUBACK") < 10_000
    assert "Everything acknowledged was read back" in done.stdout
    assert left_behind(path) == []


def test_a_named_directory_stays_and_the_commands_shown_work(short_tmp: str) -> None:
    data_dir = Path(short_tmp) / "data"
    done = subprocess.run(
        [*DEMO, "--duration", "1.5", "--devices", "5", "--brokers", "2", "-r", "1", "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 partitions and replication factor 1" in done.stdout
    shown = done.stdout.split("Try next:\n")[1].split("And kill")[0]
    pasted = subprocess.run(["bash", "-ec", shown], capture_output=True, text=True, timeout=100, check=False)
    assert pasted.returncode == 0, pasted.stdout + pasted.stderr
    assert '"topic":"mqtt"' in pasted.stdout
    again = subprocess.run(
        [*DEMO, "--data-dir", str(data_dir)], capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode != 0
    assert "already" in again.stderr


def lives(process: psutil.Process) -> bool:
    """Tell whether a process still runs; one that is dead and not yet reaped does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize(("number", "times", "code"), [("SIGINT", 1, 130), ("SIGINT", 3, 130), ("SIGTERM", 1, 143)])
def test_a_signal_ends_everything_that_was_started(short_tmp: str, number: str, times: int, code: int) -> None:
    path = Path(short_tmp)
    processes = Processes()
    try:
        child = processes.start(
            [*DEMO, "--duration", "0", "--devices", "5"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(path),
        )
        assert child.stdout is not None
        for line in child.stdout:
            if b"published" in line:
                break
        family = psutil.Process(child.pid).children(recursive=True)
        assert len(family) > 5
        for _ in range(times):
            child.send_signal(getattr(signal, number))
        stdout, stderr = child.communicate(timeout=60)
        assert child.returncode == code, stdout + stderr
        assert b"Traceback" not in stderr
        assert [process for process in family if lives(process)] == []
        assert left_behind(path) == []
    finally:
        processes.end()


def test_an_appliance_that_can_not_start_says_why(short_tmp: str) -> None:
    file = Path(short_tmp) / "data"
    file.mkdir()
    (file / "appliance.json").write_text('{"format": 99}')
    done = subprocess.run([*DEMO, "--data-dir", str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "appliance.json" in done.stderr
    assert "Traceback" not in done.stderr
