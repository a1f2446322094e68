"""Ask the processes of an appliance for their stats over their control sockets, all at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from ingest.errors import ForebayError
from ingest.limits import MIB

SUFFIX = ".ctl"
ANSWER_BYTES_MAX = 32 * MIB  # 10,000 partitions are 2 MiB
_TIMEOUT_SECONDS = 1.0


class Answer(msgspec.Struct, frozen=True):
    """What a process said; `stats` is its role's Struct, not decoded yet."""

    name: str
    role: str
    pid: int
    incarnation: int
    state: str
    uptime_s: float
    stats: msgspec.Raw = msgspec.Raw(b"null")


class Silence(msgspec.Struct, frozen=True):
    """A process that did not answer, and why."""

    name: str
    reason: str


class Answers(msgspec.Struct, frozen=True):
    """What one round of asking gave."""

    processes: list[Answer]
    silent: list[Silence]


_decode = msgspec.json.Decoder(Answer).decode


async def ask_all(run_dir: Path, *, leave_out: str = "", timeout_seconds: float = _TIMEOUT_SECONDS) -> Answers:
    """Ask every process that has a control socket in `run_dir`; those that don't answer in time are listed as silent.

    Args:
        leave_out: Name of the process that asks: its own answer would wait for itself.
    """
    paths = sorted(path for path in run_dir.glob(f"*{SUFFIX}") if path.stem != leave_out)
    results = await asyncio.gather(*(_ask_or_say_why(path, timeout_seconds) for path in paths))
    return Answers(
        [result for result in results if isinstance(result, Answer)],
        [result for result in results if isinstance(result, Silence)],
    )


async def _ask_or_say_why(path: Path, timeout_seconds: float) -> Answer | Silence:
    try:
        async with asyncio.timeout(timeout_seconds):
            return await ask(path)
    except TimeoutError:
        return Silence(path.stem, f"no answer within {timeout_seconds:g} s")
    except (OSError, ForebayError, ValueError, asyncio.LimitOverrunError) as error:
        return Silence(path.stem, str(error) or type(error).__name__)


async def ask(path: Path) -> Answer:
    """Ask one process.

    Raises:
        OSError: nobody listens.
        ForebayError: what came is no answer.
    """
    reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES_MAX)
    try:
        writer.write(b"stats\n")
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
    try:
        return _decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ForebayError(f"not a control socket's answer: {error}") from None
