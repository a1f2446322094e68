"""Quotas of clients: the rates they get, and what becomes of requests beyond them."""

from __future__ import annotations

from typing import Any

import pytest

from brokerd.serving import held_produces, quotas
from brokerd.serving.outbox import Peer
from brokerd.serving.quotas import CLIENTS_MAX, THROTTLE_MS_MAX, WINDOW_MS, Quota
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request, decode_body, decode_response
from ingest.wire.messages import ApiKey, FetchPartition, FetchRequest, ProducePartition, ProduceRequest
from tests.brokerd.serving.test_fetch import TOPIC, Served

RATE = 1000


def quota(default: int = RATE, **own: int) -> Quota:
    made = Quota()
    made.set({"": default, **own})
    return made


def test_without_a_quota_nobody_is_throttled_or_remembered() -> None:
    free = quota(0)
    assert free.spend("a", 1 << 40, 0) == 0
    assert free.throttle_ms("a", 0) == 0
    assert (free.clients, free.bytes_total) == (0, 0)


def test_after_a_rest_a_window_may_go_at_once_and_what_is_beyond_it_is_waited_for() -> None:
    """Kafka: (observed rate - quota) / quota * window, which here is (12,000 / 10 - 1,000) / 1,000 * 10 s."""
    made = quota()
    assert made.spend("a", 10 * RATE, 50_000) == 0
    assert made.spend("a", 2 * RATE, 50_000) == 2000
    assert made.throttle_ms("a", 51_500) == 500
    assert made.throttle_ms("a", 52_000) == 0
    assert made.throttle_ms("b", 50_000) == 0, "another client"
    assert (made.throttled_total, made.throttle_ms_total, made.bytes_total) == (1, 2000, 12 * RATE)


@pytest.mark.parametrize("size", [1, 300, 5 * RATE, 100 * RATE])
def test_who_waits_as_told_gets_its_rate_whatever_its_requests_have_for_sizes(size: int) -> None:
    made = quota()
    now_ms = start_ms = 10_000
    sent = 0
    while now_ms < start_ms + 1_000_000:
        sent += size
        now_ms += made.spend("a", size, now_ms) or 1
        while (more_ms := made.throttle_ms("a", now_ms)) > 0:
            now_ms += more_ms
    gone_s = (now_ms - start_ms + WINDOW_MS) / 1000
    if size > 1:  # one byte a millisecond is the rate itself
        assert sent == pytest.approx(RATE * gone_s, abs=size)


def test_no_throttle_is_told_beyond_the_window_but_none_is_forgiven() -> None:
    made = quota()
    assert made.spend("a", 100 * RATE, 0) == THROTTLE_MS_MAX
    assert made.throttle_ms("a", WINDOW_MS) == THROTTLE_MS_MAX
    assert made.throttle_ms("a", 89_000) == 1000


def test_a_client_has_its_own_rate_or_the_default() -> None:
    made = quota(RATE, fast=5 * RATE, free=1 << 60)
    assert made.spend("slow", 20 * RATE, 0) == 10_000
    assert made.spend("fast", 60 * RATE, 0) == 2_000
    assert made.spend("free", 1 << 40, 0) == 0


def test_a_new_rate_counts_at_once_and_forgets_what_was_used_under_the_old() -> None:
    made = quota(RATE, own=RATE)
    made.spend("own", 20 * RATE, 0)
    made.spend("other", 20 * RATE, 0)
    made.set({"": RATE, "own": 2 * RATE})
    assert (made.throttle_ms("own", 0), made.throttle_ms("other", 0)) == (0, 10_000)
    made.set({})
    assert (made.throttle_ms("own", 0), made.throttle_ms("other", 0), made.clients) == (0, 0, 0)


def test_idle_clients_are_forgotten() -> None:
    made = quota()
    for number in range(100):
        made.spend(f"c{number}", 1, number)
    made.spend("last", 1, WINDOW_MS + 1000)
    assert made.clients == 1


def test_invented_ids_neither_grow_memory_nor_get_more_than_one_client() -> None:
    made = quota(RATE, mine=RATE)
    for number in range(CLIENTS_MAX + 50):
        made.spend(f"c{number}", 15 * RATE, 0)
    assert made.clients <= CLIENTS_MAX + 1
    assert made.throttle_ms("new", 0) == THROTTLE_MS_MAX, "it is counted with those before it"
    assert made.spend("x" * 60_000, 1, 0) == THROTTLE_MS_MAX, "an id too long to keep, too"
    assert made.spend("mine", 10 * RATE, 0) == 0, "a client with a rate of its own is not"


class Client:
    """A client of both rooms, under a quota of RATE."""

    def __init__(self) -> None:
        self.served = Served()
        self.served.produce.quota.set({"": RATE, "free": 1 << 60})
        self.served.fetch.quota.set({"": RATE, "free": 1 << 60})
        self.number = 0

    def produce(
        self,
        size: int,
        now_ms: int,
        *,
        client_id: str = "c",
        acks: int = 1,
        timeout_ms: int = 30_000,
        told: bool = False,
    ) -> int:
        self.number += 1
        body = ProduceRequest(acks, [ProducePartition(TOPIC, 0)], told)
        asked = Request(0, self.number, timeout_ms, body, [b"x" * size], client_id)
        self.served.produce.handle(Peer(0, b"p"), asked, now_ms, 1)
        return self.number

    def fetch(self, now_ms: int, *, wait_ms: int = 500, bytes_max: int = 1 << 20, client_id: str = "c") -> int:
        self.number += 1
        body = FetchRequest(wait_ms, 1, bytes_max, [FetchPartition(TOPIC, 0, 0, bytes_max)])
        asked = Request(1, self.number, 30_000, body, [], client_id)
        self.served.fetch.handle(Peer(0, b"p"), asked, now_ms)
        return self.number

    def answers(self, api: ApiKey = ApiKey.PRODUCE) -> dict[int, Any]:
        log = self.served.log
        log.flushed_end = log.end_offset
        self.served.move(max(log.high_watermark, log.end_offset))
        found = {}
        for answer in self.served.outbox.take():
            response = decode_response([answer.header, *answer.payload])
            found[response.correlation_id] = decode_body(response, api)
        return found


@pytest.fixture
def client() -> Client:
    return Client()


def test_a_producer_over_its_quota_is_answered_at_once_and_told_to_wait(client: Client) -> None:
    first = client.produce(12 * RATE, 0)
    assert client.served.log.end_offset == 1
    assert client.answers()[first].throttle_ms == 2000


def test_what_comes_in_spite_of_it_is_appended_in_order_when_the_throttle_is_over(client: Client) -> None:
    produce = client.served.produce
    client.produce(12 * RATE, 0)
    second, third = client.produce(RATE, 10), client.produce(RATE, 20)
    free = client.produce(50 * RATE, 30, client_id="free")
    assert free in client.answers()
    assert client.served.log.end_offset == 2
    assert produce.next_deadline_ms() == 2000
    produce.release(1999, 1)
    assert client.served.log.end_offset == 2
    produce.release(2000, 1)
    found = client.answers()
    assert (list(found), found[second].throttle_ms) == ([second], 1000)
    produce.release(3000, 1)
    assert list(client.answers()) == [third]
    assert produce.next_deadline_ms() is None or produce.next_deadline_ms() > 30_000


def test_what_waits_longer_than_its_sender_is_refused_and_was_not_appended(client: Client) -> None:
    client.produce(60 * RATE, 0)
    late = client.produce(RATE, 0, timeout_ms=5000)
    client.answers()
    assert client.served.produce.next_deadline_ms() == 5000
    client.served.produce.release(5000, 1)
    answer = client.answers()[late]
    assert answer.partitions[0].error_code == ErrorCode.THROTTLING_QUOTA_EXCEEDED
    assert ErrorCode.THROTTLING_QUOTA_EXCEEDED.definite
    assert answer.throttle_ms == THROTTLE_MS_MAX
    assert client.served.log.end_offset == 1


def test_what_is_held_is_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_produces, "BYTES_MAX", 3 * RATE)
    monkeypatch.setattr(held_produces, "TOTAL_BYTES_MAX", 5 * RATE)
    client.produce(30 * RATE, 0)
    client.produce(30 * RATE, 0, client_id="d")
    client.answers()
    mine = [client.produce(RATE, 0) for _ in range(5)]
    others = [client.produce(RATE, 0, client_id="d") for _ in range(3)]
    assert sorted(client.answers()) == [*mine[3:], others[2]]
    client.served.produce.release(60_000, 1)
    assert len(client.answers()) == 5
    assert client.served.produce.next_deadline_ms() is None


def test_a_produce_without_answer_is_counted_and_held_too(client: Client) -> None:
    client.produce(12 * RATE, 0, acks=0)
    client.produce(RATE, 0, acks=0)
    assert client.served.log.end_offset == 1
    client.served.produce.release(2000, 1)
    assert client.served.log.end_offset == 2
    assert client.answers() == {}


def test_a_gateway_hears_of_the_throttle_of_a_produce_without_answer(client: Client) -> None:
    number = client.produce(12 * RATE, 0, acks=0, told=True)
    answer = client.answers()[number]
    assert (answer.throttle_ms, answer.partitions[0].error_code) == (2000, 0)


def test_a_fetch_gets_a_second_of_its_quota_and_is_told_to_wait_once_the_window_is_used(client: Client) -> None:
    client.served.log.high_watermark = 1 << 20
    sizes, told = [], []
    for _ in range(11):
        number = client.fetch(0)
        (answer,) = client.served.outbox.take()
        sizes.append(sum(map(len, answer.payload)))
        body = decode_body(decode_response([answer.header, *answer.payload]), ApiKey.FETCH)
        told.append(body.throttle_ms)
    assert sizes == [RATE] * 11
    assert told == [0] * 10 + [1000]
    assert client.fetch(0, client_id="free") == number + 1
    (answer,) = client.served.outbox.take()
    assert sum(map(len, answer.payload)) > 100 * RATE


def test_a_fetch_in_spite_of_it_waits_and_comes_back_without_records(client: Client) -> None:
    client.served.log.high_watermark = 1 << 20
    client.served.fetch.quota.spend("c", 12 * RATE, 0)
    number = client.fetch(100)
    assert client.answers(ApiKey.FETCH) == {}
    client.served.fetch.expire(599)
    client.served.move(2 << 20)
    assert client.answers(ApiKey.FETCH) == {}
    client.served.fetch.expire(600)
    answer = client.answers(ApiKey.FETCH)[number]
    assert (answer.throttle_ms, answer.partitions[0].frame) == (1400, -1)
    assert answer.partitions[0].high_watermark == 2 << 20
    at_once = client.fetch(700, wait_ms=0)
    assert client.answers(ApiKey.FETCH)[at_once].throttle_ms == 1300


def test_a_doorbell_is_not_throttled(client: Client) -> None:
    client.served.fetch.quota.spend("c", 12 * RATE, 0)
    client.served.log.high_watermark = 5
    number = client.fetch(0, bytes_max=0)
    answer = client.answers(ApiKey.FETCH)[number]
    assert (answer.throttle_ms, answer.counted) == (0, True)


def test_the_window_is_kafkas() -> None:
    assert quotas.WINDOW_MS == (11 - 1) * 1 * 1000
