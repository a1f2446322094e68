"""A member's metadata are Kafka's bytes, and any other bytes are refused without harm."""

from __future__ import annotations

import struct

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from ingest.client.groups.consumer_protocol import (
    Assignment,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from ingest.client.positions import TopicPartition
from ingest.errors import ProtocolError
from ingest.limits import LIMITS

PARTITIONS = (TopicPartition("a", 0), TopicPartition("a", 2), TopicPartition("b", 1))
SUBSCRIPTION = Subscription(("a", "b"), PARTITIONS, 7, "rack-1", b"u")
ASSIGNMENT = Assignment(PARTITIONS, b"u")

# written by ConsumerProtocol of kafka-clients 3.9.1
TOPICS = "00000002 000161 000162 00000001 75"
OWNED = "00000002 000161 00000002 00000000 00000002 000162 00000001 00000001"
GENERATION = "00000007"
RACK = "0006 7261636b2d31"
BARE = "0003 00000001 000174 ffffffff 00000000 ffffffff ffff"
SUBSCRIPTIONS_OF_KAFKA = {
    "0000" + TOPICS: Subscription(("a", "b"), user_data=b"u"),
    "0001" + TOPICS + OWNED: Subscription(("a", "b"), PARTITIONS, user_data=b"u"),
    "0002" + TOPICS + OWNED + GENERATION: Subscription(("a", "b"), PARTITIONS, 7, user_data=b"u"),
    "0003" + TOPICS + OWNED + GENERATION + RACK: SUBSCRIPTION,
    BARE: Subscription(("t",)),
}

names = st.text(max_size=20)
numbers = st.integers(0, 2**31 - 1)
partitions = st.lists(st.builds(TopicPartition, names, numbers), max_size=12).map(lambda made: tuple(sorted(made)))
user_data = st.none() | st.binary(max_size=40)
subscriptions = st.builds(
    Subscription,
    st.lists(names, max_size=8).map(lambda made: tuple(sorted(made))),
    partitions,
    st.integers(-1, 2**31 - 1),
    st.none() | st.text(min_size=1, max_size=20),
    user_data,
)
assignments = st.builds(Assignment, partitions, user_data)


@pytest.mark.parametrize(("raw", "expected"), SUBSCRIPTIONS_OF_KAFKA.items(), ids=lambda value: str(value)[:12])
def test_what_kafkas_java_client_writes_is_read_in_every_version(raw: str, expected: Subscription) -> None:
    assert decode_subscription(bytes.fromhex(raw)) == expected


@pytest.mark.parametrize("version", range(4))
def test_the_assignment_of_kafkas_java_client_is_read_in_every_version(version: int) -> None:
    assert decode_assignment(bytes.fromhex(f"{version:04x}" + OWNED + "00000001 75")) == ASSIGNMENT
    assert decode_assignment(bytes.fromhex(f"{version:04x} 00000000 ffffffff")) == Assignment(())


def test_what_is_written_is_what_kafkas_java_client_writes() -> None:
    assert encode_subscription(SUBSCRIPTION) == bytes.fromhex("0003" + TOPICS + OWNED + GENERATION + RACK)
    assert encode_subscription(Subscription(("t",))) == bytes.fromhex(BARE)
    assert encode_assignment(ASSIGNMENT) == bytes.fromhex("0003" + OWNED + "00000001 75")
    assert encode_assignment(Assignment(())) == bytes.fromhex("0003 00000000 ffffffff")


def test_topics_and_partitions_are_written_in_order() -> None:
    shuffled = Subscription(("b", "a"), PARTITIONS[::-1], 7, "rack-1", b"u")
    assert encode_subscription(shuffled) == encode_subscription(SUBSCRIPTION)


@given(subscriptions)
def test_a_subscription_is_read_as_it_was_written(subscription: Subscription) -> None:
    assert decode_subscription(encode_subscription(subscription)) == subscription


@given(assignments)
def test_an_assignment_is_read_as_it_was_written(assignment: Assignment) -> None:
    assert decode_assignment(encode_assignment(assignment)) == assignment


@given(subscriptions)
def test_a_member_that_knows_version_0_alone_reads_ours(subscription: Subscription) -> None:
    read = ConsumerProtocolMemberMetadata.decode(encode_subscription(subscription))
    assert (tuple(read.subscription), read.user_data) == (subscription.topics, subscription.user_data)


@given(subscriptions)
def test_a_member_of_version_0_is_read(subscription: Subscription) -> None:
    raw = ConsumerProtocolMemberMetadata(0, list(subscription.topics), subscription.user_data).encode()
    assert decode_subscription(raw) == Subscription(subscription.topics, user_data=subscription.user_data)


@given(assignments)
def test_an_assignment_goes_to_and_comes_from_a_member_of_version_0(assignment: Assignment) -> None:
    read = ConsumerProtocolMemberAssignment.decode(encode_assignment(assignment))
    assert (tuple(sorted(read.partitions())), read.user_data) == (assignment.partitions, assignment.user_data)
    assert decode_assignment(read.encode()) == assignment


@given(subscriptions, assignments, st.integers(4, 2**15 - 1), st.binary(max_size=20))
def test_a_later_version_is_read_as_far_as_it_is_known(
    subscription: Subscription, assignment: Assignment, version: int, more: bytes
) -> None:
    later = struct.pack(">h", version)
    assert decode_subscription(later + encode_subscription(subscription)[2:] + more) == subscription
    assert decode_assignment(later + encode_assignment(assignment)[2:] + more) == assignment


@pytest.mark.parametrize("version", [1, 2, 3])
def test_fields_that_the_version_promises_and_the_bytes_lack_have_their_defaults(version: int) -> None:
    assert decode_subscription(bytes.fromhex(f"{version:04x}" + TOPICS)) == Subscription(("a", "b"), user_data=b"u")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("", "2 bytes are announced"),
        ("ffff" + TOPICS, "version -1"),
        ("0003 ffffffff", "array of -1"),
        ("0003 7fffffff 000161", "array of 2147483647"),
        ("0003 00000002 000161 00", "2 bytes"),
        ("0003 00000001 ffff", "null"),
        ("0003 00000001 7fff 61", "32767 bytes"),
        ("0003 00000001 0001 ff", "no UTF-8"),
        ("0003 00000000 7fffffff", "2147483647 bytes"),
        ("0003 00000000 ffffffff 00000001 000161", "array of 1"),
        ("0003 00000000 ffffffff 00000001 000161 00000002 00000000", "array of 2"),
        ("0003 00000000 ffffffff 00000001 000161 00000001 ffffffff", "partition -1"),
        ("0003 00000000 ffffffff 00000000 0000", "4 bytes"),
        ("0003 00000000 ffffffff 00000000 00000007 0005 61", "5 bytes"),
    ],
)
def test_what_can_not_be_is_refused_with_a_reason(raw: str, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        decode_subscription(bytes.fromhex(raw))


def test_more_bytes_than_any_member_needs_are_refused_unread() -> None:
    too_many = encode_assignment(ASSIGNMENT) + bytes(LIMITS.member_metadata_bytes_max)
    for decode in (decode_subscription, decode_assignment):
        with pytest.raises(ProtocolError, match=str(LIMITS.member_metadata_bytes_max)):
            decode(too_many)


@given(st.binary(max_size=80) | st.builds(bytes.__add__, st.just(b"\0\3"), st.binary(max_size=80)))
def test_any_bytes_are_a_value_or_a_protocol_error(raw: bytes) -> None:
    for decode in (decode_subscription, decode_assignment):
        try:
            decode(raw)
        except ProtocolError:
            pass


@given(subscriptions, assignments, st.data())
def test_bytes_that_were_cut_off_are_a_value_or_a_protocol_error(
    subscription: Subscription, assignment: Assignment, data: st.DataObject
) -> None:
    whole = encode_assignment(assignment)
    with pytest.raises(ProtocolError):
        decode_assignment(whole[: data.draw(st.integers(0, len(whole) - 1))])
    whole = encode_subscription(subscription)
    try:
        read = decode_subscription(whole[: data.draw(st.integers(0, len(whole)))])
    except ProtocolError:
        return
    assert (read.topics, read.user_data) == (subscription.topics, subscription.user_data)
