"""Debian's kcat, with a librdkafka of 2023: what the matrix does not show."""

from __future__ import annotations

import itertools
import subprocess

import pytest

from ingest import Admin
from tests.cluster import Cluster

_names = itertools.count()

pytestmark = pytest.mark.needs("kcat")


@pytest.fixture
def topic(cluster: Cluster) -> str:
    name = f"kcat-{next(_names)}"
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic(name, 3)
    return name


def kcat(address: str, *arguments: str, text: str = "") -> list[str]:
    done = subprocess.run(
        ["kcat", "-b", address, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_groups_times_and_metadata(cluster: Cluster, address: str, topic: str) -> None:
    kcat(address, "-P", "-t", topic, "-p", "0", text="one\ntwo\nthree\n")
    read = ("-G", f"g-{topic}", "-q", "-e", topic, "-X", "auto.offset.reset=earliest")
    assert kcat(address, *read) == ["one", "two", "three"]
    assert kcat(address, *read) == [], "it goes on where it has committed"
    assert kcat(address, "-Q", "-t", f"{topic}:0:-1") == [f"{topic} [0] offset 3"]
    assert kcat(address, "-Q", "-t", f"{topic}:0:1") == [f"{topic} [0] offset 0"]
    told = "\n".join(kcat(address, "-L", "-t", topic))
    assert "2 brokers:" in told
    assert f'topic "{topic}" with 3 partitions' in told


def test_a_tombstone_and_a_header(address: str, topic: str) -> None:
    kcat(address, "-P", "-t", topic, "-p", "0", "-K", ":", "-Z", "-H", "site=A", text="gone:\n")
    read = ("-C", "-t", topic, "-p", "0", "-o", "0", "-c", "1", "-e", "-q")
    assert kcat(address, *read, "-f", "%k %S %h\n") == ["gone -1 site=A"]
