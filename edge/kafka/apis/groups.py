"""Groups: what members ask of their coordinator, and what is asked about groups. Bytes of members pass through."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from edge.kafka.codec import Request
from edge.kafka.context import Context
from edge.kafka.coordinators import ask_each
from ingest.errors import ForebayError, RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import (
    DeleteGroupsRequest,
    DescribedGroup,
    DescribeGroupsRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    LeavingMember,
    ListedGroup,
    ListGroupsRequest,
    SyncGroupRequest,
    encode_assignments,
)

TIMEOUT_MS = 5_000
GRACE_MS = 5_000
KNOWN_MEMBER_FROM = 4  # of JoinGroup: KIP-394
_GROUP, _TRANSACTION = 0, 1


async def find_coordinator(context: Context, request: Request) -> Any:
    """Tell who coordinates: the broker's id, to be found at this gateway."""
    body, response = request.body, request.api.response
    keys = list(body.coordinator_keys) if request.version >= 4 else [body.key]
    found = await ask_each(partial(_coordinator, context, body.key_type), keys)
    nodes = []
    for key, (code, broker_id) in zip(keys, found, strict=True):
        host, port = context.address(broker_id) if broker_id >= 0 else ("", -1)
        fields = {"node_id": broker_id, "host": host, "port": port, "error_code": code, "error_message": None}
        if request.version < 4:
            return response(throttle_time_ms=0, **fields)
        nodes.append(response.Coordinator(key=key, **fields))
    return response(throttle_time_ms=0, coordinators=nodes)


async def _coordinator(context: Context, kind: int, key: str) -> tuple[int, int]:
    if kind == _TRANSACTION:
        return int(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED), -1
    if kind != _GROUP:
        return int(ErrorCode.INVALID_REQUEST), -1
    await context.brokers.known()
    try:
        return 0, await context.coordinators.find(key)
    except RemoteError as error:
        return error.code, -1
    except ForebayError:
        return int(ErrorCode.COORDINATOR_NOT_AVAILABLE), -1


async def join_group(context: Context, request: Request) -> Any:
    """Join; the answer waits for the rebalance."""
    body = request.body
    timeout_ms = body.rebalance_timeout_ms if request.version >= 1 else body.session_timeout_ms
    asked = JoinGroupRequest(
        body.group_id,
        body.member_id,
        body.session_timeout_ms,
        timeout_ms,
        body.protocol_type,
        [protocol.name for protocol in body.protocols],
        body.group_instance_id,
        request.version >= KNOWN_MEMBER_FROM,
        context.client_ip,
    )
    payload = [bytes(protocol.metadata) for protocol in body.protocols]
    response = request.api.response
    try:
        answer = await context.coordinators.ask(
            body.group_id,
            asked,
            timeout_ms=max(timeout_ms, 0) + GRACE_MS,
            payload=payload,
            client_id=request.client_id,
        )
    except RemoteError as error:
        return response(
            throttle_time_ms=0,
            error_code=error.code,
            generation_id=-1,
            protocol_type=None,
            protocol_name="" if request.version < 7 else None,
            leader="",
            skip_assignment=False,
            member_id=body.member_id,
            members=[],
        )
    kind = response.JoinGroupResponseMember
    return response(
        throttle_time_ms=0,
        error_code=answer.error_code,
        generation_id=answer.generation,
        protocol_type=answer.protocol_type or None,
        protocol_name=answer.protocol,
        leader=answer.leader,
        skip_assignment=answer.skip_assignment,
        member_id=answer.member_id,
        members=[
            kind(member_id=one.member_id, group_instance_id=one.instance_id, metadata=one.metadata)
            for one in answer.members
        ],
    )


async def sync_group(context: Context, request: Request) -> Any:
    """Hand the assignments in, and be told one's own."""
    body, response = request.body, request.api.response
    asked = SyncGroupRequest(
        body.group_id,
        body.generation_id,
        body.member_id,
        body.group_instance_id,
        body.protocol_type or "",
        body.protocol_name or "",
    )
    pairs = [(one.member_id, bytes(one.assignment)) for one in body.assignments]
    payload = [encode_assignments(pairs)] if pairs else []
    code, assignment, protocol_type, protocol = 0, b"", None, None
    try:
        answer = await context.coordinators.ask(
            body.group_id, asked, timeout_ms=5 * 60_000, payload=payload, client_id=request.client_id
        )
    except RemoteError as error:
        code = error.code
    else:
        code, assignment = answer.error_code, answer.assignment
        protocol_type, protocol = answer.protocol_type or None, answer.protocol or None
    return response(
        throttle_time_ms=0,
        error_code=code,
        protocol_type=protocol_type,
        protocol_name=protocol,
        assignment=assignment,
    )


async def heartbeat(context: Context, request: Request) -> Any:
    """Live on."""
    body = request.body
    asked = HeartbeatRequest(body.group_id, body.generation_id, body.member_id, body.group_instance_id)
    try:
        answer = await context.coordinators.ask(body.group_id, asked, timeout_ms=TIMEOUT_MS)
        code = answer.error_code
    except RemoteError as error:
        code = error.code
    return request.api.response(throttle_time_ms=0, error_code=code)


async def leave_group(context: Context, request: Request) -> Any:
    """Leave, one member or several."""
    body, response = request.body, request.api.response
    if request.version < 3:
        leaving = [LeavingMember(body.member_id)]
    else:
        leaving = [LeavingMember(one.member_id, one.group_instance_id, one.reason or "") for one in body.members]
    try:
        answer = await context.coordinators.ask(
            body.group_id, LeaveGroupRequest(body.group_id, leaving), timeout_ms=TIMEOUT_MS
        )
        code, codes = answer.error_code, list(answer.members)
    except RemoteError as error:
        code, codes = error.code, [error.code] * len(leaving)
    if request.version < 3:
        return response(throttle_time_ms=0, error_code=code or codes[0])
    members = [
        response.MemberResponse(member_id=one.member_id, group_instance_id=one.instance_id, error_code=found)
        for one, found in zip(leaving, codes, strict=True)
    ]
    return response(throttle_time_ms=0, error_code=code, members=members)


async def describe_groups(context: Context, request: Request) -> Any:
    """Describe groups, each by its coordinator."""
    response = request.api.response
    kind = response.DescribedGroup
    found = await ask_each(partial(_described, context), list(dict.fromkeys(request.body.groups)))
    groups = [
        kind(
            error_code=0 if one.error_code == ErrorCode.GROUP_ID_NOT_FOUND else one.error_code,
            group_id=one.group,
            group_state=one.state,
            protocol_type=one.protocol_type,
            protocol_data=one.protocol,
            members=[
                kind.DescribedGroupMember(
                    member_id=member.member_id,
                    group_instance_id=member.instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    member_metadata=member.metadata,
                    member_assignment=member.assignment,
                )
                for member in one.members
            ],
        )
        for one in found
    ]
    return response(throttle_time_ms=0, groups=groups)


async def _described(context: Context, name: str) -> DescribedGroup:
    try:
        answer = await context.coordinators.ask(name, DescribeGroupsRequest([name]), timeout_ms=TIMEOUT_MS)
    except RemoteError as error:
        return DescribedGroup(error.code, name)
    (one,) = answer.groups
    context.coordinators.told(name, one.error_code)
    found: DescribedGroup = one
    return found


async def list_groups(context: Context, request: Request) -> Any:
    """List the groups of the broker that the client speaks to: clients ask each, and many don't look for doubles."""
    response = request.api.response
    await context.brokers.known()
    alive = [broker_id for broker_id in context.asked() if context.brokers.all[broker_id].alive]
    states = list(request.body.states_filter or ())
    outcomes = await asyncio.gather(
        *(_listed(context, broker_id, states) for broker_id in alive), return_exceptions=True
    )
    code = 0
    groups = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            code = outcome.code if isinstance(outcome, RemoteError) else int(ErrorCode.COORDINATOR_NOT_AVAILABLE)
            continue
        listed, listed_code = outcome
        code = code or listed_code
        groups += [
            response.ListedGroup(
                group_id=one.group, protocol_type=one.protocol_type, group_state=one.state, group_type="classic"
            )
            for one in listed
        ]
    return response(throttle_time_ms=0, error_code=code, groups=groups)


async def _listed(context: Context, broker_id: int, states: list[str]) -> tuple[list[ListedGroup], int]:
    """Return all groups of one broker, page by page, and its code."""
    listed: list[ListedGroup] = []
    while True:
        asked = ListGroupsRequest(states, listed[-1].group if listed else "")
        answer, _ = await context.brokers.ask(broker_id, asked, timeout_ms=TIMEOUT_MS)
        listed += answer.groups
        if answer.error_code or not answer.more:
            return listed, answer.error_code


async def delete_groups(context: Context, request: Request) -> Any:
    """Delete groups without members."""
    response = request.api.response
    names = list(dict.fromkeys(request.body.groups_names))
    codes = await ask_each(partial(_deleted, context), names)
    results = [
        response.DeletableGroupResult(group_id=name, error_code=code) for name, code in zip(names, codes, strict=True)
    ]
    return response(throttle_time_ms=0, results=results)


async def _deleted(context: Context, name: str) -> int:
    try:
        answer = await context.coordinators.ask(name, DeleteGroupsRequest([name]), timeout_ms=TIMEOUT_MS)
    except RemoteError as error:
        return error.code
    code: int = answer.groups[0]
    context.coordinators.told(name, code)
    return code
