"""All connections together hold a bounded number of bytes."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from edge.kafka import conversion
from edge.kafka.batches import from_kafka
from edge.kafka.gateway import Gateway
from edge.kafka.memory import Making, Memory
from edge.keepalive import IDLE_S
from ingest import Admin, Producer
from ingest.records.batch import encode_batch
from ingest.records.header import decode_header
from tests.cluster import Cluster
from tests.edge.kafka.test_batches import built, stored
from tests.edge.kafka.test_versions import Client, codes_in, fields_of

MIB = 1 << 20


def test_who_was_paused_goes_on_when_enough_is_answered() -> None:
    memory, called = Memory(100), []
    memory.whole += 120
    assert memory.is_full
    memory.when_free(lambda: called.append("a"))
    memory.release(10)
    assert called == []
    memory.release(20)
    assert called == ["a"]
    memory.release(20)
    assert called == ["a"], "once"


def test_who_has_left_is_not_called() -> None:
    memory, called = Memory(100), []
    memory.whole += 120

    def go_on() -> None:
        called.append("a")

    memory.when_free(go_on)
    memory.forget(go_on)
    memory.release(120)
    assert called == []


def test_of_an_answer_one_batch_is_made_whatever_others_left_unread() -> None:
    memory = Memory(1000)
    made = from_kafka(built())
    rows = stored(made.header + bytes(made.body))
    columns = stored(encode_batch([1, 2], None, [b"a", b"b"]))
    batches = [(decode_header(batch), memoryview(batch)) for batch in (columns, rows, columns, rows)]
    with Making(memory) as making:
        assert making.fitting(batches, all_copied=False) == batches
        assert memory.unsent == 2 * len(columns)
    assert memory.unsent == 0
    memory.unsent = 1000
    with Making(memory) as making:
        assert making.fitting(batches, all_copied=False) == batches[:2]
        assert making.fitting(batches, all_copied=False) == []
        assert making.fitting(batches[1:], all_copied=False) == batches[1:2]
        assert making.fitting(batches[1:], all_copied=True) == []
    assert memory.unsent == 1000


def test_of_half_sent_requests_the_largest_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.memory, "_bytes_max", 3 * MIB)
    clients = [Client(gateway.port) for _ in range(3)]
    head = struct.pack(">i", 90 * MIB) + struct.pack(">hhi", 0, 8, 1)
    for client, size in zip(clients, (MIB // 2, 2 * MIB, MIB), strict=True):
        client.send(head + bytes(size))
        time.sleep(0.1)
    assert clients[1].receive() == b"", "closed"
    assert MIB < gateway.memory.partial < 2 * MIB, "the others are not"
    for client in clients:
        client.close()
    deadline = time.monotonic() + 5
    while gateway.memory.partial:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_no_request_is_held_no_longer_than_its_connection(gateway: Gateway) -> None:
    before = gateway.memory.whole
    client = Client(gateway.port)
    client.send(struct.pack(">ihhihi", 14, 3, 1, 1, -1, 2**31 - 1))  # a Metadata that claims to name 2^31 topics
    assert client.receive() == b""
    client.close()
    deadline = time.monotonic() + 5
    while gateway.memory.whole != before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nothing_is_read_while_too_much_waits_for_answers(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.memory, "_bytes_max", MIB)
    client = Client(gateway.port)
    assert codes_in(client.ask(18, 0)) == {0}
    assert gateway.memory.whole == 0
    gateway.memory.whole += MIB  # as if another's
    client.begin(18, 0)
    client.begin(18, 0)
    client.end(18, 0)  # which was on its way before it was known to be too much
    client.begin(18, 0)
    time.sleep(0.2)
    held = gateway.memory.whole - MIB
    gateway._loop.call_soon_threadsafe(gateway.memory.release, MIB)
    client.end(18, 0)
    client.end(18, 0)
    assert held == 0, "it stayed in the socket"
    assert gateway.memory.whole == 0
    client.close()


def test_a_client_that_is_cut_off_is_not_held_for_ever(gateway: Gateway) -> None:
    known = set(gateway._connections)
    client = Client(gateway.port)
    client.ask(18, 0)
    (connection,) = set(gateway._connections) - known
    plain = connection._transport.get_extra_info("socket")
    assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == IDLE_S
    client.close()


def test_answers_that_nobody_reads_are_bounded(
    gateway: Gateway, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.memory, "_bytes_max", 12 * MIB)  # beyond what the socket takes
    monkeypatch.setattr(conversion, "BYTES_MAX", 20 * MIB)
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic("unread", 1, 1)
    with Producer(cluster.bootstrap) as producer:
        for _ in range(16_000):
            producer.send("unread", bytes(1000))
        producer.flush()
    fields = fields_of(1, 11, "unread") | {"max_bytes": 20 * MIB}
    first = Client(gateway.port)
    first.ask(1, 11, **fields)  # mapped from now on
    fields["topics"][0].partitions[0].partition_max_bytes = 20 * MIB
    clients = [Client(gateway.port, receive_bytes=1 << 16) for _ in range(6)]
    for client in clients:
        client.begin(1, 11, **fields)
        time.sleep(0.1)
        assert gateway.memory.unsent <= 12 * MIB
    sizes = []
    for client in clients:
        (answered,) = client.end(1, 11).responses
        sizes.append(len(answered.partitions[0].records))
        client.close()
    assert 10 * MIB < sizes[0] <= 13 * MIB
    assert all(size > 0 for size in sizes)
    assert sum(sizes) < 16 * MIB
    (answered,) = first.ask(1, 11, **fields).responses
    assert len(answered.partitions[0].records) > 10 * MIB
    first.close()
    deadline = time.monotonic() + 5
    while gateway.memory.unsent:
        assert time.monotonic() < deadline
        time.sleep(0.01)
