"""One record as JSON: `topic partition offset timestamp key value headers`; bytes that are no UTF-8 as base64."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec

from ingest.records.batch import Record

_encode = msgspec.json.Encoder().encode


def record_json(record: Record) -> bytes:
    """Return one line of JSON, without its end. `key_base64` stands for `key` where the key is no UTF-8, and so on."""
    fields: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
    }
    _put(fields, "key", record.key)
    _put(fields, "value", record.value)
    headers = []
    for name, value in record.headers:
        header: dict[str, Any] = {"key": name}
        _put(header, "value", value)
        headers.append(header)
    fields["headers"] = headers
    return _encode(fields)


def _put(fields: dict[str, Any], name: str, data: Any) -> None:
    if not isinstance(data, bytes | None):
        fields[name] = data  # of a topic with value.dtype
        return
    try:
        fields[name] = None if data is None else data.decode()
    except UnicodeDecodeError:
        fields[f"{name}_base64"] = b64encode(data or b"").decode()
