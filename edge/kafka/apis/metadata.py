"""ApiVersions and Metadata: what is served, and where. Every broker id is found at its machine's gateway.

Source: KIP-511 (ApiVersions), KIP-516 (topic ids), KIP-430 (no authorized operations here).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from edge.kafka.codec import APIS, Request
from edge.kafka.context import Context
from ingest.errors import ForebayError, RemoteError
from ingest.topic_name import is_internal
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import MetadataRequest, TopicMetadata

CREATE_TIMEOUT_MS = 5_000


def api_versions(code: ErrorCode = ErrorCode.NONE) -> Any:
    """Return what is served, as ApiVersions says it."""
    response = APIS[18].response
    item = response.ApiVersion
    keys = [item(api_key=api.key, min_version=api.advertised, max_version=api.highest) for api in APIS.values()]
    return response(error_code=int(code), api_keys=keys, throttle_time_ms=0)


async def metadata(context: Context, request: Request) -> Any:
    """Tell of brokers and topics; create topics that are missing where client and gateway allow it."""
    brokers, body, version = context.brokers, request.body, request.version
    await brokers.known()
    wanted = body.topics
    if wanted is None or (version == 0 and not wanted):
        found = [_topic(request, topic) for topic in brokers.topics.values()]
    else:
        allowed = context.config.auto_create_topics and (version < 4 or body.allow_auto_topic_creation)
        named = {(item.name, item.topic_id): item for item in wanted}  # each once: a topic may have 1,000 partitions
        by_id = {topic.topic_id: topic for topic in brokers.topics.values()}
        found = [await _wanted(context, request, item, by_id, create=allowed) for item in named.values()]
    response = request.api.response
    advertised = []
    for broker in brokers.all.values():
        host, port = context.address(broker.broker_id)
        node = response.MetadataResponseBroker(node_id=broker.broker_id, host=host, port=port, rack=broker.rack or None)
        advertised.append(node)
    alive = [broker.broker_id for broker in brokers.all.values() if broker.alive]
    return response(
        throttle_time_ms=0,
        brokers=advertised,
        cluster_id=brokers.cluster_id,
        controller_id=min(alive, default=-1),
        topics=found,
    )


async def _wanted(
    context: Context, request: Request, item: Any, by_id: Mapping[bytes, TopicMetadata], *, create: bool
) -> Any:
    brokers, name = context.brokers, item.name
    if name is None:  # by its id
        topic_id = item.topic_id.bytes if item.topic_id is not None else b""
        topic = by_id.get(topic_id)
        return _topic(request, topic) if topic else _missing(request, None, ErrorCode.UNKNOWN_TOPIC_ID, item.topic_id)
    topic = brokers.topics.get(name)
    if topic is None:
        code = await _look_again(context, name, create=create)
        topic = brokers.topics.get(name)
        if topic is None:
            return _missing(request, name, code)
    return _topic(request, topic)


async def _look_again(context: Context, name: str, *, create: bool) -> ErrorCode:
    """Ask a broker for a topic that metadata does not name, and have it created; return why there is none."""
    try:
        answer = await context.brokers.ask_any(MetadataRequest([name], -1, create, 0), timeout_ms=CREATE_TIMEOUT_MS)
    except RemoteError as error:
        return ErrorCode(error.code)
    except ForebayError:
        return ErrorCode.LEADER_NOT_AVAILABLE
    (topic,) = answer.topics or [TopicMetadata(name, b"", [], {}, int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))]
    if topic.error_code:
        return ErrorCode(topic.error_code)
    await context.brokers.newer(CREATE_TIMEOUT_MS)
    return ErrorCode.LEADER_NOT_AVAILABLE


def _topic(request: Request, topic: TopicMetadata) -> Any:
    kind = request.api.response.MetadataResponseTopic
    partition = kind.MetadataResponsePartition
    partitions = [
        partition(
            error_code=0 if item.leader >= 0 else int(ErrorCode.LEADER_NOT_AVAILABLE),
            partition_index=item.partition,
            leader_id=item.leader,
            leader_epoch=item.leader_epoch,
            replica_nodes=item.replicas,
            isr_nodes=item.isr,
            offline_replicas=[],
        )
        for item in topic.partitions
    ]
    return kind(
        error_code=0,
        name=topic.name,
        topic_id=UUID(bytes=topic.topic_id),
        is_internal=is_internal(topic.name),
        partitions=partitions,
    )


def _missing(request: Request, name: str | None, code: ErrorCode, topic_id: UUID | None = None) -> Any:
    return request.api.response.MetadataResponseTopic(
        error_code=int(code),
        name=name,
        topic_id=topic_id or UUID(int=0),
        is_internal=False,
        partitions=[],
    )
