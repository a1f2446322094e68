"""A password file whose hashes are quick."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.security import passwords
from edge.security.passwords import hash_password, set_password
from edge.security.scram import ITERATIONS_MIN

PASSWORDS = {"alice": "alice-secret", "bob": "bob-secret", "carol": "carol-secret", "zoë,=": "pässword, =2C"}
OLD = "from-before-scram"  # its password is the same


def make_users(path: Path) -> str:
    """Write the file; return its path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "SCRYPT_N", 16)
        patch.setattr(passwords, "SCRAM_ITERATIONS", ITERATIONS_MIN)
        path.write_text(f"{OLD}:{hash_password(OLD.encode())}\n")
        path.chmod(0o600)
        for user, password in PASSWORDS.items():
            set_password(path, user, password.encode())
    return str(path)
