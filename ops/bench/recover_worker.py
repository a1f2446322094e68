"""A producer that never stops sending, and when its acknowledgements come: the gap that a killed broker leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    from ingest.producer import Delivery, Producer

    acks: list[float] = []
    failed = 0

    def on_delivery(delivery: Delivery) -> None:
        nonlocal failed
        if delivery.exception() is None:
            acks.append(time.monotonic())
        else:
            failed += 1

    with Producer(arguments["data_dir"], linger_ms=0) as producer:
        producer.send(arguments["topic"], b"x" * 100).result(10)
        start = time.monotonic()
        killed = 0.0
        while (now := time.monotonic()) < start + arguments["seconds"]:
            if not killed and now > start + 0.5:
                os.kill(arguments["pid"], arguments.get("signal", signal.SIGKILL))
                killed = time.monotonic()
            producer.send(
                arguments["topic"],
                b"x" * 100,
                on_delivery=lambda d: acks.append(time.monotonic()) if not d.exception() else None,
            )
            time.sleep(0.001)
        producer.flush(30)
    first = min((ack for ack in acks if ack > killed + 0.002), default=float("inf"))
    return {"ack_gap_ms": (first - killed) * 1000, "acknowledged": len(acks), "failed": failed}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
