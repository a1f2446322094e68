"""Which API is served by which coroutine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from edge.kafka.apis import (
    cluster,
    configs,
    epoch_ends,
    fetch,
    groups,
    list_offsets,
    metadata,
    offsets,
    produce,
    producer_ids,
    quotas,
    sasl,
    topics,
)
from edge.kafka.codec import API_VERSIONS, APIS, Request
from edge.kafka.context import Context

Handler = Callable[[Context, Request], Awaitable[Any]]

HANDLERS: dict[int, Handler] = {
    0: produce.produce,
    1: fetch.fetch,
    2: list_offsets.list_offsets,
    3: metadata.metadata,
    8: offsets.offset_commit,
    9: offsets.offset_fetch,
    10: groups.find_coordinator,
    11: groups.join_group,
    12: groups.heartbeat,
    13: groups.leave_group,
    14: groups.sync_group,
    15: groups.describe_groups,
    16: groups.list_groups,
    17: sasl.sasl_handshake,
    19: topics.create_topics,
    20: topics.delete_topics,
    21: topics.delete_records,
    22: producer_ids.init_producer_id,
    23: epoch_ends.epoch_ends,
    32: configs.describe_configs,
    33: configs.alter_configs,
    35: cluster.describe_log_dirs,
    36: sasl.sasl_authenticate,
    37: topics.create_partitions,
    42: groups.delete_groups,
    43: cluster.elect_leaders,
    44: configs.incremental_alter_configs,
    45: cluster.alter_reassignments,
    46: cluster.list_reassignments,
    47: offsets.offset_delete,
    48: quotas.describe_client_quotas,
    49: quotas.alter_client_quotas,
    60: cluster.describe_cluster,
}
assert HANDLERS.keys() | {API_VERSIONS} == APIS.keys()
