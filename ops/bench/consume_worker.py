"""One consume run in a process of its own: a topic read from its start to its end, the second time measured."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    from ingest import Consumer

    how, topic, total = arguments["how"], arguments["topic"], arguments["records"]
    consumer = Consumer(
        arguments["data_dir"],
        auto_offset_reset="earliest",
        local=arguments["local"],
        fetch_max_bytes=arguments["fetch"],
    )
    with consumer:
        consumer.assign([(topic, 0)])
        seconds = 0.0
        cpu = 0.0
        size = 0
        for _ in range(2):
            consumer.seek_to_beginning()
            consumer.position(topic, 0)
            start, cpu_start = time.perf_counter(), time.process_time()
            count = batches = size = 0
            while count < total:
                if how == "poll":
                    count += len(consumer.poll(1000, 10_000))
                    continue
                for columns in consumer.poll_arrays(1000):
                    count += len(columns)
                    size += columns.values.data.nbytes
                    batches += 1
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    return {
        "records_per_s": total / seconds,
        "mb_per_s": total * arguments["size"] / seconds / 1e6,
        "records": total,
        "seconds": seconds,
        "cpu_cores": cpu / seconds,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
