"""Peers that send nonsense, too much, or stop reading: they are told or dropped, and nobody else notices."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import zmq

from ingest import Admin, Producer
from ingest.limits import LIMITS
from ingest.records.batch import encode_batch
from ingest.records.header import HEADER_SIZE, encode_producer_half
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Response, decode_body, decode_response, encode_request
from ingest.wire.messages import (
    ApiKey,
    BrokerHeartbeatRequest,
    FetchPartition,
    FetchRequest,
    ProducePartition,
    ProduceRequest,
)
from tests.cluster import Cluster
from tests.processes import Processes

RATES_MAX = 30


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    processes = Processes()
    running = Cluster(processes, Path(tmp_path_factory.mktemp("hostile")), unsent_bytes_max=64 << 20)
    try:
        running.start()
        with Admin(running.bootstrap) as admin:
            admin.create_topic("t", 1)
        yield running
    finally:
        processes.end()
        running.close()


@pytest.fixture
def dealer(cluster: Cluster) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.connect(cluster.endpoint(1))
    yield socket
    socket.close()
    context.term()


def ask(dealer: zmq.Socket[bytes], frames: list[bytes]) -> Response:
    dealer.send_multipart(frames)
    assert dealer.poll(5000), "no answer"
    return decode_response(dealer.recv_multipart())


def topic_id(cluster: Cluster) -> bytes:
    with Admin(cluster.bootstrap) as admin:
        return admin.describe_topic("t").topic_id


def still_serves(cluster: Cluster) -> None:
    with Producer(cluster.bootstrap) as producer:
        producer.send("t", b"still here").result(10)


def header(api_key: int, version: int, body: Any) -> bytes:
    return msgspec.msgpack.encode([api_key, version, 1, 1000, body])


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\x80" * 60_000],
        [b"\x91" * 60_000],
        [os.urandom(1000)],
        [b"\xc1"],
        [msgspec.msgpack.encode({"api": 1})],
        [b"x" * (LIMITS.request_header_bytes_max + 1)],
        [header(3, 0, [])] + [b""] * 17,
        [header(3, 0, []) + b"trailing"],
    ],
    ids=["empty", "maps", "deep", "random", "reserved", "map", "long", "frames", "trailing"],
)
def test_what_has_no_readable_header_is_dropped(
    cluster: Cluster, dealer: zmq.Socket[bytes], frames: list[bytes]
) -> None:
    dealer.send_multipart(frames)
    assert ask(dealer, [header(18, 0, [])]).error_code == 0
    still_serves(cluster)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (header(9999, 0, []), ErrorCode.UNSUPPORTED_VERSION),
        (header(3, 99, []), ErrorCode.UNSUPPORTED_VERSION),
        (header(0, 0, ["all", []]), ErrorCode.INVALID_REQUEST),
        (header(1, 0, [1, 1]), ErrorCode.INVALID_REQUEST),
        (encode_request(BrokerHeartbeatRequest(1, 1, 1, 1), 1, 1000), ErrorCode.CLUSTER_AUTHORIZATION_FAILED),
        (encode_request(ProduceRequest(-1, []), 1, 1000), ErrorCode.INVALID_REQUEST),
        (encode_request(FetchRequest(-5, 1, 1, []), 1, 1000), ErrorCode.INVALID_REQUEST),
    ],
    ids=["api", "version", "types", "short", "not-for-clients", "no-batch", "negative"],
)
def test_a_request_that_can_not_be_served_is_told_why(dealer: zmq.Socket[bytes], frame: bytes, code: ErrorCode) -> None:
    response = ask(dealer, [frame])
    assert (response.correlation_id, response.error_code) == (1, code)
    assert response.message


def produce(cluster: Cluster, dealer: zmq.Socket[bytes], batch: bytes, acks: int = -1) -> int:
    body = ProduceRequest(acks, [ProducePartition(topic_id(cluster), 0)])
    response = ask(dealer, [encode_request(body, 1, 1000), batch])
    if response.error_code:
        return response.error_code
    code: int = decode_body(response, ApiKey.PRODUCE).partitions[0].error_code
    return code


def test_bad_batches_are_refused_with_kafkas_codes(cluster: Cluster, dealer: zmq.Socket[bytes]) -> None:
    good = encode_batch([1], None, [b"v"])
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    newer = good[:3] + b"\x02" + good[4:]
    big = encode_batch([1], None, [bytes(3_000_000)])
    no_record = encode_producer_half(
        b"", attributes=0x100, base_timestamp_ms=0, max_timestamp_ms=0, record_count=0, last_offset_delta=0,
        uncompressed_size=0,
    )  # fmt: skip
    assert produce(cluster, dealer, good, acks=7) == ErrorCode.INVALID_REQUIRED_ACKS
    assert produce(cluster, dealer, flipped) == ErrorCode.CORRUPT_MESSAGE
    assert produce(cluster, dealer, good[: HEADER_SIZE - 1]) == ErrorCode.CORRUPT_MESSAGE
    assert produce(cluster, dealer, good + good) in (ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE)
    assert produce(cluster, dealer, newer) == ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT
    assert produce(cluster, dealer, big) == ErrorCode.MESSAGE_TOO_LARGE
    assert produce(cluster, dealer, no_record) in (ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE)
    assert produce(cluster, dealer, b"") == ErrorCode.CORRUPT_MESSAGE
    for producer_id in (2**63 - 1, LIMITS.producer_id_max + 1):
        made_up = encode_batch([1], None, [b"v"], producer_id=producer_id, producer_epoch=0, base_sequence=0)
        assert produce(cluster, dealer, made_up) == ErrorCode.INVALID_RECORD
    assert produce(cluster, dealer, good) == 0


def test_every_request_of_a_peer_that_reads_later_is_answered(cluster: Cluster, dealer: zmq.Socket[bytes]) -> None:
    """ZeroMQ keeps some tens of answers for it; the broker keeps the others."""
    dealer.set(zmq.SNDHWM, 2000)
    dealer.set(zmq.RCVHWM, 10)
    body = ProduceRequest(-1, [ProducePartition(topic_id(cluster), 0)])
    batch = encode_batch([1], None, [b"v"])
    for number in range(900):
        dealer.send_multipart([encode_request(body, number, 30_000), batch])
    time.sleep(1)
    answered = set()
    while len(answered) < 900 and dealer.poll(10_000):
        answered.add(decode_response(dealer.recv_multipart()).correlation_id)
    assert answered == set(range(900))


def test_an_oversize_frame_ends_that_connection_alone(cluster: Cluster, dealer: zmq.Socket[bytes]) -> None:
    dealer.send_multipart([header(3, 0, []), bytes(LIMITS.request_bytes_max + 1)])
    still_serves(cluster)


def test_a_peer_that_stops_reading_costs_bounded_memory_and_nobody_elses_speed(cluster: Cluster) -> None:
    with Producer(cluster.bootstrap) as producer:
        for _ in range(40):
            producer.send("t", os.urandom(900_000))
        producer.flush(30)
        broker = psutil.Process(cluster.children["broker-1"].pid)
        before = broker.memory_info().rss

        def rate() -> float:
            start = time.perf_counter()
            for _ in range(30):
                producer.send("t", b"x").result(10)
            return 30 / (time.perf_counter() - start)

        undisturbed = rate()
        body = FetchRequest(0, 1, 1 << 30, [FetchPartition(topic_id(cluster), 0, 0, 1 << 30)])
        context = zmq.Context()
        try:
            greedy = []
            for _ in range(10):
                socket = context.socket(zmq.DEALER)
                socket.set(zmq.LINGER, 0)
                socket.set(zmq.RCVHWM, 1)
                socket.connect(cluster.endpoint(1))
                for number in range(30):
                    socket.send(encode_request(body, number, 1000))
                greedy.append(socket)
            disturbed = 0.0
            for _ in range(RATES_MAX):  # what else the machine does comes and goes; what greed costs would stay
                disturbed = max(disturbed, rate())
                if disturbed >= 0.5 * undisturbed:
                    break
            grown = broker.memory_info().rss - before
            for socket in greedy:
                socket.close()
        finally:
            context.term()
        assert grown < 200 << 20, f"{grown >> 20} MiB for peers that do not read"
        assert disturbed >= 0.5 * undisturbed, f"{disturbed:.0f}/s beside greedy peers, {undisturbed:.0f}/s without"


def test_a_thousand_idle_peers_cost_little(cluster: Cluster) -> None:
    broker = psutil.Process(cluster.children["broker-1"].pid)
    before = broker.memory_info().rss
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 2000)
    try:
        sockets = []
        for _ in range(1000):
            socket = context.socket(zmq.DEALER)
            socket.set(zmq.LINGER, 0)
            socket.connect(cluster.endpoint(1))
            socket.send(header(18, 0, []))
            sockets.append(socket)
        for socket in sockets:
            assert socket.poll(10_000)
        still_serves(cluster)
        assert broker.memory_info().rss - before < 64 << 20
        for socket in sockets:
            socket.close()
    finally:
        context.term()
