"""How many copies a topic gets, whoever makes it."""

from __future__ import annotations

import json
from pathlib import Path

from ingest import Producer
from tests.edge.mqtt import client_packets as c
from tests.edge.mqtt.raw_device import RawDevice
from tests.ops.cli.conftest import Forebay


def copies(forebay: Forebay, topic: str) -> set[int]:
    at = ("--data-dir", str(forebay.data_dir), "--format", "json")
    described = json.loads(forebay.run("topic", "describe", topic, *at).stdout)
    return {len(item["replicas"]) for item in described["partitions"]}


def test_each_way_to_make_a_topic_honours_the_number_of_copies_asked_for(forebay: Forebay, tmp_path: Path) -> None:
    config = tmp_path / "forebay.toml"
    config.write_text('[broker]\n"default.replication.factor" = 3\n')
    forebay.up("--brokers", "3", "--config", str(config))
    at = ("--data-dir", str(forebay.data_dir))
    forebay.run("topic", "create", "asked", "-r", "2", *at)
    forebay.run("topic", "create", "by-default", *at)
    with Producer(str(forebay.data_dir)) as producer:
        producer.send("of-a-producer", b"x")
    with RawDevice(forebay.status()["ports"]["mqtt"]) as device:
        device.connect("device")
        device.send(c.publish("t", b"x", qos=1, mid=1))
        assert device.receive() == (0x40, b"\0\1")
    found = {topic: copies(forebay, topic) for topic in ("asked", "by-default", "of-a-producer", "mqtt")}
    assert found == {"asked": {2}, "by-default": {3}, "of-a-producer": {3}, "mqtt": {3}}
