"""Wireshark's dissector reads what the gateway sends, as Kafka's own: all APIs, all versions that both know."""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from edge.kafka.codec import APIS, Api
from edge.kafka.gateway import Gateway
from tests.edge.kafka.pcap import Sent, write_pcap
from tests.edge.kafka.test_versions import Client, codes_in, fields_of
from tests.machine import program

pytestmark = pytest.mark.needs("tshark")

PORT = 9092  # in the capture
_names = itertools.count()

# The last version that the dissector of tshark 4.0 knows, where that is not ours; it knows nothing of those with -1.
KNOWN = {
    "Produce": 8, "Fetch": 11, "ListOffsets": 5, "Metadata": 9, "OffsetFetch": 7, "FindCoordinator": 3, "JoinGroup": 7,
    "LeaveGroup": 4, "ListGroups": 3, "ApiVersions": 3, "CreateTopics": 5, "DeleteTopics": 4, "DeleteRecords": 1,
    "InitProducerId": 3, "OffsetForLeaderEpoch": 3, "DescribeConfigs": 2, "AlterConfigs": 1, "DescribeLogDirs": 1,
    "CreatePartitions": 2, "DescribeCluster": -1, "DescribeClientQuotas": -1, "AlterClientQuotas": -1,
}  # fmt: skip
# What it reads otherwise than Kafka's schemas say, the clients' requests already:
MISREAD = {
    **{("JoinGroup", version): "the length of bytes has 32 bits, not 16" for version in range(6)},
    **{("SyncGroup", version): "the same" for version in range(4)},
    **{("SaslAuthenticate", version): "the same" for version in range(2)},
    **{("DeleteTopics", version): "throttle_time_ms comes with version 1, not 3" for version in (1, 2)},
    ("AlterPartitionReassignments", 0): "version 0 has compact names",
    ("ListPartitionReassignments", 0): "the same",
}
OF_THE_LIST = ("Unsupported ", "Unknown ")  # what it does not know of the versions that ApiVersions names
WARNING = 0x00400000  # of PI_WARN
SUBSCRIPTION = struct.pack(">hih6si", 0, 1, 6, b"topics", -1)
ASSIGNMENT = struct.pack(">hih6siii", 0, 1, 6, b"topics", 1, 0, -1)
COUNT, VALUE = 5, b"value " * 20  # of records, and of each
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


class RecordedClient(Client):
    """A connection whose bytes are kept."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.said: list[Sent] = []

    def send(self, data: bytes) -> None:
        self.said.append(Sent(True, data))
        super().send(data)

    def receive(self) -> bytes:
        frame = super().receive()
        self.said.append(Sent(False, struct.pack(">i", len(frame)) + frame))
        return frame


def name_of(api: Api) -> str:
    return api.request.__name__.removesuffix("Request")


def batch(codec: int) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 20,
    )  # fmt: skip
    for number in range(COUNT):
        builder.append(number, 1_000_000 + number, b"key", VALUE, [("site", b"A")])
    return bytes(builder.build())


def fields(key: int, version: int, topic: str) -> dict[str, Any]:
    found = fields_of(key, version, topic)
    if key == 11:
        found["protocols"][0].metadata = SUBSCRIPTION
    return found


def syncing(client: Client) -> dict[str, Any]:
    """Become the leader of a group; return what it asks then."""
    asked = {**fields(11, 7, ""), "group_id": f"sync-{next(_names)}"}
    asked["member_id"] = client.ask(11, 7, **asked).member_id
    joined = client.ask(11, 7, **asked)
    assert joined.error_code == 0
    kind = APIS[14].request.SyncGroupRequestAssignment
    return {
        "group_id": asked["group_id"], "generation_id": joined.generation_id, "member_id": joined.member_id,
        "protocol_type": "other",
        "protocol_name": "range", "assignments": [kind(member_id=joined.member_id, assignment=ASSIGNMENT)],
    }  # fmt: skip


@pytest.fixture(scope="module")
def topic(gateway: Gateway) -> str:
    return made_topic(gateway)


def made_topic(gateway: Gateway) -> str:
    name = f"tshark-{next(_names)}"
    client = Client(gateway.port)
    made = APIS[19].request.CreatableTopic(
        name=name, num_partitions=1, replication_factor=1, assignments=[], configs=[]
    )
    assert codes_in(client.ask(19, 4, topics=[made], timeout_ms=5000, validate_only=False)) == {0}
    client.close()
    return name


def dissected(path: Path, wanted: str, *names: str) -> Iterator[dict[str, list[str]]]:
    """Return fields of the packets that a display filter wants."""
    tshark = program("tshark")
    assert tshark is not None
    command = [tshark, "-r", str(path), "-d", f"tcp.port=={PORT},kafka", "-Y", wanted, "-T", "json"]
    for name in names:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for packet in json.loads(done.stdout):
        yield packet["_source"]["layers"]


def test_all_apis_are_read_without_complaint(gateway: Gateway, topic: str, tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []  # by the number of the connection
    conversations = []
    for api in APIS.values():
        name = name_of(api)
        for version in range(api.lowest, KNOWN.get(name, api.highest) + 1):
            if (name, version) in MISREAD:
                continue
            client = RecordedClient(gateway.port)
            client.ask(api.key, version, **(syncing(client) if api.key == 14 else fields(api.key, version, topic)))
            client.close()
            conversations.append(client.said)
            asked.append((name, version))
    unread = {name for name, version in KNOWN.items() if version < 0} | {name for name, _ in MISREAD}
    assert {name_of(api) for api in APIS.values()} - {name for name, _ in asked} <= unread
    path = tmp_path / "apis.pcap"
    write_pcap(path, PORT, conversations)
    complaints: dict[tuple[str, int], list[str]] = {}
    for packet in dissected(
        path, f"_ws.malformed || _ws.expert.severity >= {WARNING}", "tcp.stream", "_ws.expert.message"
    ):
        name, version = asked[int(packet["tcp.stream"][0])]
        texts = packet.get("_ws.expert.message", ["malformed"])
        if name == "ApiVersions":
            texts = [text for text in texts if not text.startswith(OF_THE_LIST)]
        if texts:
            complaints[name, version] = texts
    assert complaints == {}
    answered = list(dissected(path, "kafka.request_frame", "frame.number", "kafka.request_frame"))
    assert len(answered) == sum(len(said) for said in conversations) // 2
    assert all(int(one["kafka.request_frame"][0]) == int(one["frame.number"][0]) - 1 for one in answered)


def test_records_are_read_as_they_were_written(gateway: Gateway, tmp_path: Path) -> None:
    conversations, names = [], []
    for codec, number in CODECS.items():
        name, group = made_topic(gateway), {"group_id": f"tshark-{codec}"}
        client = RecordedClient(gateway.port)
        produced = fields_of(0, 8, name)
        produced["topic_data"][0].partition_data[0].records = batch(number)
        asked = [
            (0, 8, produced),
            (0, 8, produced),
            (8, 6, fields(8, 6, name) | group),
            (9, 5, fields(9, 5, name) | group),
        ]
        for key, version, wanted in [*asked, (1, 11, fields(1, 11, name))]:
            assert codes_in(client.ask(key, version, **wanted)) == {0}
        client.close()
        conversations.append(client.said)
        names.append(name)
    path = tmp_path / "records.pcap"
    write_pcap(path, PORT, conversations)
    seen = ("offset", "topic_name", "batch_codec", "message_key", "message_value", "header_key", "message_timestamp")
    answers = dissected(path, f"kafka && tcp.srcport == {PORT}", *(f"kafka.{field}" for field in seen))
    for number, name in enumerate(names):
        first, second, committed, fetched_offset, fetched = itertools.islice(answers, 5)
        assert {tuple(one["kafka.topic_name"]) for one in (first, second, committed, fetched_offset, fetched)} == {
            (name,)
        }
        assert (first["kafka.offset"], second["kafka.offset"]) == (["0"], [str(COUNT)])
        assert fetched_offset["kafka.offset"] == ["3"]
        high_watermark, *offsets = map(int, fetched["kafka.offset"])
        assert high_watermark == 2 * COUNT
        assert offsets == [0, *range(COUNT), COUNT, *range(COUNT, 2 * COUNT)], "of a batch, and of its records"
        assert fetched["kafka.batch_codec"] == [str(number)] * 2
        assert fetched["kafka.message_key"] == [b"key".hex()] * 2 * COUNT
        assert fetched["kafka.message_value"] == [VALUE.hex()] * 2 * COUNT
        assert fetched["kafka.header_key"] == ["site"] * 2 * COUNT
        assert "00:16:40.001" in fetched["kafka.message_timestamp"][1]
