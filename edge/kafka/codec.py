"""Kafka's requests and responses as bytes: the one file that knows `kafka.protocol`.

A request is decoded after its frame was taken whole and its size was checked; the library reads from a view and makes
objects as it goes, so that what a count claims is not allocated before its bytes are there. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from kafka.protocol import admin, consumer, metadata, producer, sasl
from kafka.protocol.api_message import ApiMessage
from kafka.protocol.schemas.fields.codecs.types import UnsignedVarInt32
from kafka.protocol.schemas.fields.struct_array import StructArrayField

from edge.kafka.fields import Malformed, decode_varint
from edge.kafka.produce_codec import decode_produce

_HEAD = struct.Struct(">hhi")


def _emit_bounded_varint(ctx: Any, name: str, indent: int) -> None:
    """Write the code that reads an unsigned varint: of five bytes at most, where the library's own takes any number.

    A megabyte of 0xff kept it busy for half a minute. It compiles its readers when they are first used: after this.
    """
    byte, shift = ctx.next_var("b"), ctx.next_var("sh")
    for line in (
        f"{name} = 0",
        f"for {shift} in (0, 7, 14, 21, 28):",
        f"    {byte} = data[pos]",
        "    pos += 1",
        f"    {name} |= ({byte} & 0x7f) << {shift}",
        f"    if {byte} < 0x80: break",
        "else:",
        "    raise ValueError('a varint of more than five bytes')",
    ):
        ctx.emit(indent, line)


UnsignedVarInt32.emit_decode_from = staticmethod(_emit_bounded_varint)


class Api(NamedTuple):
    """What of an API is served.

    Attributes:
        advertised: The lowest version that ApiVersions names; those below `lowest` are refused by the handler.
    """

    request: type[ApiMessage]
    response: type[ApiMessage]
    lowest: int
    highest: int
    advertised: int

    @property
    def key(self) -> int:
        return int(self.request.API_KEY)

    @property
    def name(self) -> str:
        return self.request.__name__.removesuffix("Request")


def _api(home: Any, name: str, lowest: int, highest: int, advertised: int | None = None) -> Api:
    request, response = getattr(home, f"{name}Request"), getattr(home, f"{name}Response")
    assert highest <= request.max_version
    return Api(request, response, lowest, highest, lowest if advertised is None else advertised)


APIS = {
    api.key: api
    for api in (
        # Debian's librdkafka 2.0.2 compresses nothing unless Produce 0 is advertised
        _api(producer, "Produce", 3, 10, 0),
        _api(consumer, "Fetch", 4, 12),
        _api(consumer, "ListOffsets", 1, 6),  # 7 would promise MAX_TIMESTAMP (KIP-734)
        _api(metadata, "Metadata", 0, 12),
        _api(consumer, "OffsetCommit", 1, 8),
        _api(consumer, "OffsetFetch", 1, 8),
        _api(metadata, "FindCoordinator", 0, 4),
        _api(consumer, "JoinGroup", 0, 9),
        _api(consumer, "Heartbeat", 0, 4),
        _api(consumer, "LeaveGroup", 0, 5),
        _api(consumer, "SyncGroup", 0, 5),
        _api(admin, "DescribeGroups", 0, 5),
        _api(admin, "ListGroups", 0, 4),
        _api(sasl, "SaslHandshake", 0, 1),
        _api(metadata, "ApiVersions", 0, 4),
        _api(admin, "CreateTopics", 2, 7),
        _api(admin, "DeleteTopics", 1, 6),
        _api(admin, "DeleteRecords", 0, 2),
        _api(producer, "InitProducerId", 0, 4),
        _api(consumer, "OffsetForLeaderEpoch", 2, 4),
        _api(admin, "DescribeConfigs", 1, 4),
        _api(admin, "AlterConfigs", 0, 2),
        _api(admin, "DescribeLogDirs", 1, 4),
        _api(sasl, "SaslAuthenticate", 0, 2),
        _api(admin, "CreatePartitions", 0, 3),
        _api(admin, "DeleteGroups", 0, 2),
        _api(admin, "ElectLeaders", 0, 2),
        _api(admin, "IncrementalAlterConfigs", 0, 1),
        _api(admin, "AlterPartitionReassignments", 0, 0),
        _api(admin, "ListPartitionReassignments", 0, 0),
        _api(consumer, "OffsetDelete", 0, 0),
        _api(admin, "DescribeClientQuotas", 0, 1),
        _api(admin, "AlterClientQuotas", 0, 1),
        _api(admin, "DescribeCluster", 0, 1),
    )
}
PRODUCE = int(producer.ProduceRequest.API_KEY)
FETCH = int(consumer.FetchRequest.API_KEY)
API_VERSIONS = int(metadata.ApiVersionsRequest.API_KEY)
SASL_HANDSHAKE = int(sasl.SaslHandshakeRequest.API_KEY)
SASL_AUTHENTICATE = int(sasl.SaslAuthenticateRequest.API_KEY)


class Head(NamedTuple):
    """How every request begins."""

    api_key: int
    version: int
    correlation_id: int


class Request(NamedTuple):
    """A request that was read whole."""

    api: Api
    version: int
    correlation_id: int
    client_id: str
    body: Any


def decode_head(frame: memoryview) -> Head:
    """Read the first eight bytes of a request.

    Raises:
        Malformed: there are fewer.
    """
    if frame.nbytes < _HEAD.size:
        raise Malformed(f"a request of {frame.nbytes} bytes")
    return Head(*_HEAD.unpack_from(frame))


def decode_request(frame: memoryview) -> Request | Head:
    """Read a request; of one whose API or version is not served its head alone.

    Raises:
        Malformed: the bytes are no such request.
    """
    head = decode_head(frame)
    api = APIS.get(head.api_key)
    if api is None or not api.lowest <= head.version <= api.highest:
        return head
    flexible = api.request.flexible_version_q(head.version)
    client_id, position = decode_client_id(frame, flexible=flexible)
    if head.api_key == PRODUCE:
        body = decode_produce(frame[position:], head.version)
        return Request(api, head.version, head.correlation_id, client_id, body)
    try:
        body = api.request.decode(frame[position:], version=head.version)
    except Exception as error:  # whatever the library stumbles over, the bytes are to blame
        raise Malformed(f"{api.request.__name__} {head.version}: {type(error).__name__}: {error}") from None
    return Request(api, head.version, head.correlation_id, client_id, body)


def decode_client_id(frame: memoryview, *, flexible: bool) -> tuple[str, int]:
    """Return the client id, and where the body begins.

    Raises:
        Malformed: the bytes are no request header.
    """
    try:
        (size,) = struct.unpack_from(">h", frame, _HEAD.size)
        position = _HEAD.size + 2 + max(size, 0)
        if position > frame.nbytes or size < -1:
            raise Malformed(f"a client id of {size} bytes")
        client_id = bytes(frame[_HEAD.size + 2 : position]).decode()
        if flexible:
            position = _skip_tags(frame, position)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise Malformed(f"request header: {error}") from None
    return client_id, position


def _skip_tags(frame: memoryview, position: int) -> int:
    count, position = decode_varint(frame, position)
    for _ in range(count):
        _, position = decode_varint(frame, position)
        size, position = decode_varint(frame, position)
        position += size
        if position > frame.nbytes:
            raise Malformed("a tagged field beyond the end")
    return position


def encode_response(request: Request, body: ApiMessage) -> bytes:
    """Return a response with its size in front."""
    body.API_VERSION = request.version
    body.with_header(correlation_id=request.correlation_id)
    return bytes(body.encode(header=True, framed=True))


def error_codes(answer: Any) -> Iterator[int]:
    """Yield the error codes of a response and of all its parts, 0 left out. Cost: 0.5 µs a part."""
    has_code, arrays = _parts_of(type(answer))  # type: ignore[arg-type]
    if has_code and answer.error_code:
        yield answer.error_code
    for name in arrays:
        for part in getattr(answer, name) or ():
            yield from error_codes(part)


@cache
def _parts_of(kind: Any) -> tuple[bool, list[str]]:
    arrays = [name for name, field in kind.fields.items() if isinstance(field, StructArrayField)]
    return "error_code" in kind.fields, arrays


def unsupported_version(head: Head, answer: ApiMessage) -> bytes:
    """Return what is said to a client whose version of ApiVersions is unknown: version 0, with all ranges (KIP-511)."""
    return encode_response(Request(APIS[API_VERSIONS], 0, head.correlation_id, "", None), answer)
