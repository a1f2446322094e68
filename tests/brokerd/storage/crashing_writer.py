"""Run as a process that a test kills: append, flush, checkpoint, roll, and say after each flush what is acknowledged.

python -m tests.brokerd.storage.crashing_writer ROOT FIRST_BATCH DURABILITY; FOREBAY_FAILPOINTS kills it somewhere.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from brokerd.storage.config import LogConfig
from tests.brokerd.storage.stores import Store, make_batch


def body(number: int) -> bytes:
    """Return the body of the n-th batch, of any size, the same in both processes."""
    seed = hashlib.sha256(b"%d" % number).digest()
    return seed * (1 + seed[0])


def main() -> None:
    store = Store(Path(sys.argv[1]), LogConfig(segment_bytes=65536, durability=sys.argv[3]), reserve_bytes=65536)
    log = store.open()
    for number in range(int(sys.argv[2]), 10**6):
        log.append([make_batch(body(number), producer=(1, 0, number))], wall_ms=0)
        if number % 3 == 0:
            store.flush()
            print(number, flush=True)
        if number % 10 == 0 and store.directory is not None:
            store.directory.checkpoint()
            store.directory.maintain(number)


if __name__ == "__main__":
    main()
