"""Which replica a consumer is to read from; pure. Source: KIP-392."""

from __future__ import annotations

from collections.abc import Mapping

from replicas.leader import Leadership

# replica.selector.class: Kafka's name of the one there is, with its package or without; empty: readers go to leaders
SELECTORS = ("", "RackAwareReplicaSelector", "org.apache.kafka.common.replica.RackAwareReplicaSelector")


def nearest_replica(leadership: Leadership, rack: str, racks: Mapping[int, str], offset: int) -> int:
    """Return the broker that a reader in `rack` is to read `offset` from.

    It is the leader if that is there; else of the in-sync replicas there that hold what lies below `offset` the one
    that is furthest; without any the leader after all.

    Args:
        racks: Of the brokers that are alive.
    """
    leader = leadership.state.leader
    if racks.get(leader) == rack:
        return leader
    near = {
        broker: end.appended_end
        for broker in leadership.state.isr
        if racks.get(broker) == rack and (end := leadership.end_of(broker)) is not None and end.appended_end >= offset
    }
    return max(near, key=near.__getitem__, default=leader)
