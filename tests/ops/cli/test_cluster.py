"""`forebay cluster …` and `forebay topic reassign` on three brokers, one of which dies."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ingest import Producer
from ingest.errors import ForebayError
from ops.cli.cluster import cluster as cluster_command
from ops.cli.topic import topic as topic_command
from tests.cluster import Cluster, running_cluster


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), brokers=3) as running:
        yield running


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One broker that no test harms."""
    with running_cluster(tmp_path_factory.mktemp("one")) as running:
        yield running


def run(cluster: Cluster, command: click.Command, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(command, [*arguments, "--data-dir", cluster.bootstrap])
    assert result.exit_code == code, f"{result.stdout}{result.stderr}"
    return result


def as_json(cluster: Cluster, command: click.Command, *arguments: str) -> Any:
    return json.loads(run(cluster, command, *arguments, "--format", "json").stdout)


def partitions(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = as_json(cluster, topic_command, "describe", "t")["partitions"]
    return found


def produce(cluster: Cluster, count: int) -> None:
    with Producer(cluster.bootstrap) as producer:
        for number in range(count):
            producer.send("t", b"%d" % number, key=b"%d" % number)


def test_partitions_move_with_all_their_records(cluster: Cluster) -> None:
    run(cluster, topic_command, "create", "t", "-p", "3", "-r", "2")
    produce(cluster, 300)
    run(cluster, topic_command, "reassign", "t", "--replicas", "3,1", "--wait")
    found = partitions(cluster)
    assert [item["replicas"] for item in found] == [[3, 1], [1, 3], [3, 1]]
    assert all(sorted(item["isr"]) == [1, 3] for item in found)
    assert sum(item["high_watermark"] for item in found) == 300
    run(cluster, topic_command, "reassign", "t", "--replicas", "1,2", "--throttle", "1000000", "--wait")
    assert all(sorted(item["isr"]) == [1, 2] for item in partitions(cluster))
    assert run(cluster, topic_command, "reassign", "t", "--cancel").stdout == "nothing of t moves\n"
    none = run(cluster, topic_command, "reassign", "t", "-p", "7", "--replicas", "1", code=1)
    assert "topic t has 3 partitions\nSee what" in none.stderr
    both = run(cluster, topic_command, "reassign", "t", "--cancel", "--throttle", "1000000", code=2)
    assert "pass it with --replicas" in both.stderr
    refused = run(cluster, topic_command, "reassign", "t", "--replicas", "1,9", code=1)
    assert "broker 9 is not there" in refused.stderr
    assert "expected broker ids" in run(cluster, topic_command, "reassign", "t", "--replicas", "x", code=2).stderr


def test_a_broker_that_dies_is_seen_and_leadership_comes_back_on_demand(cluster: Cluster) -> None:
    run(cluster, topic_command, "create", "t", "-p", "3", "-r", "3")
    produce(cluster, 300)
    assert run(cluster, cluster_command, "health").stdout == "healthy\n"
    cluster.kill("broker-2")
    deadline = time.monotonic() + 10
    while any(item["leader"] == 2 for item in partitions(cluster)):
        assert time.monotonic() < deadline
    sick = run(cluster, cluster_command, "health", code=1).stdout
    assert "1 brokers down: 2" in sick
    assert "3 partitions short of copies in sync: t-0, t-1, t-2" in sick
    assert "acks=all" not in sick
    cluster.start_broker(2)
    run(cluster, cluster_command, "health", "--exit-when-healthy")
    assert not any(item["leader"] == 2 for item in partitions(cluster))
    assert "1 leaders elected" in run(cluster, cluster_command, "elect-leaders").stdout
    assert sorted(item["leader"] for item in partitions(cluster)) == [1, 2, 3]
    assert run(cluster, cluster_command, "elect-leaders", "--topic", "t").stdout == "0 leaders elected\n"
    produce(cluster, 300)
    assert sum(item["high_watermark"] for item in partitions(cluster)) == 600


def test_a_broker_is_drained_and_shown_as_that(cluster: Cluster) -> None:
    run(cluster, topic_command, "create", "t", "-p", "6", "-r", "2")
    produce(cluster, 300)
    run(cluster, cluster_command, "drain", "3")
    deadline = time.monotonic() + 10
    while any(3 in item["replicas"] for item in partitions(cluster)):
        assert time.monotonic() < deadline, partitions(cluster)
    by_id = {broker["broker_id"]: broker for broker in as_json(cluster, cluster_command, "info")["brokers"]}
    assert (by_id[3]["draining"], by_id[3]["replicas"], by_id[3]["leaders"]) == (True, 0, 0)
    assert "draining" in run(cluster, cluster_command, "info").stdout
    run(cluster, topic_command, "create", "u", "-p", "6", "-r", "2")
    assert sum(item["high_watermark"] for item in partitions(cluster)) == 300
    stays = run(cluster, cluster_command, "drain", "2", code=1)
    assert "stay: there is no other broker" in stays.stderr
    run(cluster, cluster_command, "drain", "3", "--undo")
    assert run(cluster, cluster_command, "drain", "9", code=1).stderr.startswith("Error: INVALID_REQUEST")


def test_topics_that_can_not_be_acknowledged_are_named(cluster: Cluster) -> None:
    run(cluster, topic_command, "create", "t", "-r", "1")
    run(cluster, cluster_command, "alter-config", "--set", "min.insync.replicas=2")
    sick = run(cluster, cluster_command, "health", code=1).stdout
    assert "1 partitions with fewer copies in sync than min.insync.replicas: acks=all waits: t-0" in sick
    why = r"does not exist and can't be created \(INVALID_CONFIG\)"
    with Producer(cluster.bootstrap, max_block_ms=1000) as producer, pytest.raises(ForebayError, match=why):
        producer.send("made-by-itself", b"").result(10)
    logs = "".join((cluster.data_dir / f"broker-{broker}.log").read_text() for broker in (1, 2, 3))
    assert "a topic can't be created for a client" in logs
    run(cluster, cluster_command, "alter-config", "--delete", "min.insync.replicas")
    assert run(cluster, cluster_command, "health").stdout == "healthy\n"


def test_settings_of_all_brokers_change_while_they_run(cluster: Cluster) -> None:
    assert "settings are at their default: --all" in run(cluster, cluster_command, "describe-config").stdout
    run(cluster, cluster_command, "alter-config", "--set", "num.partitions=4", "--dry")
    assert as_json(cluster, cluster_command, "describe-config")["num.partitions"]["value"] == "1"
    done = run(cluster, cluster_command, "alter-config", "--set", "num.partitions=4", "--set", "log.retention.hours=2")
    assert done.stdout == "num.partitions, log.retention.hours: changed\n"
    run(cluster, topic_command, "create", "t")
    assert len(partitions(cluster)) == 4
    shown = run(cluster, cluster_command, "describe-config").stdout.splitlines()
    assert [line.split() for line in shown[1:3]] == [
        ["log.retention.hours", "2", "brokers"],
        ["num.partitions", "4", "brokers"],
    ]
    run(cluster, cluster_command, "alter-config", "--delete", "num.partitions")
    assert as_json(cluster, cluster_command, "describe-config")["num.partitions"]["source"] == "default"
    refused = run(cluster, cluster_command, "alter-config", "--set", "num.partition=4", code=1)
    assert "did you mean num.partitions?" in refused.stderr
    refused = run(cluster, cluster_command, "alter-config", "--set", "num.partitions=x", code=1)
    assert "expected a whole number" in refused.stderr
    assert "nothing to change" in run(cluster, cluster_command, "alter-config", code=2).stderr


def test_quotas_of_clients_are_shown_set_and_deleted(cluster: Cluster) -> None:
    assert "No client has a quota" in run(cluster, cluster_command, "quotas", "describe").stderr
    alter = ("quotas", "alter")
    dry = run(cluster, cluster_command, *alter, "--default", "--set", "producer_byte_rate=5", "--dry")
    assert dry.stdout == "<default>: producer_byte_rate can be changed\n"
    assert as_json(cluster, cluster_command, "quotas", "describe") == []
    run(cluster, cluster_command, *alter, "--default", "client-id", "--set", "producer_byte_rate=1048576")
    both = ("--set", "producer_byte_rate=2", "--set", "consumer_byte_rate=3")
    done = run(cluster, cluster_command, *alter, "--name", "client-id=a=b", *both)
    assert done.stdout == "a=b: producer_byte_rate, consumer_byte_rate changed\n"
    run(cluster, cluster_command, *alter, "--entity-name", "app", "--add-config", "consumer_byte_rate=4")
    assert as_json(cluster, cluster_command, "quotas", "describe") == [
        {"client_id": None, "producer_byte_rate": 1048576},
        {"client_id": "a=b", "producer_byte_rate": 2, "consumer_byte_rate": 3},
        {"client_id": "app", "consumer_byte_rate": 4},
    ]
    shown = [line.split() for line in run(cluster, cluster_command, "quotas", "describe").stdout.splitlines()]
    assert shown[:2] == [["CLIENT-ID", "QUOTA", "BYTES/S"], ["<default>", "producer_byte_rate", "1048576"]]
    run(cluster, cluster_command, *alter, "--name", "app", "--delete", "consumer_byte_rate")
    assert len(as_json(cluster, cluster_command, "quotas", "describe")) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--set", "producer_byte_rate=1"), 2, "name a client with --name"),
        (("--name", "a", "--default", "--set", "producer_byte_rate=1"), 2, "name a client with --name"),
        (("--name", "user=a", "--set", "producer_byte_rate=1"), 2, "those of client ids"),
        (("--default", "user", "--set", "producer_byte_rate=1"), 2, "those of client ids"),
        (("--name", "client-id=", "--set", "producer_byte_rate=1"), 2, "an empty client id"),
        (("--name", "a"), 2, "nothing to change"),
        (("--name", "a", "--set", "producer_byte_rate=1.5"), 1, "expected a whole number of bytes a second"),
        (("--name", "a", "--set", "request_percentage=1"), 1, "expected producer_byte_rate or consumer_byte_rate"),
    ],
)
def test_quotas_that_can_not_be_are_refused(one: Cluster, arguments: tuple[str, ...], code: int, text: str) -> None:
    assert text in run(one, cluster_command, "quotas", "alter", *arguments, code=code).stderr
