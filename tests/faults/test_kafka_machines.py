"""Three machines and a Kafka client elsewhere: each machine's gateway has its own brokers; it goes on when one dies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.appliance import ROOT, await_value
from tests.faults.machines import MachineCluster, Site
from tests.network import network
from tests.processes import Processes

pytestmark = [pytest.mark.needs(name) for name in ("network_namespaces", "zookeeper", "confluent_kafka")]

SESSION_MS = 4000
TOPIC = "t"
PARTITIONS = 6


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[MachineCluster]:
    """The first and second machines' gateways are reached from elsewhere; the third machine has none."""
    with network(tmp_path, 3) as machines:
        cluster = MachineCluster(machines, tmp_path, data_machines=3, session_ms=SESSION_MS)
        try:
            for site in cluster.sites[:2]:
                kafka = {"PORT": "9092", "HOST": site.machine.address, "ALLOW_INSECURE": "true"}
                site.environment |= {f"FOREBAY_KAFKA_{key}": value for key, value in kafka.items()}
            cluster.start()
            yield cluster
        finally:
            cluster.end()


class Client:
    """`tests.faults.kafka_client` on one of the machines. Thread: the test's."""

    def __init__(self, site: Site, bootstrap: Site, directory: Path, processes: Processes) -> None:
        command = [sys.executable, "-m", "tests.faults.kafka_client", f"{bootstrap.machine.address}:9092", TOPIC]
        self._events = directory / "client"
        with self._events.open("wb") as output, (directory / "client.stderr").open("wb") as errors:
            self._child = processes.start(
                site.machine.command(*command),
                cwd=ROOT,
                env={**site.environment, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
            )

    def _partitions(self, event: str, after: int) -> set[str]:
        lines = self._events.read_text().splitlines(keepends=True)[after:]
        whole = [line.split() for line in lines if line.endswith("\n")]
        return {words[2] for words in whole if len(words) == 3 and words[0] == event}

    def await_all_partitions(self, what: str) -> None:
        """Wait until more was acknowledged and read, of every partition."""
        before = len(self._events.read_text().splitlines())
        for event in ("acknowledged", "read"):
            await_value(lambda event=event: len(self._partitions(event, before)) == PARTITIONS, f"{what} {event}", 60.0)

    def finish(self) -> dict[str, Any]:
        assert self._child.stdin is not None
        self._child.stdin.close()
        assert self._child.wait(150) == 0, self._events.with_suffix(".stderr").read_text()
        outcome: dict[str, Any] = json.loads(self._events.read_text().splitlines()[-1])
        return outcome


def in_zookeeper(site: Site, connect: str, path: str) -> dict[str, Any]:
    """Return a node's value, read on a machine that reaches the servers."""
    read = "import sys; from kazoo.client import KazooClient as K; k = K(sys.argv[1]); k.start(); "
    read += "print(k.get(sys.argv[2])[0].decode())"
    command = site.machine.command(sys.executable, "-c", read, connect, path)
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return found


def test_a_client_goes_on_over_the_machines_that_are_left(
    cluster: MachineCluster, tmp_path: Path, processes: Processes
) -> None:
    first, second, without = cluster.sites
    first.forebay("topic", "create", TOPIC, "-p", str(PARTITIONS), "-r", "3")
    leaders = {part["leader"] for part in cluster.await_in_sync(TOPIC)["partitions"].values()}
    assert len(leaders) == 3
    ids = {site: site.broker_ids[0] for site in cluster.sites}
    node = in_zookeeper(first, cluster.ensemble.connect("forebay"), f"/brokers/ids/{ids[second]}")
    assert (node["host"], node["port"]) == (second.machine.address, 9092)

    client = Client(without, first, tmp_path, processes)
    client.await_all_partitions("records of leaders on all machines")
    second.machine.cut()
    client.await_all_partitions("records of the leaders that are left")
    outcome = client.finish()
    assert outcome["failed"] == []
    assert outcome["lost"] == []
    assert outcome["twice"] == []
    here = first.machine.address
    told = {int(broker_id): address for broker_id, address in outcome["brokers"].items()}
    assert told[ids[first]] == f"{here}:9092"
    assert told[ids[second]].startswith(here), "a machine that is gone is stood in for"
    assert told[ids[without]].startswith(here), "as one without a gateway"
    assert len(set(told.values())) == 3

    second.machine.heal()
    cluster.await_in_sync(TOPIC)
    outcome = Client(without, first, tmp_path, processes).finish()
    told = {int(broker_id): address for broker_id, address in outcome["brokers"].items()}
    assert told[ids[second]] == f"{second.machine.address}:9092"
