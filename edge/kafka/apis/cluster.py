"""The cluster as a whole: brokers, elections, moves of replicas."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from edge.kafka.codec import Request
from edge.kafka.context import Context
from ingest.errors import ForebayError, RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.message import Message
from ingest.wire.messages import (
    AlterPartitionReassignmentsRequest,
    BrokerMetadata,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    ElectLeadersRequest,
    PartitionResult,
    Reassignment,
)

TIMEOUT_MS = 30_000


async def describe_cluster(context: Context, request: Request) -> Any:
    """Tell of the brokers: all are found at this gateway."""
    response = request.api.response
    await context.brokers.known()
    alive = [broker for broker in context.brokers.all.values() if broker.alive]
    return response(
        throttle_time_ms=0,
        error_code=0,
        error_message=None,
        endpoint_type=1,
        cluster_id=context.brokers.cluster_id,
        controller_id=min((broker.broker_id for broker in alive), default=-1),
        brokers=[_node(context, response, broker) for broker in alive],
    )


def _node(context: Context, response: Any, broker: BrokerMetadata) -> Any:
    host, port = context.address(broker.broker_id)
    return response.DescribeClusterBroker(broker_id=broker.broker_id, host=host, port=port, rack=broker.rack or None)


async def describe_log_dirs(context: Context, request: Request) -> Any:
    """Tell what lies on the disk of the broker that the client speaks to."""
    body, response = request.body, request.api.response
    await context.brokers.known()
    names = {topic.topic_id: topic.name for topic in context.brokers.topics.values()}
    named = None
    if body.topics is not None:
        named = {(one.topic, number) for one in body.topics for number in one.partitions}
    asked = (
        context.brokers.ask(broker_id, DescribeLogDirsRequest(), timeout_ms=TIMEOUT_MS) for broker_id in context.asked()
    )
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    kind = response.DescribeLogDirsResult
    results = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            continue
        found: DescribeLogDirsResponse = outcome[0]
        by_name: dict[str, list[Any]] = defaultdict(list)
        for one in found.replicas:
            name = names.get(one.topic_id)
            if name is not None and (named is None or (name, one.partition) in named):
                size = kind.DescribeLogDirsTopic.DescribeLogDirsPartition(
                    partition_index=one.partition, partition_size=one.size_bytes, offset_lag=0, is_future_key=False
                )
                by_name[name].append(size)
        topics = [kind.DescribeLogDirsTopic(name=name, partitions=sizes) for name, sizes in by_name.items()]
        results.append(
            kind(
                error_code=0,
                log_dir=found.log_dir,
                topics=topics,
                total_bytes=found.total_bytes,
                usable_bytes=found.usable_bytes,
            )
        )
    return response(throttle_time_ms=0, error_code=0, results=results)


async def elect_leaders(context: Context, request: Request) -> Any:
    """Have leaders elected."""
    body, response = request.body, request.api.response
    wanted = None
    if body.topic_partitions is not None:
        wanted = [(one.topic, number) for one in body.topic_partitions for number in one.partitions]
    kind = body.election_type if request.version >= 1 else 0
    code, results = await _asked(context, ElectLeadersRequest(kind, wanted))
    found = response.ReplicaElectionResult
    grouped = [
        found(
            topic=name,
            partition_result=[
                found.PartitionResult(
                    partition_id=one.partition, error_code=one.error_code, error_message=one.message or None
                )
                for one in some
            ],
        )
        for name, some in _by_topic(results).items()
    ]
    return response(throttle_time_ms=0, error_code=code, replica_election_results=grouped)


async def alter_reassignments(context: Context, request: Request) -> Any:
    """Move partitions to other brokers, or cancel moves."""
    body, response = request.body, request.api.response
    wanted = [
        Reassignment(one.name, item.partition_index, item.replicas) for one in body.topics for item in one.partitions
    ]
    code, results = await _asked(context, AlterPartitionReassignmentsRequest(wanted))
    kind = response.ReassignableTopicResponse
    responses = [
        kind(
            name=name,
            partitions=[
                kind.ReassignablePartitionResponse(
                    partition_index=one.partition, error_code=one.error_code, error_message=one.message or None
                )
                for one in some
            ],
        )
        for name, some in _by_topic(results).items()
    ]
    return response(throttle_time_ms=0, error_code=code, error_message=None, responses=responses)


async def list_reassignments(context: Context, request: Request) -> Any:
    """Tell which partitions move."""
    body, response = request.body, request.api.response
    await context.brokers.known()
    named = None
    if body.topics is not None:
        named = {(one.name, number) for one in body.topics for number in one.partition_indexes}
    kind = response.OngoingTopicReassignment
    topics = []
    for topic in context.brokers.topics.values():
        moving = [
            kind.OngoingPartitionReassignment(
                partition_index=item.partition,
                replicas=item.replicas,
                adding_replicas=item.adding,
                removing_replicas=item.removing,
            )
            for item in topic.partitions
            if (item.adding or item.removing) and (named is None or (topic.name, item.partition) in named)
        ]
        if moving:
            topics.append(kind(name=topic.name, partitions=moving))
    return response(throttle_time_ms=0, error_code=0, error_message=None, topics=topics)


async def _asked(context: Context, asked: Message) -> tuple[int, list[PartitionResult]]:
    try:
        answer = await context.brokers.ask_any(asked, timeout_ms=TIMEOUT_MS)
    except RemoteError as error:
        return error.code, []
    except ForebayError:
        return int(ErrorCode.REQUEST_TIMED_OUT), []
    return 0, list(answer.partitions)


def _by_topic(results: list[PartitionResult]) -> dict[str, list[PartitionResult]]:
    found: dict[str, list[PartitionResult]] = defaultdict(list)
    for one in results:
        found[one.topic].append(one)
    return found
