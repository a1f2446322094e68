"""Decoders of ingest/wire: whole messages from a socket, and the bodies of every api."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec

from ingest.limits import LIMITS
from ingest.wire import messages
from ingest.wire.frames import decode_body, decode_request, decode_response, encode_request, encode_response
from ingest.wire.message import Message
from ingest.wire.messages import REQUESTS, RESPONSES
from tests.fuzz.decoder import Decoder

_SIMPLE: dict[object, Any] = {int: 7, str: "sensors", bytes: b"0123456789abcdef", bool: True}


def example(kind: Any) -> Any:
    """Build a value of a message's type, every list and dict with two entries."""
    info = msgspec.inspect.type_info(kind) if not isinstance(kind, msgspec.inspect.Type) else kind
    match info:
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            return cls(*(example(one.type) for one in fields))
        case msgspec.inspect.ListType(item_type=item):
            return [example(item), example(item)]
        case msgspec.inspect.TupleType(item_types=items):
            return tuple(map(example, items))
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return {example(key): example(value)}
        case msgspec.inspect.UnionType(types=types):
            return example(types[0])
        case msgspec.inspect.IntType():
            return 7
        case msgspec.inspect.FloatType():
            return 0.5
        case msgspec.inspect.StrType():
            return "sensors"
        case msgspec.inspect.BytesType():
            return b"0123456789abcdef"
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.NoneType():
            return None
        case _:
            raise AssertionError(f"no example of {info}")


def split(data: bytes) -> list[bytes]:
    """Cut an input into frames: two bytes of length, the frame, and so on; the last takes what is left."""
    frames = []
    while data:
        size = int.from_bytes(data[:2], "little")
        frames.append(data[2 : 2 + size])
        data = data[2 + size :]
    return frames


def join(*frames: bytes) -> bytes:
    return b"".join(len(frame).to_bytes(2, "little") + frame for frame in frames)


def _requests() -> list[bytes]:
    bodies: list[Message] = [example(kind) for kind in REQUESTS.values()]
    return [join(encode_request(body, 5, 1000, "client"), b"payload") for body in bodies]


def _request_bombs() -> list[bytes]:
    """The densest bodies: arrays of the smallest items, up to the limit of a request's header."""
    size = LIMITS.request_header_bytes_max - 40
    bombs = []
    for api_key in REQUESTS:
        for item in (b"\x90", b"\x80", b"\xa0", b"\x00", b"\xc0", b"\x91"):
            for depth in (1, 2, 3):
                body = b"\x91" * (depth - 1) + b"\xdd" + size.to_bytes(4, "big") + item * size
                header = b"\x96" + msgspec.msgpack.encode(int(api_key)) + b"\x00\x01\x01" + body + b"\xa0"
                bombs.append(join(header[: 2**16 - 1]))
    return bombs


def _read_body(api_key: int, data: bytes) -> object:
    return decode_body(decode_response([data]), api_key)


def _response_bombs() -> list[bytes]:
    size = LIMITS.response_header_bytes_max - 64
    count = size.to_bytes(4, "big")
    return [
        b"\x94\x01\x00" + prefix + b"\xdd" + count + item * size + b"\xa0"
        for prefix in (b"", b"\x91", b"\x97\xa0\x01\x01")
        for item in (b"\x90", b"\x80", b"\xa0", b"\x00", b"\xc0")
    ]


def decoders() -> Iterable[Decoder]:
    """Return the decoders of messages."""
    yield Decoder("request", _requests(), lambda data: decode_request(split(data)), bombs=_request_bombs)
    for api_key, kind in RESPONSES.items():
        corpus = [encode_response(5, example(kind)), encode_response(5, None)]
        yield Decoder(
            f"response_{messages.ApiKey(api_key).name.lower()}",
            corpus[:1],
            partial(_read_body, int(api_key)),
            bombs=_response_bombs,
        )
