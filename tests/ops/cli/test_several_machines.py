"""`forebay up --zookeeper`: several data directories are one cluster, as if each were on a machine of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.controllers import active_controller
from tests.ops.cli.conftest import ANY_PORTS, Forebay, running
from tests.processes import Processes
from tests.zookeeper import Ensemble

pytestmark = pytest.mark.needs("zookeeper")

SESSION_MS = 4000  # the longest that the test's servers grant
LISTENERS = ("--listeners", "tcp://127.0.0.1:0")


@pytest.fixture
def connect(ensemble: Ensemble) -> str:
    return ensemble.connect(f"cluster-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def machine(processes: Processes, tmp_path: Path) -> Iterator[Callable[[str], Forebay]]:
    """Return what makes an appliance on a data directory of its own; all are ended after the test."""
    with running(processes, tmp_path) as start:
        yield start


def brokers(appliance: Forebay) -> dict[int, bool]:
    """Return each broker that the cluster knows, and whether it lives."""
    done = appliance.run("cluster", "info", "--data-dir", str(appliance.data_dir), "--format", "json")
    info: dict[str, Any] = json.loads(done.stdout)
    return {broker["broker_id"]: broker["alive"] for broker in info["brokers"]}


def test_machines_join_get_ids_of_their_own_and_one_may_go(
    machine: Callable[[str], Forebay], connect: str, ensemble: Ensemble
) -> None:
    first, second = machine("a"), machine("b")
    first.up("--zookeeper", connect, *LISTENERS, "--brokers", "2")
    first.run("topic", "create", "early", "--data-dir", str(first.data_dir))
    second.up("--join", "--zookeeper", connect, *LISTENERS, "--brokers", "1")
    health = first.run("cluster", "health", "--data-dir", str(first.data_dir)).stdout
    assert health == "healthy\n  1 topics with fewer copies than machines: early\n"
    first.run("topic", "reassign", "early", "--replicas", "1,3", "--wait", "--data-dir", str(first.data_dir))
    assert brokers(second) == {1: True, 2: True, 3: True}
    second.run("topic", "create", "t", "-p", "3", "--data-dir", str(second.data_dir))
    described = first.run("topic", "describe", "t", "--data-dir", str(first.data_dir), "--format", "json").stdout
    partitions = json.loads(described)["partitions"]
    assert all(len(p["replicas"]) == 2 and 3 in p["replicas"] for p in partitions), "a copy on each machine"
    first.down()
    since = time.monotonic()
    while not (status := second.status())["ready"]:  # its own candidate becomes the controller
        assert time.monotonic() - since < SESSION_MS / 1000, status["reasons"]
    assert brokers(second)[3]
    first.up("--zookeeper", connect, *LISTENERS)
    second.run("cluster", "health", "--exit-when-healthy", "--data-dir", str(second.data_dir))
    assert brokers(first) == {1: True, 2: True, 3: True}, "it has the brokers it had"


def test_a_killed_controller_process_is_replaced_on_its_own_machine_at_once(
    machine: Callable[[str], Forebay], connect: str
) -> None:
    appliance = machine("a")
    appliance.environment["FOREBAY_ZOOKEEPER_SESSION_TIMEOUT_MS"] = str(SESSION_MS)
    appliance.up("--zookeeper", connect, *LISTENERS, "--brokers", "1")
    before = active_controller(appliance.data_dir)
    appliance.processes.kill(appliance.pids()[before])
    since = time.monotonic()
    while active_controller(appliance.data_dir) in ("", before):
        time.sleep(0.01)
    assert time.monotonic() - since < SESSION_MS / 2000, "it waited for the dead one's session"


def test_what_a_start_that_failed_has_founded_is_there_for_the_next(
    machine: Callable[[str], Forebay], connect: str, free_port: Callable[[], int]
) -> None:
    appliance, port = machine("a"), free_port()
    with socket.create_server(("127.0.0.1", port)):
        refused = appliance.up(
            "--zookeeper", connect, "--brokers", "1", "--listeners", f"tcp://127.0.0.1:{port}", code=2
        )
        assert "is taken" in refused.stderr
    appliance.up("--zookeeper", connect, *LISTENERS, "--brokers", "1")
    assert brokers(appliance) == {1: True}


def test_a_start_without_zookeeper_says_what_it_waits_for_and_goes_on_when_it_is_there(
    machine: Callable[[str], Forebay], connect: str, ensemble: Ensemble
) -> None:
    appliance = machine("a")
    arguments = ("--zookeeper", connect, *LISTENERS)
    appliance.up(*arguments, "--brokers", "1")
    appliance.down()
    ensemble.kill(*ensemble.numbers)
    with contextlib.ExitStack() as stack:
        starting = appliance.start(
            "up", "--data-dir", str(appliance.data_dir), *ANY_PORTS, *arguments, stderr=subprocess.PIPE
        )
        assert starting.stderr is not None
        stack.callback(starting.wait, 30)
        stack.callback(starting.terminate)
        line = ""
        while "waiting: " not in line:
            line = starting.stderr.readline()
            assert line, "it ended"
        assert "broker-1 is not registered with the controller: zookeeper" in line
        assert "no server that belongs to a quorum answers" in line
        ensemble.start(*ensemble.numbers)
        appliance.run("cluster", "health", "--exit-when-healthy", "--data-dir", str(appliance.data_dir))
        assert appliance.status()["ready"]


def test_a_bare_folder_is_no_claim_to_another_machines_broker(machine: Callable[[str], Forebay], connect: str) -> None:
    first, second = machine("a"), machine("b")
    first.up("--zookeeper", connect, *LISTENERS, "--brokers", "1")
    (second.data_dir / "brokers" / "1").mkdir(parents=True)
    second.up("--join", "--zookeeper", connect, *LISTENERS, "--brokers", "1")
    assert brokers(second) == {1: True, 2: True}


def test_a_copied_directory_is_refused_while_the_first_is_in_use(
    machine: Callable[[str], Forebay], connect: str
) -> None:
    first, copy = machine("a"), machine("b")
    first.up("--zookeeper", connect, *LISTENERS, "--brokers", "1")
    shutil.copytree(first.data_dir, copy.data_dir)
    pids = first.pids()
    with contextlib.ExitStack() as stack:
        running_copy = copy.start(
            "up", "--data-dir", str(copy.data_dir), *ANY_PORTS, "--zookeeper", connect, *LISTENERS
        )
        stack.callback(running_copy.wait, 30)
        stack.callback(running_copy.terminate)
        while "is another's" not in copy.log():
            assert running_copy.poll() is None
            time.sleep(0.02)
        assert first.pids() == pids, "nobody was fenced"
        assert brokers(first) == {1: True}


def test_a_lost_address_is_asked_for_though_appliance_json_is_lost_too(
    machine: Callable[[str], Forebay], connect: str
) -> None:
    appliance = machine("a")
    appliance.up("--zookeeper", connect, *LISTENERS, "--brokers", "1")
    appliance.down()
    (appliance.data_dir / "appliance.json").unlink()
    assert "give its address with --zookeeper" in appliance.up(code=1).stderr


def test_doctor_tells_of_servers_that_do_not_answer_and_of_one_disk_for_both(
    machine: Callable[[str], Forebay], connect: str, ensemble: Ensemble
) -> None:
    appliance = machine("a")
    appliance.up("--zookeeper", connect, *LISTENERS, "--brokers", "1")

    def said() -> list[dict[str, str]]:
        done = appliance.run("doctor", "--format", "json", "--data-dir", str(appliance.data_dir), code=None)
        return [check for check in json.loads(done.stdout)["checks"] if check["name"] == "zookeeper"]

    first, *others = said()
    assert (first["state"], first["what"]) == ("ok", "3 of 3 servers take connections")
    told = {check["what"] for check in others}
    mine = {f"a server keeps {home} on the disk of the log" for home in ensemble.homes}
    assert mine <= told, "the test keeps all on one"
    ensemble.kill(1)
    assert said()[0]["state"] == "warning"
    ensemble.kill(2)
    assert said()[0]["state"] == "problem"


def test_founding_joining_and_leaving_are_not_mistaken_for_each_other(
    machine: Callable[[str], Forebay], connect: str
) -> None:
    first, second, alone = machine("a"), machine("b"), machine("c")
    assert "holds no cluster" in first.up("--join", "--zookeeper", connect, *LISTENERS, code=2).stderr
    assert "add --zookeeper" in first.up("--join", code=2).stderr
    first.up("--zookeeper", connect, *LISTENERS, "--brokers", "1")
    assert "add --join to become part" in second.up("--zookeeper", connect, *LISTENERS, code=2).stderr
    assert "set listeners=" in second.up("--zookeeper", connect, code=2).stderr
    first.down()
    elsewhere = first.up("--zookeeper", f"{connect}-elsewhere", *LISTENERS, code=1)
    assert elsewhere.stderr.count("to none; correct the address") == 1
    assert f"give its address: --zookeeper {connect}\n" in first.up(code=2).stderr, "a wrong one is not remembered"
    assert "names no server" in first.up("--zookeeper", "", *LISTENERS, code=2).stderr
    alone.up("--brokers", "1")
    alone.down()
    assert "metadata of a cluster of its own" in alone.up("--zookeeper", connect, *LISTENERS, code=2).stderr
    alone.up()


def test_settings_of_all_brokers_are_the_clusters_whichever_machine_has_the_controller(
    machine: Callable[[str], Forebay], connect: str
) -> None:
    first, second = machine("a"), machine("b")
    for appliance, count in (first, "3"), (second, "5"):
        appliance.environment |= {"FOREBAY_NUM_PARTITIONS": count, "FOREBAY_ZOOKEEPER_CONNECT": connect}
        appliance.environment["FOREBAY_LISTENERS"] = "tcp://127.0.0.1:0"
    assert first.up("--brokers", "1").stderr == ""
    told = second.up("--join", "--brokers", "1").stderr
    hint = "forebay cluster alter-config --set num.partitions=5"
    assert told == f"num.partitions=5 is set here, but the cluster has 3: {hint}\n"
    done = second.run("doctor", "--format", "json", "--data-dir", str(second.data_dir), code=None)
    assert [c["next"] for c in json.loads(done.stdout)["checks"] if c["name"] == "settings"] == [hint]

    def partitions_of(name: str) -> int:
        here = ("--data-dir", str(second.data_dir))
        second.run("topic", "create", name, *here)
        return len(json.loads(second.run("topic", "describe", name, *here, "--format", "json").stdout)["partitions"])

    assert partitions_of("before") == 3
    first.down()
    second.run("cluster", "info", "--data-dir", str(second.data_dir))
    assert partitions_of("after") == 3, "its own controller decides now"
    second.run("cluster", "alter-config", "--set", "num.partitions=4", "--data-dir", str(second.data_dir))
    assert partitions_of("changed") == 4
