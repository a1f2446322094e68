"""`python -m tests.simulation SEED…|FIRST-LAST`: run seeds; of a single one show what happened."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.simulation.seeds import run_one

SEEDS = "0-2000"


def main() -> int:
    seeds: list[int] = []
    for text in sys.argv[1:] or [SEEDS]:
        first, _, last = text.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    started = time.monotonic()
    total: Counter[str] = Counter()
    failed = []
    if len(seeds) == 1:
        outcomes = iter([run_one(seeds[0], show=True)])
    else:
        pool = ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn"))
        outcomes = pool.map(run_one, seeds, chunksize=10)
    for seed, failure, events in outcomes:
        total += events
        if failure:
            failed.append(seed)
            print(f"seed {seed}: {failure}", flush=True)
    print(f"{len(seeds)} seeds in {time.monotonic() - started:.1f} s, failed: {failed}; {dict(total)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
