"""InitProducerId: ids for idempotent producers; transactions are refused."""

from __future__ import annotations

from typing import Any

from edge.kafka.codec import Request
from edge.kafka.context import Context
from ingest.errors import ForebayError, RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import InitProducerIdRequest

TIMEOUT_MS = 5_000


async def init_producer_id(context: Context, request: Request) -> Any:
    """Give out an id, or the next epoch of one (KIP-360)."""
    body, response = request.body, request.api.response
    code, producer_id, epoch = 0, -1, -1
    if body.transactional_id is not None:
        code = int(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    else:
        known = (body.producer_id, body.producer_epoch) if request.version >= 3 else (-1, -1)
        try:
            answer = await context.brokers.ask_any(InitProducerIdRequest(*known), timeout_ms=TIMEOUT_MS)
            producer_id, epoch = answer.producer_id, answer.producer_epoch
        except RemoteError as error:
            code = error.code
        except ForebayError:
            code = int(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    return response(throttle_time_ms=0, error_code=code, producer_id=producer_id, producer_epoch=epoch)
