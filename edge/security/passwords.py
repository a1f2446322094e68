"""The file of users and what is stored of their passwords, a line each:

    user:scrypt$n$r$p$salt$hash SCRAM-SHA-256$iterations:salt$key:key SCRAM-SHA-512$iterations:salt$key:key

Checked against on login; changed by `forebay gateway passwd`. The plain passwords are nowhere. Lines of before there
was SCRAM end after the hash. One comment is read: the secret of which unknown users' salts are made.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edge.security.saslprep import SaslError, saslprep
from edge.security.scram import HASHES, ScramKeys, decode_keys, derive_keys, encode_keys
from ingest.atomic_file import replace_file
from ingest.errors import ConfigError

SCRYPT_N = 1 << 14  # with r=8 16 MiB and some 40 ms: OWASP's floor for interactive logins of r=8, p=1 … 5
SCRYPT_R = 8
SCRYPT_P = 1
SCRAM_ITERATIONS = 1 << 14  # a client computes them at every connection, some 50 ms; Kafka's default is 4096
_MEMORY_MAX = 64 * 1024 * 1024
_KEY_BYTES = 32
_SALT_BYTES = 16
_SECRET = "# what unknown users' salts are made of: "


class User(NamedTuple):
    """What is stored of a password.

    Attributes:
        hashed: By scrypt.
        scram: By mechanism; empty: from before there was SCRAM.
    """

    hashed: str
    scram: Mapping[str, ScramKeys] = {}


class UserFile(NamedTuple):
    """What the file holds; of `secret` the salts of unknown users are made, who have as many `iterations` as most."""

    users: dict[str, User]
    secret: str
    iterations: int

    def made_up_keys(self, user: str, mechanism: str) -> ScramKeys:
        """Return what a user who can't log in is given: the same salt each time."""
        salt = hmac.digest(self.secret.encode(), f"{mechanism}:{user}".encode(), "sha256")[:_SALT_BYTES]
        size = hashlib.new(HASHES[mechanism]).digest_size
        return ScramKeys(salt, self.iterations, secrets.token_bytes(size), secrets.token_bytes(size))


def hash_password(password: bytes, *, salt: bytes | None = None) -> str:
    """Return the hash of a password as the file holds it. Cost: 16 MiB and some 40 ms, without the GIL."""
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
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
        ConfigError: the name or the password can't be used, or the file can't be read or written.
    """
    _check_name(user, str(path))
    _check_prepared(f"the name {user!r}", user.encode())
    _check_prepared("the password", password)
    file = read_users(path) if path.exists() else UserFile({}, secrets.token_hex(), SCRAM_ITERATIONS)
    keys = {
        mechanism: derive_keys(mechanism, password, secrets.token_bytes(_SALT_BYTES), SCRAM_ITERATIONS)
        for mechanism in HASHES
    }
    file.users[user] = User(hash_password(password), keys)
    _write(path, file)


def remove_user(path: Path, user: str) -> None:
    """Take a user out of the file.

    Raises:
        ConfigError: there is no such user, or the file can't be read or written.
    """
    file = read_users(path)
    if user not in file.users:
        raise ConfigError(f"{path}: there is no user {user!r}")
    del file.users[user]
    _write(path, file)


def read_users(path: Path) -> UserFile:
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
    users: dict[str, User] = {}
    secret = secrets.token_hex()  # unless there is one; where there is none no user has keys either
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(_SECRET):
            secret = line.removeprefix(_SECRET).strip()
        if not line.strip() or line.startswith("#"):
            continue
        place = f"{path}:{number}"
        name, _, stored = line.partition(":")
        _check_name(name, place)
        hashed, *keys = stored.split() or [""]
        _check_hash(hashed, place)
        if name in users:
            raise ConfigError(f"{place}: user {name!r} is there twice")
        try:
            users[name] = User(hashed, dict(map(decode_keys, keys)))
        except ValueError:
            raise _no_user_line(place) from None
    counts = Counter(keys.iterations for user in users.values() for keys in user.scram.values())
    return UserFile(users, secret, counts.most_common(1)[0][0] if counts else SCRAM_ITERATIONS)


class Users:
    """Check logins against the file, which is read again when it changes. Thread: any.

    A password that was right once is remembered as a keyed hash for as long as its line stays: a fleet that comes back
    after a cut must not wait for thousands of scrypts. A wrong one always costs a whole scrypt, known user or not.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._file = read_users(self._path)
        self._seen = self._stamp()
        self._secret = secrets.token_bytes(32)
        self._right: dict[tuple[str, str], bytes] = {}
        self._nobody = hash_password(secrets.token_bytes(16))
        self.problem = ""

    def check(self, user: str, password: bytes) -> bool:
        """Tell whether the password is the user's. Cost: some 40 ms the first time, then microseconds."""
        with self._lock:
            self._reload()
            found = self._file.users.get(user)
            hashed = found.hashed if found else None
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

    def scram_keys(self, user: str, mechanism: str) -> tuple[ScramKeys, bool]:
        """Return what is stored of a user's password for SCRAM, and whether it is real.

        Who has nothing there gets keys that no proof fits and that look like others', so that nobody learns who exists.
        Cost: microseconds, unless the file is read again.
        """
        with self._lock:
            self._reload()
            file = self._file
        made_up, found = file.made_up_keys(user, mechanism), file.users.get(user)
        keys = found.scram.get(mechanism) if found else None
        return (made_up, False) if keys is None else (keys, True)

    @property
    def without_scram(self) -> list[str]:
        """Return the users whose lines are from before there was SCRAM."""
        return [name for name, user in self._file.users.items() if not user.scram]

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
            self._file = read_users(self._path)
            self.problem = ""
        except ConfigError as error:  # the users read before stay; stats and log say why
            self.problem = str(error)
        now = {(name, user.hashed) for name, user in self._file.users.items()}
        self._right = {key: tag for key, tag in self._right.items() if key in now}


def _scrypt(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=_MEMORY_MAX, dklen=_KEY_BYTES)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _check_name(name: str, place: str) -> None:
    if not name or len(name) > 256 or ":" in name or not name.isprintable() or name.startswith("#"):
        raise ConfigError(f"{place}: {name[:40]!r} can't be a user name: 1 to 256 printable characters, no ':'")


def _check_prepared(what: str, text: bytes) -> None:
    """Refuse what clients with and without SASLprep encode in different ways: one half could not log in by SCRAM."""
    try:
        if saslprep(text.decode()).encode() == text:
            return
        problem = "characters that SASLprep replaces"
    except UnicodeDecodeError:
        problem = "bytes that are no UTF-8"
    except SaslError as error:
        problem = str(error)
    raise ConfigError(f"{what} has {problem}: not all clients could log in with it; choose another")


def _no_user_line(place: str) -> ConfigError:
    return ConfigError(f"{place}: expected user:scrypt$n$r$p$salt$hash …, as `forebay gateway passwd` writes it")


def _check_hash(hashed: str, place: str) -> None:
    fields = hashed.split("$")
    problem = _no_user_line(place)
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


def _write(path: Path, file: UserFile) -> None:
    text = f"{_SECRET}{file.secret}\n"
    for name, user in sorted(file.users.items()):
        stored = [user.hashed, *(encode_keys(mechanism, keys) for mechanism, keys in user.scram.items())]
        text += f"{name}:{' '.join(stored)}\n"
    try:
        replace_file(path, text.encode(), mode=0o600)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
