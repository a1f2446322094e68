"""The supervisor on real processes: killed, stopped, hung and orphaned ones."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from ingest.machine import start_ticks
from ops.supervisor.control_client import ask
from ops.supervisor.core import ProcessStatus
from ops.supervisor.state_file import read_state
from tests.ops.supervisor.conftest import ToyRun, until
from tests.ops.supervisor.toys import QUICK, ToyStats, toy
from tests.processes import Processes


def running(toys: ToyRun, name: str, *, restarts: int) -> ProcessStatus | None:
    process = toys.process(name)
    return process if process.ready and process.restarts == restarts else None


def test_children_begin_clean(toys: ToyRun) -> None:
    toys.up(toy("a"), toy("b", text="what it was told"))
    identity = toys.identity("b")
    stats = msgspec.json.decode(identity.stats, type=ToyStats)
    assert stats.text == "what it was told"
    assert stats.umask == 0o027
    # stdio, tether, control socket's listener, epoll, stop_fd and whoever asks; the directory being listed
    assert len(stats.fds) <= 9, stats.fds
    assert not [fd for fd in stats.fds if "pidfd" in fd or "lock" in fd]
    assert (identity.name, identity.role, identity.state, identity.ready) == ("b", "toy", "running", True)
    process = psutil.Process(identity.pid)
    assert process.cmdline()[0] == "forebay: b"
    assert os.getsid(identity.pid) == identity.pid
    assert (toys.run_dir / "b.ctl").stat().st_mode & 0o777 == 0o700


def test_killed_child_serves_again_at_once(toys: ToyRun) -> None:
    first = toys.up(toy("a"), toy("b"))
    assert first is not None
    other = toys.process("b").pid
    until(lambda: toys.status().uptime_s * 1000 > QUICK.settled_ms)
    began = time.monotonic()
    os.kill(toys.process("a").pid, signal.SIGKILL)
    again = until(lambda: running(toys, "a", restarts=1))
    assert time.monotonic() - began < 10  # 20 ms on a quiet machine
    assert again.pid not in {process.pid for process in first.processes}
    assert toys.process("b") == ProcessStatus("b", "toy", other, "running", 0, True)
    assert toys.identity("a").pid == again.pid
    assert "ended with SIGKILL" in toys.log.read_text()


@pytest.mark.parametrize("does", ["serve", "hang"])
def test_child_without_progress_is_killed_and_started_anew(toys: ToyRun, does: str) -> None:
    toys.up(toy("a", does), toy("b"))
    if does == "serve":
        os.kill(toys.process("a").pid, signal.SIGSTOP)
    assert until(lambda: running(toys, "a", restarts=1))
    assert toys.process("b").restarts == 0


def test_stopped_child_is_left_alone_when_told_so(toys: ToyRun) -> None:
    toys.up(toy("a"), kill_hung=False)
    pid = toys.process("a").pid
    os.kill(pid, signal.SIGSTOP)
    until(lambda: toys.status().uptime_s * 1000 > QUICK.hung_ms + 1000)
    os.kill(pid, signal.SIGCONT)
    assert running(toys, "a", restarts=0)


def test_children_outlive_their_supervisor_and_the_next_takes_them_over(toys: ToyRun) -> None:
    specs = [toy("a"), toy("b")]
    toys.up(*specs)
    before = {process.name: process.pid for process in toys.status().processes}
    toys.kill_supervisor()
    assert until(lambda: not toys.identity("a").supervised)
    assert toys.identity("a").state == "running"

    toys.up(*specs)
    assert {process.name: process.pid for process in toys.status().processes} == before
    assert until(lambda: toys.identity("a").supervised)
    os.kill(before["a"], signal.SIGKILL)  # and it is watched again
    assert until(lambda: running(toys, "a", restarts=1)).pid != before["a"]
    assert toys.process("b").pid == before["b"]


def test_orphans_of_another_configuration_or_without_an_answer_are_replaced(toys: ToyRun) -> None:
    toys.up(toy("same"), toy("changed", text="old"), toy("mute"), toy("unwanted"))
    before = {process.name: process.pid for process in toys.status().processes}
    toys.kill_supervisor()
    os.kill(before["mute"], signal.SIGSTOP)
    toys.up(toy("same"), toy("changed", text="new"), toy("mute"))
    after = {process.name: process.pid for process in toys.status().processes}
    assert after["same"] == before["same"]
    assert after["changed"] != before["changed"]
    assert b'"new"' in bytes(toys.identity("changed").stats)
    assert after["mute"] != before["mute"]
    until(lambda: [process.name for process in toys.status().processes] == ["same", "changed", "mute"])
    assert not psutil.pid_exists(before["unwanted"]) or psutil.Process(before["unwanted"]).status() == "zombie"


def test_recorded_pid_of_another_process_is_not_touched(toys: ToyRun, processes: Processes) -> None:
    toys.up(toy("a"))
    pid = toys.process("a").pid
    toys.kill_supervisor()
    state = read_state(toys.run_dir)
    assert state is not None
    time.sleep(2 / os.sysconf("SC_CLK_TCK"))  # in one tick two processes would differ by their pid alone
    bystander = processes.start(["sleep", "60"])
    assert start_ticks(bystander.pid) != state.processes[0].start_ticks
    changed = [msgspec.structs.replace(process, pid=bystander.pid) for process in state.processes]
    state = msgspec.structs.replace(state, processes=changed)
    (toys.run_dir / "supervisor.json").write_bytes(msgspec.json.encode(state))
    processes.kill(pid)
    toys.up(toy("a"))
    assert toys.process("a").pid != bystander.pid
    assert bystander.poll() is None


def test_killed_zygote_is_replaced_and_children_go_on(toys: ToyRun) -> None:
    toys.up(toy("a"), toy("b"))
    before = {process.name: process.pid for process in toys.status().processes}
    zygote = toys.zygote()
    os.kill(zygote, signal.SIGKILL)
    os.kill(before["a"], signal.SIGKILL)
    again = until(lambda: running(toys, "a", restarts=1))
    assert toys.zygote() != zygote
    assert toys.process("b").pid == before["b"]
    assert psutil.Process(again.pid).ppid() == toys.zygote()
    assert until(lambda: not psutil.pid_exists(before["a"])), "reaped by the supervisor, its zygote being dead"


def test_child_and_zygote_that_die_at_once_are_both_replaced(toys: ToyRun) -> None:
    """Heard of in one round, the child first: there is no zygote to ask for another child."""
    toys.up(toy("a"), toy("b"))
    assert toys.supervisor is not None
    victim, zygote = toys.process("a").pid, toys.zygote()
    for stopped in (toys.supervisor.pid, zygote):  # nobody reaps, nobody reports
        os.kill(stopped, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    until(lambda: psutil.Process(victim).status() == psutil.STATUS_ZOMBIE)
    os.kill(zygote, signal.SIGKILL)
    until(lambda: psutil.Process(zygote).status() == psutil.STATUS_ZOMBIE)
    os.kill(toys.supervisor.pid, signal.SIGCONT)
    assert until(lambda: running(toys, "a", restarts=1))
    assert toys.zygote() != zygote


def test_zygote_has_one_thread_and_children_share_its_pages(toys: ToyRun) -> None:
    toys.up(*(toy(f"toy-{number}") for number in range(5)))
    assert psutil.Process(toys.zygote()).num_threads() == 1
    pss = [psutil.Process(process.pid).memory_full_info() for process in toys.status().processes]
    assert all(memory.pss < memory.rss / 2 for memory in pss)


def test_shutdown_ends_everything_in_order_and_leaves_no_socket(toys: ToyRun) -> None:
    toys.up(toy("broker", stop_stage=1), toy("gateway"))
    pids = [process.pid for process in toys.status().processes]
    assert ask(toys.run_dir / "supervisor.ctl", "stop") == b'{"stopping": true}\n'
    assert toys.rest().endswith("DONE \n")
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))  # the last may wait for pid 1 to reap it
    assert sorted(path.name for path in toys.run_dir.iterdir()) == ["log", "progress"]


def test_child_deaf_to_sigterm_is_killed(toys: ToyRun) -> None:
    toys.up(toy("a", "deaf"))
    assert toys.supervisor is not None
    toys.supervisor.terminate()
    assert "a: killed" in toys.rest()


def test_stopped_child_is_woken_to_stop(toys: ToyRun) -> None:
    toys.up(toy("a"), kill_hung=False)
    os.kill(toys.process("a").pid, signal.SIGSTOP)
    assert toys.supervisor is not None
    toys.supervisor.terminate()
    assert "killed" not in toys.rest()


@pytest.mark.parametrize(
    ("does", "reason"), [("refuse", "toy.key=1: expected a better value"), ("crash", "ValueError: a bug of the toy")]
)
def test_start_that_can_not_succeed_ends_with_the_reason(toys: ToyRun, does: str, reason: str) -> None:
    toys.up(toy("good"), toy("bad", does), wait=False)
    assert toys.rest().endswith(f"DONE bad: {reason}\n")


def test_module_that_is_missing_ends_the_start_with_the_reason(toys: ToyRun) -> None:
    toys.up(toy("a", entry="edge.nowhere.gateway:run"), wait=False)
    assert "DONE can't import edge.nowhere.gateway: ModuleNotFoundError" in toys.rest()


def test_standby_runs_without_being_ready(toys: ToyRun) -> None:
    second = toy("second", standby=True, entry="tests.ops.supervisor.toys:stand_by")
    toys.up(toy("first", standby=True), second)
    assert toys.status().ready
    assert (toys.process("second").state, toys.process("second").ready) == ("running", False)
    assert toys.identity("second").state == "running"


def test_control_socket_bounds_what_a_peer_may_send_and_serves_others(toys: ToyRun) -> None:
    toys.up(toy("a"))
    path = toys.run_dir / "a.ctl"
    with socket.socket(socket.AF_UNIX) as hostile, socket.socket(socket.AF_UNIX) as mute:
        mute.connect(str(path))
        hostile.connect(str(path))
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            hostile.sendall(b"x" * (16 << 20))
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(40)]
        for one in crowd:
            one.connect(str(path))
        assert toys.identity("a").name == "a"
        for one in crowd:
            one.close()
    assert b"unknown command" in ask(path, "rm -rf")
    assert toys.identity("a").supervised


def test_unwritable_run_directory_does_not_end_the_appliance(toys: ToyRun, tmp_path: Path) -> None:
    toys.up(toy("a"))
    (tmp_path / "supervisor.json").unlink()
    (tmp_path / "supervisor.json").mkdir()  # the state file can't be written any more
    os.kill(toys.process("a").pid, signal.SIGKILL)
    assert until(lambda: running(toys, "a", restarts=1))
    assert "can't write" in toys.log.read_text()
