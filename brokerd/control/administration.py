"""Decide what an administrator's request changes, and what is answered once that is durable; pure."""

from __future__ import annotations

from brokerd.control import configs, moves, quotas, topics
from brokerd.control.elections import Elected
from brokerd.control.events import Received
from brokerd.control.records import Change
from brokerd.control.topics import Cluster, Refused
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import api_key_of
from ingest.wire.message import Message
from ingest.wire.messages import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    AlterConfigsRequest,
    AlterConfigsResponse,
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ApiKey,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DrainBrokerRequest,
    DrainBrokerResponse,
    ElectLeadersRequest,
    ElectLeadersResponse,
)


def administer(cluster: Cluster, request: Received) -> tuple[list[Change], Message, Elected]:
    """Return the changes, none if nothing is to be done, the answer, and which leaders that elects.

    Raises:
        Refused: the controller does not serve this request.
    """
    match request.body:
        case CreateTopicsRequest() as body:
            created = topics.create_topics(cluster, body, request.topic_ids, request.placement_start)
            return created.changes, CreateTopicsResponse(created.results), Elected()
        case CreatePartitionsRequest() as body:
            grown = topics.create_partitions(cluster, body, request.placement_start)
            return grown.changes, CreatePartitionsResponse(grown.results), Elected()
        case DeleteTopicsRequest() as body:
            deleted = topics.delete_topics(cluster, body, cluster.image.version + 1)
            return deleted.changes, DeleteTopicsResponse(deleted.results), Elected()
        case AlterConfigsRequest() as body:
            altered = configs.alter(cluster, body)
            return altered.changes, AlterConfigsResponse(altered.results), Elected()
        case AlterClientQuotasRequest() as body:
            limited = quotas.alter(cluster, body)
            return limited.changes, AlterClientQuotasResponse(limited.results), Elected()
        case ElectLeadersRequest() as body:
            decision = moves.elect_leaders(cluster, body)
            return decision.changes, ElectLeadersResponse(decision.results), decision.elected
        case AlterPartitionReassignmentsRequest() as body:
            decision = moves.reassign(cluster, body)
            return decision.changes, AlterPartitionReassignmentsResponse(decision.results), decision.elected
        case DrainBrokerRequest() as body:
            decision, moving, staying = moves.drain(cluster, body)
            return decision.changes, DrainBrokerResponse(moving, staying), decision.elected
        case body:
            api = ApiKey(api_key_of(body)).name
            raise Refused(ErrorCode.UNSUPPORTED_VERSION, f"{api} is not served by the controller")
