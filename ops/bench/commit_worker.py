"""Commits at a steady rate by many groups, and how long each takes to be answered."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from ops.bench.measured import quantile_ms


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    from ingest.client.cluster import Cluster
    from ingest.client.groups.committed import Committed, MemberId, commit_requests
    from ingest.client.groups.coordinator import Coordinator
    from ingest.client.positions import TopicPartition

    topic, rate, seconds = arguments["topic"], arguments["rate"], arguments["seconds"]
    cluster = Cluster(arguments["data_dir"], client_id="bench")
    cluster.want([topic])
    while topic not in cluster.topics:
        cluster.poll()
        cluster.wait(5)
    partitions = len(cluster.topics[topic].partitions)
    groups = [f"{arguments['prefix']}-{number}" for number in range(arguments["groups"])]
    coordinators = [Coordinator(cluster, group) for group in groups]
    took: list[float] = []
    errors = 0

    def commit(number: int, names: list[TopicPartition]) -> None:
        sent = time.monotonic()

        def on_outcome(body: Any, error: Any) -> None:
            nonlocal errors
            if error is None:
                took.append(time.monotonic() - sent)
            else:
                errors += 1

        offsets = {name: Committed(int(sent * 1000), "", 0) for name in names}
        (request,) = commit_requests(cluster, groups[number], offsets, MemberId())
        coordinators[number].ask(request, on_outcome, timeout_ms=30_000)

    def turn(until: float) -> None:
        while True:
            cluster.poll()
            for coordinator in coordinators:
                if coordinator.busy:
                    coordinator.poll()
            left = until - time.monotonic()
            if left <= 0:
                return
            if not cluster.unsure:
                cluster.wait(min(5, int(left * 1000) + 1))

    each = arguments["partitions_each"]
    for number in range(len(groups)):  # every group is found, and has committed
        commit(number, [TopicPartition(topic, (number * each + p) % partitions) for p in range(each)])
        if number % 50 == 49:
            turn(time.monotonic())
    deadline = time.monotonic() + 60
    while len(took) + errors < len(groups) and time.monotonic() < deadline:
        turn(time.monotonic() + 0.01)
    took.clear()
    start = due = time.monotonic()
    number = 0
    while due < start + seconds:
        due += 1 / rate
        turn(due)
        number += 1
        commit(number % len(groups), [TopicPartition(topic, number % partitions)])
    while len(took) + errors < number and time.monotonic() < due + 30:
        turn(time.monotonic() + 0.01)
    return {
        "commits_per_s": number / seconds,
        "answered": len(took),
        "errors": errors,
        "p50_ms": quantile_ms(took, 0.5),
        "p99_ms": quantile_ms(took, 0.99),
        "max_ms": quantile_ms(took, 1.0),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
