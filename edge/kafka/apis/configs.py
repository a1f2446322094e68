"""Settings of topics and brokers: described, and altered one by one or all at once."""

from __future__ import annotations

from typing import Any

from edge.kafka.codec import Request
from edge.kafka.context import Context
from ingest.errors import ForebayError, RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    AlterConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    ConfigEntry,
    ConfigResource,
    DescribeConfigsRequest,
)

TIMEOUT_MS = 30_000
_SET, _DELETE = 0, 1  # of IncrementalAlterConfigs; append and subtract are for lists, of which there is one
_THROTTLES = frozenset(  # of replication, of which there are none; Java's kafka-reassign-partitions deletes them all
    {
        "leader.replication.throttled.rate",
        "follower.replication.throttled.rate",
        "replica.alter.log.dirs.io.max.bytes.per.second",
        "leader.replication.throttled.replicas",
        "follower.replication.throttled.replicas",
    }
)
_DYNAMIC = {2: 1, 4: 2}  # the source of what was set for a topic, or for brokers


async def describe_configs(context: Context, request: Request) -> Any:
    """Tell all settings, or those named, with where each comes from."""
    response = request.api.response
    results = []
    for one in request.body.resources:
        try:
            entries = await _entries(context, one.resource_type, one.resource_name)
            code, text = 0, None
        except RemoteError as error:
            entries, code, text = [], error.code, str(error)
        names = one.configuration_keys
        results.append(
            response.DescribeConfigsResult(
                error_code=code,
                error_message=text,
                resource_type=one.resource_type,
                resource_name=one.resource_name,
                configs=[_described(response, entry) for entry in entries if names is None or entry.name in names],
            )
        )
    return response(throttle_time_ms=0, results=results)


def _described(response: Any, entry: ConfigEntry) -> Any:
    return response.DescribeConfigsResult.DescribeConfigsResourceResult(
        name=entry.name,
        value=entry.value,
        read_only=entry.read_only,
        config_source=entry.source,
        is_sensitive=False,
        synonyms=[],
        config_type=2,  # STRING
        documentation=entry.documentation or None,
    )


async def _entries(context: Context, kind: int, name: str) -> list[ConfigEntry]:
    try:
        answer = await context.brokers.ask_any(
            DescribeConfigsRequest([ConfigResource(kind, name)]), timeout_ms=TIMEOUT_MS
        )
    except RemoteError:
        raise
    except ForebayError as error:
        raise RemoteError(str(error), code=int(ErrorCode.REQUEST_TIMED_OUT)) from None
    (described,) = answer.resources
    if described.error_code:
        raise RemoteError(described.message, code=described.error_code)
    entries: list[ConfigEntry] = described.entries
    return entries


async def incremental_alter_configs(context: Context, request: Request) -> Any:
    """Set and put back settings; what is not named stays."""
    results = []
    for one in request.body.resources:
        changes: list[AlterConfig] = []
        code, text = 0, ""
        for item in one.configs:
            if item.config_operation == _DELETE and item.name in _THROTTLES:
                continue
            if item.config_operation not in (_SET, _DELETE):
                code, text = int(ErrorCode.INVALID_CONFIG), f"{item.name}: it is set or deleted as a whole"
            changes.append(AlterConfig(item.name, item.value if item.config_operation == _SET else None))
        if changes and not code:
            code, text = await _alter(context, request, one, changes)
        results.append(_result(request, one, code, text))
    return request.api.response(throttle_time_ms=0, responses=results)


async def alter_configs(context: Context, request: Request) -> Any:
    """Set settings; of what was set before and is not named now the default comes back."""
    results = []
    for one in request.body.resources:
        wanted = {item.name: item.value for item in one.configs}
        try:
            entries = await _entries(context, one.resource_type, one.resource_name)
        except RemoteError as error:
            results.append(_result(request, one, error.code, str(error)))
            continue
        dynamic = _DYNAMIC.get(one.resource_type)
        gone = [entry.name for entry in entries if entry.source == dynamic and entry.name not in wanted]
        changes = [AlterConfig(name, value) for name, value in wanted.items()]
        changes += [AlterConfig(name, None) for name in gone]
        code, text = await _alter(context, request, one, changes)
        results.append(_result(request, one, code, text))
    return request.api.response(throttle_time_ms=0, responses=results)


async def _alter(context: Context, request: Request, one: Any, changes: list[AlterConfig]) -> tuple[int, str]:
    resource = AlterConfigsResource(ConfigResource(one.resource_type, one.resource_name), changes)
    try:
        asked = AlterConfigsRequest([resource], bool(request.body.validate_only))
        answer = await context.brokers.ask_any(asked, timeout_ms=TIMEOUT_MS)
    except RemoteError as error:
        return error.code, str(error)
    except ForebayError as error:
        return int(ErrorCode.REQUEST_TIMED_OUT), str(error)
    (altered,) = answer.resources
    return altered.error_code, altered.message


def _result(request: Request, one: Any, code: int, text: str) -> Any:
    return request.api.response.AlterConfigsResourceResponse(
        error_code=code, error_message=text or None, resource_type=one.resource_type, resource_name=one.resource_name
    )
