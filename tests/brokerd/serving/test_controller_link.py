"""The broker's talk with the controller, as a core: who is told what, when, and what happens when nobody answers."""

from __future__ import annotations

import msgspec

from brokerd.control.config import ControllerConfig
from brokerd.serving.controller_link import (
    CONFIRMED_MS,
    DEPOSED_MS,
    HEARTBEAT_GRACE_MS,
    HEARTBEAT_WAIT_MS,
    REGISTRATION_TIMEOUT_MS,
    RETRY_MS,
    Complaints,
    ControllerLink,
    Effect,
    Forwarded,
    NewMetadata,
    ProducerIds,
    Reconnect,
    Registered,
    Send,
    Unanswered,
)
from brokerd.serving.outbox import Peer
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request, Response, decode_request, decode_response, encode_response
from ingest.wire.message import Message
from ingest.wire.messages import (
    AllocateProducerIdsResponse,
    ApiKey,
    BrokerHeartbeatResponse,
    BrokerMetadata,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    CreateTopicsRequest,
    DamagedReplica,
    LeaderlessEnd,
    MetadataResponse,
    NewTopic,
)

COMPLAINTS = Complaints([LeaderlessEnd(b"t" * 16, 0, 3, 2, 9)], [DamagedReplica(b"t" * 16, 1, 4)], True)
BROKER = BrokerMetadata(1, -1, ["ipc:///x"], "m", "/d", "/p", 7)


def make_link() -> ControllerLink:
    return ControllerLink(1, lambda: BrokerRegistrationRequest(BROKER, "c", []))


def sent(effects: list[Effect]) -> list[Request]:
    return [decode_request([effect.header]) for effect in effects if isinstance(effect, Send)]


def answer(request: Request, body: Message | None, code: ErrorCode = ErrorCode.NONE) -> Response:
    return decode_response([encode_response(request.correlation_id, body, code)])


def registered_link() -> tuple[ControllerLink, Request]:
    link = make_link()
    (registration,) = sent(link.tick(0))
    effects = link.on_response(answer(registration, BrokerRegistrationResponse(4, 10, 1)), 1)
    assert effects[0] == Registered(4, 10)
    (heartbeat,) = sent(effects)
    return link, heartbeat


def metadata(version: int) -> BrokerHeartbeatResponse:
    return BrokerHeartbeatResponse(version, 1, MetadataResponse("c", version, 1, [], []))


def test_the_first_thing_said_is_the_registration_and_then_a_heartbeat_that_knows_nothing() -> None:
    link, heartbeat = registered_link()
    assert heartbeat.api_key == ApiKey.BROKER_HEARTBEAT
    assert (heartbeat.body.broker_epoch, heartbeat.body.applied_version) == (4, -1)
    assert link.registered


def test_an_unanswered_registration_is_said_again_on_a_new_connection() -> None:
    link = make_link()
    link.tick(0)
    assert link.tick(REGISTRATION_TIMEOUT_MS - 1) == []
    effects = link.tick(REGISTRATION_TIMEOUT_MS)
    assert effects[0] == Reconnect()
    assert sent(effects)[0].api_key == ApiKey.BROKER_REGISTRATION


def test_the_next_heartbeat_waits_until_new_metadata_is_applied() -> None:
    link, heartbeat = registered_link()
    effects = link.on_response(answer(heartbeat, metadata(10)), 5)
    assert [type(effect) for effect in effects] == [NewMetadata]
    assert link.tick(6) == []
    (following,) = sent(link.applied(10, 7))
    assert following.body.applied_version == 10


def test_a_long_application_does_not_silence_the_broker() -> None:
    link, heartbeat = registered_link()
    link.on_response(answer(heartbeat, metadata(10)), 5)
    (following,) = sent(link.tick(5 + HEARTBEAT_WAIT_MS))
    assert following.body.applied_version == -1


def test_the_same_version_again_is_no_news() -> None:
    link, heartbeat = registered_link()
    link.on_response(answer(heartbeat, metadata(10)), 5)
    (following,) = sent(link.applied(10, 6))
    assert [type(e) for e in link.on_response(answer(following, metadata(10)), 7)] == [Send]


def test_an_answer_without_metadata_confirms_and_is_no_news_to_one_that_registered_anew_either() -> None:
    link, heartbeat = registered_link()
    link.on_response(answer(heartbeat, metadata(10)), 5)
    (parked,) = sent(link.applied(10, 6))
    (ids,) = sent(link.want_producer_ids(7))
    (registration,) = sent(link.on_response(answer(ids, None, ErrorCode.STALE_BROKER_EPOCH), 8) + link.tick(1000))
    link.on_response(answer(registration, BrokerRegistrationResponse(5, 11, 1)), 1001)
    effects = link.on_response(answer(parked, BrokerHeartbeatResponse(10, 1)), 1002)
    assert [type(effect) for effect in effects] == [Send]
    assert link.received_version == -1
    assert sent(effects)[0].body.applied_version == -1, "it asks for everything"


def test_a_stale_epoch_makes_it_register_anew() -> None:
    link, heartbeat = registered_link()
    link.on_response(answer(heartbeat, None, ErrorCode.STALE_BROKER_EPOCH), 5)
    assert not link.registered
    (registration,) = sent(link.tick(1000))
    assert registration.api_key == ApiKey.BROKER_REGISTRATION


def test_a_silent_controller_means_a_new_connection_and_the_same_epoch() -> None:
    link, _ = registered_link()
    effects = link.tick(1 + HEARTBEAT_WAIT_MS + HEARTBEAT_GRACE_MS)
    assert effects[0] == Reconnect()
    (heartbeat,) = sent(effects)
    assert heartbeat.body.broker_epoch == 4


def test_what_is_forwarded_comes_back_under_the_callers_number_or_is_given_up() -> None:
    link, _ = registered_link()
    peer = Peer(0, b"id")
    body = CreateTopicsRequest([NewTopic("t")])
    (first,) = sent(link.forward(peer, 77, body, 10, 500))
    (second,) = sent(link.forward(peer, 78, body, 10, 500))
    response = answer(first, None, ErrorCode.POLICY_VIOLATION)
    assert link.on_response(response, 20) == [Forwarded(peer, 77, response)]
    assert Unanswered(peer, 78) in link.tick(510)
    assert link.on_response(answer(second, None), 600) == []


def test_the_controller_is_taken_to_know_this_broker_for_a_session_after_what_it_answered_was_sent() -> None:
    link, heartbeat = registered_link()  # at 1
    assert link.confirmed_until_ms == CONFIRMED_MS
    link.on_response(answer(heartbeat, metadata(10)), 900)
    assert link.confirmed_until_ms == 1 + CONFIRMED_MS
    link.on_response(answer(heartbeat, metadata(10)), 2000)
    assert link.confirmed_until_ms == 1 + CONFIRMED_MS, "an answer to nothing confirms nothing"
    assert ControllerConfig(directory="", cluster_id="", endpoint="").session_timeout_ms == CONFIRMED_MS


def test_a_guide_sends_the_broker_where_the_controller_is_and_all_is_asked_there() -> None:
    link, heartbeat = registered_link()
    peer = Peer(0, b"id")
    (forwarded,) = sent(link.forward(peer, 77, CreateTopicsRequest([NewTopic("t")]), 10, 500))
    guided = decode_response(
        [encode_response(heartbeat.correlation_id, None, ErrorCode.NOT_CONTROLLER, "tcp://b:9191")]
    )
    effects = link.on_response(guided, 20)
    assert effects[0] == Reconnect("tcp://b:9191")
    assert Unanswered(peer, 77) in effects, "whether it was done is unknown: the guide did nothing, another might have"
    (again,) = sent(effects)
    assert again.body.broker_epoch == 4, "it is registered with the cluster, not with a machine"
    assert link.on_response(answer(forwarded, None), 30) == []


def test_a_guide_who_knows_no_controller_is_asked_again_soon() -> None:
    link, heartbeat = registered_link()
    response = answer(heartbeat, None, ErrorCode.NOT_CONTROLLER)
    assert link.on_response(response, 20) == []
    assert link.tick(21) == []
    assert link.next_deadline_ms() <= 20 + RETRY_MS
    (again,) = sent(link.tick(20 + RETRY_MS))
    assert again.body.broker_epoch == 4


def test_producer_ids_are_asked_for_once_at_a_time() -> None:
    link, _ = registered_link()
    (request,) = sent(link.want_producer_ids(5))
    assert link.want_producer_ids(6) == []
    assert link.on_response(answer(request, AllocateProducerIdsResponse(1000, 1000)), 7) == [ProducerIds(1000, 1000)]


def test_an_answer_that_can_not_be_read_is_asked_for_again() -> None:
    link, heartbeat = registered_link()
    response = Response(heartbeat.correlation_id, 0, "", msgspec.Raw(b"\xc3"), [])
    assert link.on_response(response, 5) == []
    assert [type(effect) for effect in link.tick(1000)] == [Send]


def test_what_is_not_as_it_should_be_goes_with_each_heartbeat_and_with_one_of_its_own() -> None:
    complaints = Complaints()
    link = ControllerLink(1, lambda: BrokerRegistrationRequest(BROKER, "c", []), lambda: complaints)
    assert link.report(0) == [], "nobody listens yet"
    (registration,) = sent(link.tick(0))
    (waiting,) = sent(link.on_response(answer(registration, BrokerRegistrationResponse(4, 10, 1)), 1))
    complaints = COMPLAINTS
    (now,) = sent(link.report(2))
    for beat, said in ((waiting.body, Complaints()), (now.body, COMPLAINTS)):
        assert Complaints(beat.leaderless, beat.damaged, beat.disk_full) == said
    assert sent(link.on_response(answer(waiting, metadata(10)), 3)) == [], "one waits already"
    assert sent(link.on_response(answer(now, metadata(10)), 4)) == [], "what has come is not in force"
    (behind,) = sent(link.tick(4 + HEARTBEAT_WAIT_MS))
    assert behind.body.leaderless == [], "those are of the version in force"
    assert behind.body.damaged == COMPLAINTS.damaged


def test_a_lower_controller_epoch_is_a_deposed_one_until_it_is_all_that_is_heard_for_long() -> None:
    link, heartbeat = registered_link()
    link.on_response(answer(heartbeat, BrokerHeartbeatResponse(20, 7, metadata(20).metadata)), 5)
    (heartbeat,) = sent(link.applied(20, 6))
    (registration,) = sent(link.on_response(answer(heartbeat, None, ErrorCode.STALE_BROKER_EPOCH), 7) + link.tick(1000))
    now_ms, began_ms = 1000, 1000
    while now_ms < began_ms + DEPOSED_MS:
        effects = link.on_response(answer(registration, BrokerRegistrationResponse(4, 12, 6)), now_ms)
        assert effects == [Reconnect()], "and it is not asked without a pause"
        assert not link.registered
        now_ms += RETRY_MS
        (registration,) = sent(link.tick(now_ms))
    effects = link.on_response(answer(registration, BrokerRegistrationResponse(4, 12, 6)), now_ms)
    assert effects[0] == Registered(4, 12)
    (heartbeat,) = sent(effects)
    older = BrokerHeartbeatResponse(12, 6, metadata(12).metadata)
    assert isinstance(link.on_response(answer(heartbeat, older), now_ms)[0], NewMetadata)


def test_one_answer_of_the_controller_makes_the_deposed_one_wait_anew() -> None:
    link, heartbeat = registered_link()
    (heartbeat,) = sent(link.on_response(answer(heartbeat, BrokerHeartbeatResponse(10, 7)), 5))
    assert link.on_response(answer(heartbeat, BrokerHeartbeatResponse(10, 6)), 10) == [Reconnect()]
    (heartbeat,) = sent(link.tick(10 + RETRY_MS))
    (heartbeat,) = sent(link.on_response(answer(heartbeat, BrokerHeartbeatResponse(10, 7)), 100))
    assert link.on_response(answer(heartbeat, BrokerHeartbeatResponse(10, 6)), 10 + DEPOSED_MS) == [Reconnect()]
