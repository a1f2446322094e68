"""Control sockets: answers of the living, reasons for the silent, and never a wait for a hung one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from ops.metrics.control_socket import ask_all

ANSWER = (
    b'{"name":"broker-1","role":"broker","pid":5,"incarnation":9,"state":"running","uptime_s":1.5,"stats":{"a":1}}\n'
)


@contextlib.asynccontextmanager
async def serving(path: Path, answer: bytes | None) -> AsyncIterator[None]:
    async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"stats\n"
        if answer is None:
            await reader.read()  # hung: answers nothing until the other gives up
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer_one, path)
    try:
        yield
    finally:
        server.close()


def test_the_living_answer_and_the_silent_are_named_with_a_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "dead.ctl").touch()
        async with (
            serving(tmp_path / "broker-1.ctl", ANSWER),
            serving(tmp_path / "hung.ctl", None),
            serving(tmp_path / "garbled.ctl", b"{]\n"),
            serving(tmp_path / "cut.ctl", b""),
            serving(tmp_path / "monitor.ctl", b"not asked"),
        ):
            answers = await ask_all(tmp_path, leave_out="monitor", timeout_seconds=1.5)
        (broker,) = answers.processes
        assert (broker.name, broker.pid, broker.incarnation) == ("broker-1", 5, 9)
        assert msgspec.json.decode(broker.stats) == {"a": 1}
        assert {silence.name for silence in answers.silent} == {"cut", "dead", "garbled", "hung"}
        assert all(silence.reason for silence in answers.silent)

    asyncio.run(scenario())


def test_an_empty_or_absent_directory_gives_nothing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        answers = asyncio.run(ask_all(path))
        assert (answers.processes, answers.silent) == ([], [])
