"""The processes of members: watched where they can be seen, given up only where their end was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from brokerd.groups.member import Watch
from brokerd.serving.member_processes import MemberProcesses
from ingest import machine
from ingest.machine import PID_MAX, pid_namespace, start_ticks
from ingest.wire.group_messages import MemberProcess

KEY = ("g", "m")


@pytest.fixture
def members() -> Iterator[MemberProcesses]:
    members = MemberProcesses(zmq.Poller(), "here")
    yield members
    members.close()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


def look(members: MemberProcesses, pid: int, ticks: int) -> tuple[bool, bool]:
    """Return whether a member's process is seen to live, and whether it is seen to have ended."""
    process = MemberProcess("here", pid_namespace(), pid, ticks)
    alive, ended = members.carry_out([Watch(*KEY, process)])
    return KEY in alive, KEY in ended


def ticks_of(pid: int) -> int:
    ticks = start_ticks(pid)
    assert ticks is not None
    return ticks


def test_a_process_that_lives_is_watched_and_one_that_has_ended_is_told(
    members: MemberProcesses, child: subprocess.Popen[bytes]
) -> None:
    ticks = ticks_of(child.pid)
    assert look(members, child.pid, ticks) == (True, False)
    assert look(members, child.pid, ticks + 1) == (False, True)  # a later one under its number
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert look(members, child.pid, ticks) == (False, True)  # a zombie
    child.wait()
    assert look(members, child.pid, ticks) == (False, True)


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, OSError(24, "too many open files")])
def test_a_process_that_can_not_be_looked_at_is_neither_watched_nor_given_up(
    members: MemberProcesses,
    child: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    error: type[OSError] | OSError,
) -> None:
    """With hidepid and ProtectProc /proc has nothing of other users; without a descriptor nobody can look."""

    def refuse(path: Path) -> bytes:
        raise error

    ticks = ticks_of(child.pid)
    monkeypatch.setattr(machine.Path, "read_bytes", refuse)
    assert look(members, child.pid, ticks) == (False, False)
    child.kill()
    child.wait()
    assert look(members, child.pid, ticks) == (False, True)


@pytest.mark.parametrize("pid", [0, -1, PID_MAX + 1, 2**62])
def test_a_number_that_is_no_process_id_is_not_looked_for(members: MemberProcesses, pid: int) -> None:
    assert look(members, pid, 1) == (False, False)
