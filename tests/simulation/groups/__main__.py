"""`python -m tests.simulation.groups SEED…|FIRST-LAST`: run seeds; of a single one show what happened."""

from __future__ import annotations

import sys
import time
from collections import Counter

from tests.simulation.groups.seeds import run_one


def main() -> int:
    seeds: list[int] = []
    for text in sys.argv[1:] or ["0-300"]:
        first, _, last = text.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    started = time.monotonic()
    total: Counter[str] = Counter()
    failed = []
    for seed in seeds:
        _, failure, events = run_one(seed, show=len(seeds) == 1)
        total += events
        if failure:
            failed.append(seed)
            print(f"seed {seed}: {failure}", flush=True)
    print(f"{len(seeds)} seeds in {time.monotonic() - started:.1f} s, failed: {failed}; {dict(total)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
