"""Passwords are checked one after another beside the loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from edge.security import passwords
from edge.security.guesses import FAILURES_MAX
from edge.security.logins import WAITING_MAX, Logins, Verdict
from edge.security.passwords import set_password


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(passwords, "SCRYPT_N", 16)
    monkeypatch.setattr(passwords, "SCRAM_ITERATIONS", 4096)
    set_password(tmp_path / "users", "alice", b"secret")
    return str(tmp_path / "users")


def verdicts(users: str, *tries: tuple[str, bytes]) -> list[Verdict]:
    """Return what becomes of logins that come at once."""

    async def run() -> list[Verdict]:
        logins = Logins(users, asyncio.get_running_loop(), now_ms=lambda: 0)
        try:
            return list(await asyncio.gather(*(logins.check("ip", user, password) for user, password in tries)))
        finally:
            logins.close()

    return asyncio.run(run())


def test_right_and_wrong(users: str) -> None:
    found = verdicts(users, ("alice", b"secret"), ("alice", b"wrong"), ("bob", b"secret"))
    assert found == [Verdict.RIGHT, Verdict.WRONG, Verdict.WRONG]


def test_of_many_guesses_at_once_no_more_are_told_of_than_of_many_one_by_one(users: str) -> None:
    found = verdicts(users, *[("alice", b"wrong")] * FAILURES_MAX, ("alice", b"secret"), ("alice", b"wrong"))
    assert found == [Verdict.WRONG] * FAILURES_MAX + [Verdict.GUESSING] * 2


def test_more_than_can_wait_are_sent_away(users: str) -> None:
    found = Counter(verdicts(users, *((f"user-{number}", b"wrong") for number in range(WAITING_MAX + 5))))
    assert found == {Verdict.WRONG: WAITING_MAX, Verdict.BUSY: 5}
