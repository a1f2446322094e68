"""Messages to frames and back: the one place where msgpack meets bytes from a socket, limits checked first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ingest.errors import ProtocolError, RemoteError
from ingest.limits import LIMITS, Limits
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.message import Message
from ingest.wire.messages import (
    REQUESTS,
    RESPONSES,
    VERSION_MAX,
    VERSION_MIN,
    ApiKey,
    RequestHeader,
    ResponseHeader,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

_encode = msgspec.msgpack.Encoder().encode
_decode_request_header = msgspec.msgpack.Decoder(RequestHeader).decode
_decode_response_header = msgspec.msgpack.Decoder(ResponseHeader).decode
_decode_request_body = {int(k): msgspec.msgpack.Decoder(t).decode for k, t in REQUESTS.items()}
_decode_response_body = {int(k): msgspec.msgpack.Decoder(t).decode for k, t in RESPONSES.items()}
_API_OF_REQUEST: dict[type, int] = {t: int(k) for k, t in REQUESTS.items()}
_NIL = msgspec.Raw(b"\xc0")


class Request(NamedTuple):
    """A decoded request; `payload` are the frames after the header, not copied."""

    api_key: int
    correlation_id: int
    timeout_ms: int
    body: Any
    payload: Sequence[Buffer]
    client_id: str


class Response(NamedTuple):
    """A response whose body waits to be decoded by `decode_body`, for only its request knows the api."""

    correlation_id: int
    error_code: int
    message: str
    body: msgspec.Raw
    payload: Sequence[Buffer]


class BadRequest(ProtocolError):
    """A request that can be answered with a code, since its correlation id could be read."""

    def __init__(self, message: str, *, correlation_id: int, code: ErrorCode) -> None:
        super().__init__(message)
        self.correlation_id = correlation_id
        self.code = code


def api_key_of(body: Message) -> int:
    """Return the api a request body belongs to."""
    return _API_OF_REQUEST[type(body)]


def encode_request(body: Message, correlation_id: int, timeout_ms: int, client_id: str = "") -> bytes:
    """Return the header frame of a request."""
    api_key = _API_OF_REQUEST[type(body)]
    return _encode(
        RequestHeader(api_key, VERSION_MAX, correlation_id, timeout_ms, msgspec.Raw(_encode(body)), client_id)
    )


def encode_response(
    correlation_id: int, body: Message | None, code: ErrorCode = ErrorCode.NONE, message: str = ""
) -> bytes:
    """Return the header frame of a response."""
    raw = _NIL if body is None else msgspec.Raw(_encode(body))
    return _encode(ResponseHeader(correlation_id, int(code), raw, message))


def encode_raw_response(correlation_id: int, response: Response) -> bytes:
    """Return the header frame that passes `response` on under another correlation id."""
    return _encode(ResponseHeader(correlation_id, response.error_code, response.body, response.message))


def check_frames(frames: Sequence[Buffer], *, header_bytes_max: int, bytes_max: int, frames_max: int) -> None:
    """Refuse what is too large before anything decodes it; ZeroMQ's own limit is per frame only.

    Raises:
        ProtocolError: naming the size and the limit.
    """
    if not frames:
        raise ProtocolError("message without frames")
    header_size = memoryview(frames[0]).nbytes
    if header_size > header_bytes_max:
        raise ProtocolError(f"header frame of {header_size} bytes > {header_bytes_max}")
    if len(frames) - 1 > frames_max:
        raise ProtocolError(f"{len(frames) - 1} payload frames > {frames_max}")
    total = sum(memoryview(frame).nbytes for frame in frames)
    if total > bytes_max:
        raise ProtocolError(f"message of {total} bytes > {bytes_max}")


def decode_request(frames: Sequence[Buffer], limits: Limits = LIMITS) -> Request:
    """Decode a request.

    Raises:
        BadRequest: the header could be read, so the sender can be answered with a code.
        ProtocolError: nothing to answer to: drop it and count it.
    """
    check_frames(
        frames,
        header_bytes_max=limits.request_header_bytes_max,
        bytes_max=limits.request_bytes_max,
        frames_max=limits.payload_frames_max,
    )
    try:
        header = _decode_request_header(frames[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"bad header: {error}") from None
    if header.api_key not in _decode_request_body:
        raise BadRequest(
            f"unknown api key {header.api_key}",
            correlation_id=header.correlation_id,
            code=ErrorCode.UNSUPPORTED_VERSION,
        )
    if not VERSION_MIN <= header.version <= VERSION_MAX:
        raise BadRequest(
            f"{ApiKey(header.api_key).name} version {header.version} is not {VERSION_MIN}..{VERSION_MAX}",
            correlation_id=header.correlation_id,
            code=ErrorCode.UNSUPPORTED_VERSION,
        )
    try:
        body = _decode_request_body[header.api_key](header.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            f"bad {ApiKey(header.api_key).name} body: {error}",
            correlation_id=header.correlation_id,
            code=ErrorCode.INVALID_REQUEST,
        ) from None
    timeout_ms = min(max(0, header.timeout_ms), limits.request_timeout_ms_max)
    return Request(header.api_key, header.correlation_id, timeout_ms, body, frames[1:], header.client_id)


def decode_response(frames: Sequence[Buffer], limits: Limits = LIMITS) -> Response:
    """Decode the header frame of a response.

    Raises:
        ProtocolError: too large or malformed.
    """
    check_frames(
        frames,
        header_bytes_max=limits.response_header_bytes_max,
        bytes_max=limits.response_bytes_max,
        frames_max=limits.payload_frames_max,
    )
    try:
        header = _decode_response_header(frames[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"bad header: {error}") from None
    return Response(header.correlation_id, header.error_code, header.message, header.body, frames[1:])


def decode_body(response: Response, api_key: int) -> Any:
    """Decode the body of a response to a request of `api_key`.

    Raises:
        RemoteError: the response carries a code.
        ProtocolError: malformed.
    """
    if response.error_code != ErrorCode.NONE:
        raise remote_error(response)
    try:
        return _decode_response_body[api_key](response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"bad {ApiKey(api_key).name} response: {error}") from None


def remote_error(response: Response) -> RemoteError:
    """Return the exception for the code a response carries."""
    return error_from_code(response.error_code, response.message)
