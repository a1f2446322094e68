"""Logins of a gateway's clients: passwords are checked beside the loop, and who guesses is not looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import structlog

from edge.security.guesses import Guesses
from edge.security.passwords import Users
from edge.security.scram import ScramKeys

WAITING_MAX = 1000  # some 40 s of scrypt

_log = structlog.get_logger("edge")


class Verdict(Enum):
    """What became of a login."""

    RIGHT = "right"
    WRONG = "wrong user name or password"
    GUESSING = "too many wrong passwords; wait a minute"
    BUSY = "too many logins at once"


class Logins:
    """Check logins against a password file. Thread: the gateway's loop; one more computes password hashes.

    Raises:
        ConfigError: the file can't be read, others may read it, or a line is wrong.
    """

    def __init__(self, password_file: str, loop: asyncio.AbstractEventLoop, *, now_ms: Callable[[], int]) -> None:
        self._loop = loop
        self._now_ms = now_ms
        self._users = Users(password_file)
        self._guesses = Guesses()
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="password")
        self._waiting = 0

    async def check(self, ip: str, user: str, password: bytes) -> Verdict:
        """Tell whether a password is the user's; a wrong one is remembered. Cost: some 40 ms of another thread."""
        if self.is_guessing(ip, user):
            return Verdict.GUESSING
        if self._waiting >= WAITING_MAX:
            return Verdict.BUSY
        self._waiting += 1
        try:
            right = await self._loop.run_in_executor(self._hashing, self._users.check, user, password)
        finally:
            self._waiting -= 1
        if self.is_guessing(ip, user):  # by now: of many guesses at once none more is told of either
            return Verdict.GUESSING
        if right:
            return Verdict.RIGHT
        self.failed(ip, user)
        return Verdict.WRONG

    async def scram_keys(self, user: str, mechanism: str) -> tuple[ScramKeys, bool]:
        """Return what is stored of a user's password for SCRAM, and whether it is real. Cost: in another thread."""
        return await self._loop.run_in_executor(None, self._users.scram_keys, user, mechanism)

    def warn_of_missing_keys(self) -> None:
        """Say it if there are users who can't log in by SCRAM."""
        if users := self._users.without_scram:
            why = "no login by SCRAM until the password is set anew: forebay gateway passwd"
            _log.warning(why, users=users[:20], count=len(users))

    def is_guessing(self, ip: str, user: str) -> bool:
        """Tell whether an address had too many wrong passwords for a user lately."""
        return self._guesses.too_many(ip, user, self._now_ms())

    def failed(self, ip: str, user: str) -> None:
        """Remember a login that failed."""
        self._guesses.failed(ip, user, self._now_ms())

    def tick(self) -> None:
        """Say it if the file changed and could not be read again."""
        if self._users.problem:
            _log.error("password file not reloaded", problem=self._users.problem)
            self._users.problem = ""

    def close(self) -> None:
        """Check no more passwords."""
        self._hashing.shutdown(wait=False, cancel_futures=True)
