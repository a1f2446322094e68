"""Every version of every API that is advertised is answered in that version, as the library reads it."""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections import deque
from typing import Any

import pytest

from edge.kafka.apis import fetch
from edge.kafka.codec import APIS
from edge.kafka.gateway import Gateway
from ingest.wire.codes import ErrorCode
from tests.edge.kafka.test_batches import built

_names = itertools.count()


class Client:
    """One connection; answers come in the order of the requests."""

    def __init__(self, port: int, *, receive_bytes: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(20)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect(("127.0.0.1", port))
        self._numbers = itertools.count(1)
        self._begun: deque[int] = deque()
        self._data = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes:
        """Return one frame without its size; empty: the connection was closed."""
        return self.receive_frame() or b""

    def receive_frame(self) -> bytes | None:
        """Return one frame without its size; None: the connection was closed."""
        while len(self._data) < 4 or len(self._data) < 4 + struct.unpack_from(">i", self._data)[0]:
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not more:
                return None
            self._data += more
        end = 4 + struct.unpack_from(">i", self._data)[0]
        frame, self._data = self._data[4:end], self._data[end:]
        return frame

    def begin(self, key: int, version: int, /, **fields: Any) -> None:
        """Send a request."""
        number = next(self._numbers)
        request = APIS[key].request(**fields)
        request.API_VERSION = version
        request.with_header(correlation_id=number, client_id="test")
        self.send(bytes(request.encode(header=True, framed=True)))
        self._begun.append(number)

    def end(self, key: int, version: int) -> Any:
        """Return the next answer."""
        frame = self.receive()
        assert struct.unpack_from(">i", frame) == (self._begun.popleft(),)
        response = APIS[key].response
        flexible = key != 18 and response.flexible_version_q(version)
        return response.decode(frame[5 if flexible else 4 :], version=version)

    def ask(self, key: int, version: int, /, **fields: Any) -> Any:
        self.begin(key, version, **fields)
        return self.end(key, version)

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def client(gateway: Gateway) -> Any:
    opened = Client(gateway.port)
    yield opened
    opened.close()


def fields_of(key: int, version: int, topic: str) -> dict[str, Any]:
    """Return a request that can be served."""
    request = APIS[key].request
    match key:
        case 0:
            kind = request.TopicProduceData
            partition = kind.PartitionProduceData(index=0, records=bytes(built()))
            return {"acks": -1, "timeout_ms": 5000, "topic_data": [kind(name=topic, partition_data=[partition])]}
        case 1:
            kind = request.FetchTopic
            partition = kind.FetchPartition(
                partition=0, fetch_offset=0, partition_max_bytes=1 << 20, current_leader_epoch=-1, last_fetched_epoch=-1
            )
            return {
                "replica_id": -1, "max_wait_ms": 10, "min_bytes": 1, "max_bytes": 1 << 20, "session_epoch": -1,
                "session_id": 0, "isolation_level": 0, "rack_id": "", "forgotten_topics_data": [],
                "topics": [kind(topic=topic, partitions=[partition])],
            }  # fmt: skip
        case 2:
            kind = request.ListOffsetsTopic
            partition = kind.ListOffsetsPartition(partition_index=0, timestamp=-2, current_leader_epoch=-1)
            return {"replica_id": -1, "isolation_level": 0, "topics": [kind(name=topic, partitions=[partition])]}
        case 3:
            return {"topics": [request.MetadataRequestTopic(name=topic)], "allow_auto_topic_creation": False}
        case 8:
            kind = request.OffsetCommitRequestTopic
            partition = kind.OffsetCommitRequestPartition(
                partition_index=0, committed_offset=3, committed_leader_epoch=-1, committed_metadata="m"
            )
            return {
                "group_id": f"versions-{version}", "generation_id_or_member_epoch": -1, "member_id": "",
                "topics": [kind(name=topic, partitions=[partition])],
            }  # fmt: skip
        case 9 if version < 8:
            kind = request.OffsetFetchRequestTopic
            return {"group_id": f"versions-{version}", "topics": [kind(name=topic, partition_indexes=[0])]}
        case 9:
            kind = request.OffsetFetchRequestGroup
            inner = kind.OffsetFetchRequestTopics(name=topic, partition_indexes=[0])
            return {"groups": [kind(group_id=f"versions-{version}", topics=[inner])], "require_stable": False}
        case 10:
            return {"key": "g", "key_type": 0, "coordinator_keys": ["g"]}
        case 11:
            protocol = request.JoinGroupRequestProtocol(name="range", metadata=b"")
            return {
                "group_id": f"join-{version}", "session_timeout_ms": 10_000, "rebalance_timeout_ms": 10_000,
                "member_id": "", "protocol_type": "other", "protocols": [protocol],
            }  # fmt: skip
        case 12 | 14:
            return {"group_id": "nobody", "generation_id": 1, "member_id": "x", "assignments": []} if key == 14 else {
                "group_id": "nobody", "generation_id": 1, "member_id": "x"
            }  # fmt: skip
        case 13 if version < 3:
            return {"group_id": "nobody", "member_id": "x"}
        case 13:
            return {"group_id": "nobody", "members": [request.MemberIdentity(member_id="x")]}
        case 15:
            return {"groups": ["nobody"]}
        case 16:
            return {"states_filter": []}
        case 17:
            return {"mechanism": "PLAIN"}
        case 36:
            return {"auth_bytes": b"\0alice\0secret"}
        case 19:
            kind = request.CreatableTopic
            made = kind(name=f"{topic}-made", num_partitions=1, replication_factor=1, assignments=[], configs=[])
            return {"topics": [made], "timeout_ms": 5000, "validate_only": True}
        case 20:
            name = f"{topic}-gone"
            if version < 6:
                return {"topic_names": [name], "timeout_ms": 5000}
            return {"topics": [request.DeleteTopicState(name=name)], "timeout_ms": 5000}
        case 21:
            kind = request.DeleteRecordsTopic
            partition = kind.DeleteRecordsPartition(partition_index=0, offset=0)
            return {"topics": [kind(name=topic, partitions=[partition])], "timeout_ms": 5000}
        case 22:
            return {
                "transactional_id": None, "transaction_timeout_ms": 1000, "producer_id": -1, "producer_epoch": -1,
            }  # fmt: skip
        case 23:
            kind = request.OffsetForLeaderTopic
            partition = kind.OffsetForLeaderPartition(partition=0, current_leader_epoch=-1, leader_epoch=0)
            return {"replica_id": -1, "topics": [kind(topic=topic, partitions=[partition])]}
        case 35:
            return {"topics": None}
        case 32:
            kind = request.DescribeConfigsResource
            return {"resources": [kind(resource_type=2, resource_name=topic, configuration_keys=None)]}
        case 33:
            kind = request.AlterConfigsResource
            entry = kind.AlterableConfig(name="retention.ms", value="777777")
            return {
                "resources": [kind(resource_type=2, resource_name=topic, configs=[entry])], "validate_only": False,
            }  # fmt: skip
        case 44:
            kind = request.AlterConfigsResource
            entry = kind.AlterableConfig(name="retention.ms", config_operation=1, value=None)
            return {
                "resources": [kind(resource_type=2, resource_name=topic, configs=[entry])], "validate_only": False,
            }  # fmt: skip
        case 37:
            kind = request.CreatePartitionsTopic
            return {"topics": [kind(name=topic, count=2)], "timeout_ms": 5000, "validate_only": True}
        case 42:
            return {"groups_names": ["nobody"]}
        case 43:
            return {"election_type": 0, "topic_partitions": None, "timeout_ms": 5000}
        case 45:
            kind = request.ReassignableTopic
            partition = kind.ReassignablePartition(partition_index=0, replicas=None)
            return {"timeout_ms": 5000, "topics": [kind(name=topic, partitions=[partition])]}
        case 46:
            return {"timeout_ms": 5000, "topics": None}
        case 48:
            component = request.ComponentData(entity_type="client-id", match_type=2, match=None)
            return {"components": [component], "strict": False}
        case 49:
            kind = request.EntryData
            entity = kind.EntityData(entity_type="client-id", entity_name=f"c-{version}")
            change = kind.OpData(key="producer_byte_rate", value=1e9, remove=False)
            return {"entries": [kind(entity=[entity], ops=[change])], "validate_only": True}
        case 47:
            kind = request.OffsetDeleteRequestTopic
            partition = kind.OffsetDeleteRequestPartition(partition_index=0)
            return {"group_id": "nobody", "topics": [kind(name=topic, partitions=[partition])]}
        case _:
            return {}


def codes_in(answer: Any) -> set[int]:
    """Return all error codes an answer holds, wherever they are."""
    found = set()
    for name, field in answer._struct.fields.items():
        value = getattr(answer, name)
        if name.endswith("error_code"):
            found.add(value)
        elif field.is_struct_array():
            for item in value or ():
                found |= codes_in(item)
    return found


EXPECTED = {
    12: {ErrorCode.UNKNOWN_MEMBER_ID},
    13: {0, ErrorCode.UNKNOWN_MEMBER_ID},
    14: {ErrorCode.UNKNOWN_MEMBER_ID},
    17: {ErrorCode.ILLEGAL_SASL_STATE},
    20: {ErrorCode.UNKNOWN_TOPIC_OR_PARTITION},
    36: {ErrorCode.ILLEGAL_SASL_STATE},
    42: {ErrorCode.GROUP_ID_NOT_FOUND},
    45: {0, ErrorCode.NO_REASSIGNMENT_IN_PROGRESS},
    47: {ErrorCode.GROUP_ID_NOT_FOUND},
}


@pytest.fixture(scope="module")
def topic(gateway: Gateway) -> str:
    name = f"versions-{next(_names)}"
    client = Client(gateway.port)
    kind = APIS[19].request.CreatableTopic
    made = kind(name=name, num_partitions=1, replication_factor=1, assignments=[], configs=[])
    assert codes_in(client.ask(19, 4, topics=[made], timeout_ms=5000, validate_only=False)) == {0}
    deadline = time.monotonic() + 10
    while codes_in(client.ask(10, 0, key="g")) != {0}:  # the first to ask has the offsets' topic made
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client.close()
    return name


@pytest.mark.parametrize(
    ("key", "version"), [(api.key, version) for api in APIS.values() for version in range(api.lowest, api.highest + 1)]
)
def test_every_version_is_served(client: Client, topic: str, key: int, version: int) -> None:
    answer = client.ask(key, version, **fields_of(key, version, topic))
    codes = codes_in(answer)
    if key == 11:  # KIP-394 from version 4 on; before, a group of one begins at once
        assert codes == {ErrorCode.MEMBER_ID_REQUIRED if version >= 4 else 0}
        assert answer.member_id
    else:
        assert codes <= EXPECTED.get(key, {0}), codes


def test_what_is_advertised_is_what_is_served_but_for_old_produces(client: Client) -> None:
    answer = client.ask(18, 3)
    found = {item.api_key: (item.min_version, item.max_version) for item in answer.api_keys}
    assert found == {api.key: (api.advertised, api.highest) for api in APIS.values()}
    assert found[0][0] == 0


def test_an_unknown_version_of_api_versions_gets_version_0_with_all_ranges(gateway: Gateway) -> None:
    client = Client(gateway.port)
    client.send(struct.pack(">ihhih4s", 14, 18, 99, 7, 4, b"test"))
    frame = client.receive()
    assert struct.unpack_from(">ih", frame) == (7, 35)
    answer = APIS[18].response.decode(frame[4:], version=0)
    assert {item.api_key for item in answer.api_keys} == set(APIS)
    client.close()


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">i", -1),
        struct.pack(">i", 2**31 - 1) + bytes(100),
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">ihhi", 8, 999, 0, 1),
        struct.pack(">ihhi", 8, 3, 99, 1),
        struct.pack(">ihhihi", 14, 3, 1, 1, -1, 2**31 - 1),
        struct.pack(">ihhih", 10, 3, 1, 1, 30_000),
        struct.pack(">ihhih", 10, 0, 2, 1, -1),
        struct.pack(">ihhih", 60, 0, 9, 1, -1) + b"\xff" * 50,
        struct.pack(">i", 2 << 20) + struct.pack(">hhih", 3, 1, 1, -1) + bytes((2 << 20) - 10),
    ],
    ids=["negative", "huge", "http", "api", "version", "count", "client-id", "old-produce", "varints", "large"],
)
def test_what_is_no_request_ends_its_connection_alone(gateway: Gateway, data: bytes) -> None:
    before = Client(gateway.port)
    client = Client(gateway.port)
    client.send(data)
    assert client.receive() == b""
    client.close()
    assert codes_in(before.ask(18, 0)) == {0}
    before.close()


def test_more_partitions_of_a_leader_than_one_request_can_name_are_fetched(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"versions-{next(_names)}"
    made = APIS[19].request.CreatableTopic(
        name=name, num_partitions=6, replication_factor=1, assignments=[], configs=[]
    )
    assert codes_in(client.ask(19, 4, topics=[made], timeout_ms=5000, validate_only=False)) == {0}
    kind = APIS[0].request.TopicProduceData
    data = [kind.PartitionProduceData(index=number, records=bytes(built())) for number in range(6)]
    produced = client.ask(0, 8, acks=-1, timeout_ms=5000, topic_data=[kind(name=name, partition_data=data)])
    assert codes_in(produced) == {0}
    monkeypatch.setattr(fetch, "ITEMS_MAX", 2)
    fields = fields_of(1, 11, name)
    (topic,) = fields["topics"]
    topic.partitions = [
        type(topic).FetchPartition(
            partition=number, fetch_offset=0, partition_max_bytes=1 << 20, current_leader_epoch=-1, log_start_offset=-1
        )
        for number in range(6)
    ]
    (found,) = client.ask(1, 11, **fields).responses
    assert [(item.partition_index, item.error_code, bool(item.records)) for item in found.partitions] == [
        (number, 0, True) for number in range(6)
    ]
