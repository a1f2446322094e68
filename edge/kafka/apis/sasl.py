"""SASL of a client that has logged in, or need not: nobody becomes another user on the way."""

from __future__ import annotations

from typing import Any

from edge.kafka.codec import Request
from edge.kafka.context import Context
from edge.kafka.sasl import MECHANISMS
from ingest.wire.codes import ErrorCode


async def sasl_handshake(_: Context, request: Request) -> Any:
    """Refuse."""
    return request.api.response(error_code=int(ErrorCode.ILLEGAL_SASL_STATE), mechanisms=list(MECHANISMS))


async def sasl_authenticate(_: Context, request: Request) -> Any:
    """Refuse."""
    text = "this connection has logged in, or need not"
    return request.api.response(error_code=int(ErrorCode.ILLEGAL_SASL_STATE), error_message=text, auth_bytes=b"")
