"""Run one decoder over changed inputs, in a process of its own under a memory ceiling.

    python -m tests.fuzz.harness NAME --seed N --seconds S --input FILE

FILE always holds the input being decoded, so that it is there after a crash of the process. Ends with one line of
JSON; exit code 1 says that the promise was broken, and how. `--repeat FILE` decodes that one input only.
"""

from __future__ import annotations

import argparse
import json
import mmap
import random
import resource
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz.decoder import MIB, Decoder
from tests.fuzz.decoders import find_decoder
from tests.fuzz.mutate import mutate

ADDRESS_SPACE_MARGIN = 512 * MIB  # beyond what is mapped at the start: a lie about sizes becomes a MemoryError
_INPUT_BYTES_MAX = 80 * MIB


class Broken(Exception):
    """The decoder broke its promise."""


class InputFile:
    """Keep the current input in a file that outlives a crash: a length and the bytes, in a shared mapping."""

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(8 + _INPUT_BYTES_MAX)
            self._map = mmap.mmap(file.fileno(), 0)

    def keep(self, data: bytes) -> None:
        self._map[:8] = len(data).to_bytes(8, "little")
        self._map[8 : 8 + len(data)] = data


def read_input(path: Path) -> bytes:
    """Return the input that a run left behind."""
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


def peak_rss_bytes() -> int:
    """Return the peak memory of this process since its start."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def decode_one(decoder: Decoder, data: bytes, kept: InputFile | None) -> bool:
    """Decode one input; return whether it was taken.

    Raises:
        Broken: another error than those promised, or too slow.
    """
    if kept is not None:
        kept.keep(data)
    start = time.perf_counter()
    taken = True
    try:
        decoder.decode(data)
    except decoder.errors:
        taken = False
    except Exception as error:
        raise Broken(f"raised {type(error).__name__}: {error}\n{traceback.format_exc()}") from None
    seconds = time.perf_counter() - start
    if seconds > decoder.seconds_max:
        raise Broken(f"took {seconds:.1f} s > {decoder.seconds_max} s")
    return taken


def limit_memory() -> None:
    """Let this process map no more than the margin beyond what it has mapped now."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = mapped + ADDRESS_SPACE_MARGIN
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def run(decoder: Decoder, seed: int, seconds: float, kept: InputFile) -> dict[str, int | str]:
    """Decode the corpus, the bombs, then changed inputs until the time is over."""
    bombs = decoder.bombs()
    for data in decoder.corpus:
        if not decode_one(decoder, data, kept):
            raise Broken(f"refused a valid input of its corpus: {data[:64].hex()}")
    limit_memory()
    start_rss = peak_rss_bytes()
    for data in bombs:
        decode_one(decoder, data, kept)
    dice = random.Random(seed)
    count = taken = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(50):
            count += 1
            taken += decode_one(decoder, mutate(decoder.corpus, dice), kept)
    growth = peak_rss_bytes() - start_rss
    if growth > decoder.rss_bytes_max:
        raise Broken(f"grew by {growth // MIB} MiB > {decoder.rss_bytes_max // MIB} MiB")
    return {"name": decoder.name, "inputs": count, "taken": taken, "growth_bytes": growth}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--repeat", type=Path)
    options = parser.parse_args()
    decoder = find_decoder(options.name)
    try:
        if options.repeat:
            print(json.dumps({"taken": decode_one(decoder, read_input(options.repeat), None)}))
        else:
            print(json.dumps(run(decoder, options.seed, options.seconds, InputFile(options.input))))
    except Broken as broken:
        print(f"{decoder.name}: {broken}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
