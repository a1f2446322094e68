"""The file of users and their password hashes, one `user:scrypt$n$r$p$salt$hash` a line.

Checked against on login; changed by `forebay gateway passwd`. The plain passwords are nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import threading
from pathlib import Path

from ingest.atomic_file import replace_file
from ingest.errors import ConfigError

SCRYPT_N = 1 << 14  # with r=8 16 MiB and some 40 ms: OWASP's floor for interactive logins of r=8, p=1 … 5
SCRYPT_R = 8
SCRYPT_P = 1
_MEMORY_MAX = 64 * 1024 * 1024
_KEY_BYTES = 32


def hash_password(password: bytes, *, salt: bytes | None = None) -> str:
    """Return the hash of a password as the file holds it. Cost: 16 MiB and some 40 ms, without the GIL."""
    salt = secrets.token_bytes(16) if salt is None else salt
    key = _scrypt(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    fields = ("scrypt", str(SCRYPT_N), str(SCRYPT_R), str(SCRYPT_P), _text(salt), _text(key))
    return "$".join(fields)


def check_password(password: bytes, hashed: str) -> bool:
    """Tell whether a password has this hash, in a time that does not depend on the answer."""
    _, n, r, p, salt, key = hashed.split("$")
    found = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(key))


def set_password(path: Path, user: str, password: bytes) -> None:
    """Add a user to the file, or change the password; the file is replaced at once, mode 0600.

    Raises:
        ConfigError: the name can't be used, or the file can't be read or written.
    """
    _check_name(user, str(path))
    users = read_users(path) if path.exists() else {}
    users[user] = hash_password(password)
    _write(path, users)


def remove_user(path: Path, user: str) -> None:
    """Take a user out of the file.

    Raises:
        ConfigError: there is no such user, or the file can't be read or written.
    """
    users = read_users(path)
    if user not in users:
        raise ConfigError(f"{path}: there is no user {user!r}")
    del users[user]
    _write(path, users)


def read_users(path: Path) -> dict[str, str]:
    """Read the file.

    Raises:
        ConfigError: it can't be read, others may read it, or a line is wrong; names the line.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"can't read the password file {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            raise ConfigError(f"{path}: others can read it; chmod 600 {path}")
        text = file.read().decode(errors="replace")
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        place = f"{path}:{number}"
        name, _, hashed = line.partition(":")
        _check_name(name, place)
        _check_hash(hashed.strip(), place)
        if name in users:
            raise ConfigError(f"{place}: user {name!r} is there twice")
        users[name] = hashed.strip()
    return users


class Users:
    """Check logins against the file, which is read again when it changes. Thread: any.

    A password that was right once is remembered as a keyed hash for as long as its line stays: a fleet that comes back
    after a cut must not wait for thousands of scrypts. A wrong one always costs a whole scrypt, known user or not.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._users = read_users(self._path)
        self._seen = self._stamp()
        self._secret = secrets.token_bytes(32)
        self._right: dict[tuple[str, str], bytes] = {}
        self._nobody = hash_password(secrets.token_bytes(16))
        self.problem = ""

    def check(self, user: str, password: bytes) -> bool:
        """Tell whether the password is the user's. Cost: some 40 ms the first time, then microseconds."""
        with self._lock:
            self._reload()
            hashed = self._users.get(user)
            known = None if hashed is None else self._right.get((user, hashed))
        tag = hmac.digest(self._secret, password, "sha256")
        if known is not None and hmac.compare_digest(known, tag):
            return True
        right = check_password(password, self._nobody if hashed is None else hashed)
        if hashed is None or not right:
            return False
        with self._lock:
            self._right[user, hashed] = tag
        return True

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_mtime_ns, status.st_ino, status.st_size)

    def _reload(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._users = read_users(self._path)
            self.problem = ""
        except ConfigError as error:  # the users read before stay; stats and log say why
            self.problem = str(error)
        self._right = {key: tag for key, tag in self._right.items() if self._users.get(key[0]) == key[1]}


def _scrypt(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=_MEMORY_MAX, dklen=_KEY_BYTES)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _check_name(name: str, place: str) -> None:
    if not name or len(name) > 256 or ":" in name or not name.isprintable() or name.startswith("#"):
        raise ConfigError(f"{place}: {name[:40]!r} can't be a user name: 1 to 256 printable characters, no ':'")


def _check_hash(hashed: str, place: str) -> None:
    fields = hashed.split("$")
    problem = ConfigError(f"{place}: expected user:scrypt$n$r$p$salt$hash, as `forebay gateway passwd` writes it")
    if len(fields) != 6 or fields[0] != "scrypt":
        raise problem
    try:
        n, r, p = (int(field) for field in fields[1:4])
        salt, key = (base64.b64decode(field, validate=True) for field in fields[4:])
    except ValueError:
        raise problem from None
    if (
        n < 2
        or n & (n - 1)
        or r < 1
        or p < 1
        or 128 * n * r * p > _MEMORY_MAX // 2
        or len(key) != _KEY_BYTES
        or not salt
    ):
        raise problem


def _write(path: Path, users: dict[str, str]) -> None:
    text = "".join(f"{name}:{hashed}\n" for name, hashed in sorted(users.items()))
    try:
        replace_file(path, text.encode(), mode=0o600)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
