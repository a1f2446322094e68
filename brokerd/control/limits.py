"""Bounds of the controller, in one place; ingest.limits holds those of every decoder."""

from __future__ import annotations

import msgspec

from ingest.limits import LIMITS, Limits


class ControlLimits(msgspec.Struct, frozen=True):
    """What one cluster may hold and one controller keeps in memory for its peers."""

    partitions_max: int = 10_000  # of all topics; a handful of machines
    replication_factor_max: int = 32  # far beyond what a handful of machines can use
    parked_max: int = 4096  # requests that wait for an answer
    past_incarnations_max: int = 16  # remembered per broker; each restart adds one
    client_quotas_max: int = 1_000  # clients with a quota of their own; all of them are in the metadata of brokers
    deleted_topics_max: int = 10_000  # not yet erased by some registered broker
    leader_epoch_max: int = 2**31 - 2  # int32 in Kafka; one more is granted
    producer_id_floor_max: int = LIMITS.producer_id_max - 2**32  # one beyond was made up by its producer, never granted


CONTROL_LIMITS = ControlLimits()

# A registration names every partition on the broker's disk, about 32 bytes each: 10,000 of them do not fit the 64 KiB
# of a client's header. Controller and brokers talk over a socket that only the service's user can reach.
REQUEST_LIMITS = Limits(
    request_header_bytes_max=1 << 20, payload_frames_max=0, request_bytes_max=LIMITS.request_bytes_max
)
