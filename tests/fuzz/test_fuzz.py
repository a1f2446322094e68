"""Every decoder answers any bytes with a value or one of our errors, in bounded memory and time.

The quick set runs a second each; `make fuzz` (`pytest tests/fuzz --long`) half a minute each with a fresh seed, which
is printed. A failure leaves its input in a file and says how to repeat it.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.decoders import all_decoders
from tests.fuzz.harness import read_input

ROOT = Path(__file__).parents[2]
QUICK_SECONDS = 0.4
LONG_SECONDS = 30.0
NAMES = [decoder.name for decoder in all_decoders()]


@pytest.mark.parametrize("name", NAMES)
def test_any_bytes_give_a_value_or_an_error_of_ours_in_bounded_memory(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    long = request.config.getoption("--long")
    seed = random.SystemRandom().randrange(2**32) if long else 1
    seconds = LONG_SECONDS if long else QUICK_SECONDS
    kept = tmp_path / "input"
    command = [sys.executable, "-m", "tests.fuzz.harness", name, "--seed", str(seed), "--seconds", str(seconds)]
    done = subprocess.run(
        [*command, "--input", str(kept)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"},
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if done.returncode == 0:
        print(done.stdout)
        return
    saved = Path(os.environ.get("FOREBAY_FUZZ_DIR", tmp_path)) / f"{name}.input"
    if kept.exists() and saved != kept:
        shutil.copyfile(kept, saved)
    start = read_input(kept)[:200].hex() if kept.exists() else "unknown"
    pytest.fail(
        f"seed {seed}, exit code {done.returncode}; the input starts {start}\n"
        f"repeat: python -m tests.fuzz.harness {name} --repeat {saved}\n{done.stderr[-4000:]}"
    )


def test_the_harness_sees_a_wrong_error_a_slow_input_and_a_greedy_one(tmp_path: Path) -> None:
    from tests.fuzz.decoder import MIB, Decoder
    from tests.fuzz.harness import Broken, InputFile, decode_one

    kept = InputFile(tmp_path / "input")

    def wrong(data: bytes) -> object:
        raise KeyError(data)

    def greedy(data: bytes) -> object:
        return bytearray(1 << 46)

    with pytest.raises(Broken, match="KeyError"):
        decode_one(Decoder("wrong", [b""], wrong), b"abc", kept)
    assert read_input(tmp_path / "input") == b"abc"
    with pytest.raises(Broken, match="MemoryError"):
        decode_one(Decoder("greedy", [b""], greedy), b"abc", kept)
    with pytest.raises(Broken, match="took"):
        decode_one(Decoder("slow", [b""], lambda data: data, seconds_max=-1.0), b"abc", None)
    assert MIB == 1 << 20
