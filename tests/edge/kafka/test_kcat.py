"""Debian's kcat, with a librdkafka of 2023: what agents in the field are made of."""

from __future__ import annotations

import itertools
import subprocess

import pytest

from ingest import Admin
from ingest.log.names import partition_name
from ingest.records.header import MAGIC, decode_header
from tests.cluster import Cluster

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
COUNT = 500
TEXT = "some text that compresses well " * 4
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


def lines(count: int) -> str:
    return "".join(f"{number}:{number} {TEXT}\n" for number in range(count))


def stored_codecs(cluster: Cluster, topic: str) -> set[int]:
    with Admin(cluster.bootstrap) as admin:
        found = admin.describe_topic(topic)
    codecs = set()
    for broker in (1, 2):
        for item in found.partitions:
            folder = cluster.directory / "brokers" / str(broker) / partition_name(found.topic_id, item.partition)
            for path in folder.glob("*.log"):
                data, position = path.read_bytes(), 0
                while data[position : position + len(MAGIC)] == MAGIC:
                    header = decode_header(data, position)
                    codecs.add(header.codec)
                    position += header.padded_size
    return codecs


@pytest.mark.parametrize("codec", CODECS)
def test_what_kcat_writes_it_reads_and_it_is_stored_as_it_was_packed(
    cluster: Cluster, address: str, topic: str, codec: str
) -> None:
    kcat(address, "-P", "-t", topic, "-K", ":", "-z", codec, text=lines(COUNT))
    found = kcat(address, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%k:%s\n")
    assert sorted(found) == sorted(lines(COUNT).splitlines())
    assert stored_codecs(cluster, topic) == {CODECS[codec]}


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
