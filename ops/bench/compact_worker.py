"""Fill a compacted topic: records with random ones of so many keys, as columns."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

_ROWS = 100_000
_KEY_BYTES = 14


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from ingest import Producer

    records, keys, size = arguments["records"], arguments["keys"], arguments["size"]
    dice = np.random.default_rng(1)
    names = np.array([b"key-%010d" % number for number in range(keys)]).view(np.uint8).reshape(keys, _KEY_BYTES)
    values = dice.integers(0, 256, (_ROWS, max(1, size - _KEY_BYTES)), np.uint8)
    start = time.perf_counter()
    sent = 0
    with Producer(arguments["data_dir"], acks="all", compression_type=arguments["compression"]) as producer:
        while sent < records:
            rows = min(_ROWS, records - sent)
            chosen = names[dice.integers(0, keys, rows)]
            producer.send_arrays(arguments["topic"], keys=chosen, values=values[:rows])
            sent += rows
        producer.flush()
    return {"records": sent, "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
