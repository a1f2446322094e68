"""A member of a group: a line with the time whenever it has another number of partitions, until its input ends."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any


def main(arguments: dict[str, Any]) -> None:
    from ingest import Consumer

    ended = threading.Event()

    def watch_input() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=watch_input, daemon=True).start()
    consumer = Consumer(
        arguments["data_dir"],
        group_id=arguments["group"],
        auto_offset_reset="latest",
        partition_assignment_strategy=arguments["strategy"],
    )
    began, held = time.monotonic(), -1
    consumer.subscribe([arguments["topic"]])
    while not ended.is_set():
        consumer.poll(10)
        now = time.monotonic()
        count = len(consumer.assignment())
        if count != held:
            held = count
            line = json.dumps({"at": now, "began": began, "partitions": count}) + "\n"
            os.write(sys.stdout.fileno(), line.encode())
    consumer.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
