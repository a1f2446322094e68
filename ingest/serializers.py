"""Values to bytes and back, by name or by a callable of one's own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgpack
import msgspec

from ingest.errors import ConfigError

Serializer = Callable[[Any], bytes]
Deserializer = Callable[[bytes], Any]

_INT64 = struct.Struct(">q")  # big-endian, as Kafka's LongSerializer and DoubleSerializer
_DOUBLE = struct.Struct(">d")
_json_encode = msgspec.json.Encoder().encode
_json_decode = msgspec.json.Decoder().decode

_SERIALIZERS: dict[str, Serializer | None] = {
    "bytes": None,
    "string": lambda text: text.encode(),
    "int64": _INT64.pack,
    "double": _DOUBLE.pack,
    "json": _json_encode,
    "msgpack": lambda value: msgpack.packb(value),
}
_DESERIALIZERS: dict[str, Deserializer | None] = {
    "bytes": None,
    "string": lambda data: data.decode(),
    "int64": lambda data: _INT64.unpack(data)[0],
    "double": lambda data: _DOUBLE.unpack(data)[0],
    "json": _json_decode,
    "msgpack": lambda data: msgpack.unpackb(data),
}


def serializer(name: str | Serializer | None) -> Serializer | None:
    """Return the serializer of a name, or the callable itself; None passes bytes through.

    Raises:
        ConfigError: no such name.
    """
    found: Serializer | None = _find(name, _SERIALIZERS)
    return found


def deserializer(name: str | Deserializer | None) -> Deserializer | None:
    """Return the deserializer of a name, or the callable itself; None passes bytes through.

    Raises:
        ConfigError: no such name.
    """
    found: Deserializer | None = _find(name, _DESERIALIZERS)
    return found


def _find(name: Any, table: dict[str, Any]) -> Any:
    if name is None or callable(name):
        return name
    if name not in table:
        raise ConfigError(f"serializer {name!r} is none of {', '.join(table)}, and no callable")
    return table[name]
