"""What `topic describe` shows: partitions with their leaders and offsets, and the settings."""

from __future__ import annotations

import uuid
from typing import Any

import click

from ingest.admin import Admin
from ingest.errors import ForebayError, TransportError
from ingest.log.mapping import PageMap
from ingest.log.state_page import decode_marks, decode_page_header, row_tag
from ingest.machine import machine_id
from ingest.wire.messages import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, BrokerMetadata
from ops.cli.configs import described, print_configs
from ops.cli.reached import print_table


def describe_topic(admin: Admin, name: str) -> dict[str, Any]:
    """Return a topic as JSON shows it; offsets are null where a leader does not answer.

    Raises:
        RemoteError: there is no such topic.
    Cost: a few requests a partition.
    """
    found = admin.describe_topic(name)
    brokers = {broker.broker_id: broker for broker in admin.brokers()}
    silent: set[int] = set()
    partitions = []
    for item in sorted(found.partitions, key=lambda item: item.partition):
        log_start: int | None = None
        high_watermark: int | None = None
        broker = brokers.get(item.leader)
        if item.leader not in silent and broker is not None and broker.alive:
            try:
                log_start = admin.list_offset(name, item.partition, EARLIEST_TIMESTAMP)
                high_watermark = admin.list_offset(name, item.partition, LATEST_TIMESTAMP)
            except (TransportError, TimeoutError, ForebayError):
                silent.add(item.leader)
        log_end = high_watermark
        if broker is not None and high_watermark is not None:
            log_end = max(high_watermark, _log_end(broker, found.topic_id, item.partition, item.leader_epoch))
        partitions.append(
            {
                "partition": item.partition,
                "leader": item.leader,
                "leader_epoch": item.leader_epoch,
                "replicas": item.replicas,
                "isr": item.isr,
                "eligible": item.eligible,
                "partition_epoch": item.partition_epoch,
                "log_start_offset": log_start,
                "high_watermark": high_watermark,
                "log_end_offset": log_end,
            }
        )
    return {
        "name": name,
        "topic_id": str(uuid.UUID(bytes=found.topic_id)),
        "replication_factor": max((len(item.replicas) for item in found.partitions), default=0),
        "partitions": partitions,
        "configs": described(admin.describe_configs(name)),
    }


def _log_end(broker: BrokerMetadata, topic_id: bytes, partition: int, leader_epoch: int) -> int:
    """Return the end of a log whose leader's state page is on this machine, -1 elsewhere: no request tells it."""
    if broker.machine != machine_id():
        return -1
    from pathlib import Path

    try:
        page = PageMap(Path(broker.page_path)).view
    except OSError:
        return -1
    header = decode_page_header(page)
    tag = row_tag(topic_id, partition)
    for row in range(header[0] if header else 0):
        marks = decode_marks(page, row)
        if marks is not None and marks.tag == tag and marks.leader_epoch >= leader_epoch:
            return marks.log_end
    return -1


def print_description(description: dict[str, Any], *, all_configs: bool) -> None:
    """Print it for people."""
    print_table(
        ("NAME", description["name"]),
        [
            ("ID", description["topic_id"]),
            ("PARTITIONS", len(description["partitions"])),
            ("REPLICAS", description["replication_factor"]),
        ],
    )
    click.echo()
    heads = ("partition", "leader", "leader_epoch", "replicas", "isr", "eligible")
    offsets = ("log_start_offset", "high_watermark", "log_end_offset")
    rows = [
        [*(item[head] for head in heads), *("?" if item[head] is None else item[head] for head in offsets)]
        for item in description["partitions"]
    ]
    print_table([head.upper().replace("_", "-") for head in (*heads, *offsets)], rows)
    click.echo()
    print_configs(description["configs"], all_configs=all_configs)
