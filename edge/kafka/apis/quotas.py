"""Quotas of client ids: described and altered. Users have none here. Source: KIP-546."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge.kafka.codec import Request
from edge.kafka.context import Context
from ingest.errors import ForebayError, RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    AlterClientQuota,
    AlterClientQuotasRequest,
    AlterConfig,
    ClientQuota,
    DescribeClientQuotasRequest,
)

TIMEOUT_MS = 30_000
CLIENT_ID, USER, IP = "client-id", "user", "ip"
_EXACT, _DEFAULT, _ANY = 0, 1, 2  # how a component of a filter matches
_EVERY_CLIENT = ""


class _Invalid(Exception):
    """A filter or an entity that there are no quotas for here."""


async def describe_client_quotas(context: Context, request: Request) -> Any:
    """Tell the quotas that a filter names, all where it names nothing."""
    body, response = request.body, request.api.response
    code, text, quotas = 0, None, []
    try:
        wanted = _matcher(body.components, strict=body.strict)
        answer = await context.brokers.ask_any(DescribeClientQuotasRequest(), timeout_ms=TIMEOUT_MS)
        quotas = [quota for quota in answer.quotas if wanted(quota)]
    except (_Invalid, ForebayError) as error:
        code, text = _code_of(error), str(error)
    kind = response.EntryData
    entries = [
        kind(
            entity=[kind.EntityData(entity_type=CLIENT_ID, entity_name=quota.client_id or None)],
            values=[kind.ValueData(key=name, value=float(rate)) for name, rate in quota.rates.items()],
        )
        for quota in quotas
    ]
    return response(throttle_time_ms=0, error_code=code, error_message=text, entries=None if code else entries)


def _matcher(components: Any, *, strict: bool) -> Callable[[ClientQuota], bool]:
    """Return what tells whether a quota is asked for.

    Args:
        strict: An entity has no part that the filter does not name.
    Raises:
        _Invalid: there is no such filter.
    """
    kinds = [one.entity_type for one in components]
    for one in components:
        if one.entity_type not in (CLIENT_ID, USER, IP) or one.match_type not in (_EXACT, _DEFAULT, _ANY):
            raise _Invalid(f"there is no filter {one.entity_type!r} with match type {one.match_type}")
        if (one.match_type == _EXACT) != (one.match is not None):
            raise _Invalid("an exact match has a name, and no other has one")
    if len(set(kinds)) != len(kinds):
        raise _Invalid("the filter names an entity type twice")

    def matches(quota: ClientQuota) -> bool:
        for one in components:
            if one.entity_type != CLIENT_ID:
                return False  # no quota here is of a user or of an address
            if one.match_type == _DEFAULT and quota.client_id != _EVERY_CLIENT:
                return False
            if one.match_type == _EXACT and (not one.match or quota.client_id != one.match):
                return False
        return bool(components) or not strict

    return matches


async def alter_client_quotas(context: Context, request: Request) -> Any:
    """Set and remove rates of client ids."""
    body, response = request.body, request.api.response
    outcomes: list[tuple[int, str]] = []
    asked: list[AlterClientQuota] = []
    for one in body.entries:
        try:
            asked.append(AlterClientQuota(_client_id(one.entity), [_change(op) for op in one.ops]))
            outcomes.append((0, ""))
        except _Invalid as error:
            outcomes.append((_code_of(error), str(error)))
    if asked:
        answers = iter(await _alter(context, AlterClientQuotasRequest(asked, bool(body.validate_only))))
        outcomes = [(code, text) if code else next(answers) for code, text in outcomes]
    kind = response.EntryData
    entries = [
        kind(
            error_code=code,
            error_message=text or None,
            entity=[kind.EntityData(entity_type=part.entity_type, entity_name=part.entity_name) for part in one.entity],
        )
        for one, (code, text) in zip(body.entries, outcomes, strict=True)
    ]
    return response(throttle_time_ms=0, entries=entries)


async def _alter(context: Context, asked: AlterClientQuotasRequest) -> list[tuple[int, str]]:
    try:
        answer = await context.brokers.ask_any(asked, timeout_ms=TIMEOUT_MS)
    except ForebayError as error:
        return [(_code_of(error), str(error))] * len(asked.entries)
    return [(one.error_code, one.message) for one in answer.entries]


def _client_id(entity: Any) -> str:
    kinds = [part.entity_type for part in entity]
    if kinds != [CLIENT_ID]:
        raise _Invalid(f"quotas are those of a client-id here, not of {' and '.join(kinds) or 'nothing'}")
    name: str | None = entity[0].entity_name
    if name == _EVERY_CLIENT:
        raise _Invalid("an empty client id has the quota of the default")
    return _EVERY_CLIENT if name is None else name


def _change(op: Any) -> AlterConfig:
    if op.remove:
        return AlterConfig(op.key, None)
    return AlterConfig(op.key, str(int(op.value)) if float(op.value).is_integer() else str(op.value))


def _code_of(error: _Invalid | ForebayError) -> int:
    if isinstance(error, _Invalid):
        return int(ErrorCode.INVALID_REQUEST)
    return error.code if isinstance(error, RemoteError) else int(ErrorCode.REQUEST_TIMED_OUT)
