"""All connections together hold a bounded number of bytes."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from edge.kafka.gateway import Gateway
from edge.kafka.memory import Memory
from edge.keepalive import IDLE_S
from tests.edge.kafka.test_versions import Client, codes_in

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


def test_half_sent_requests_of_many_are_bounded(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.memory, "_bytes_max", 3 * MIB)
    clients = [Client(gateway.port) for _ in range(4)]
    for client in clients:
        client.send(struct.pack(">i", 90 * MIB) + struct.pack(">hhi", 0, 8, 1) + bytes(MIB - 12))
        time.sleep(0.1)
    assert clients[3].receive() == b"", "closed"
    assert 2 * MIB < gateway.memory.partial <= 3 * MIB
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
