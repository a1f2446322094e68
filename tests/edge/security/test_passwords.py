"""The file of users."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge.security import passwords
from edge.security.passwords import Users, read_users, remove_user, set_password
from ingest.errors import ConfigError


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "SCRYPT_N", 16)


def test_the_right_password_is_accepted_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "users"
    set_password(path, "alice", b"secret")
    users = Users(str(path))
    for _ in range(2):  # the second time from memory
        assert users.check("alice", b"secret")
        assert not users.check("alice", b"Secret")
        assert not users.check("alice", b"")
        assert not users.check("bob", b"secret")


def test_the_file_holds_no_password_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "users"
    set_password(path, "alice", b"secret")
    assert b"secret" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Users(str(path))


def test_changes_count_at_once_also_for_who_was_let_in_before(tmp_path: Path) -> None:
    path = tmp_path / "users"
    set_password(path, "alice", b"one")
    set_password(path, "bob", b"two")
    users = Users(str(path))
    assert users.check("alice", b"one")
    set_password(path, "alice", b"new")
    assert not users.check("alice", b"one")
    assert users.check("alice", b"new")
    remove_user(path, "alice")
    assert not users.check("alice", b"new")
    assert users.check("bob", b"two")


def test_a_broken_file_leaves_the_users_known_before(tmp_path: Path) -> None:
    path = tmp_path / "users"
    set_password(path, "alice", b"one")
    users = Users(str(path))
    path.write_text("nonsense\n")
    assert users.check("alice", b"one")
    assert f"{path}:1" in users.problem


@pytest.mark.parametrize("line", ["alice", "alice:secret", "alice:scrypt$3$8$1$YQ==$YQ==", ":x", "a\x01b:x"])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "users"
    path.write_text("# users\n\n" + line + "\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=":3"):
        read_users(path)


def test_parameters_that_would_eat_the_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"alice:scrypt${1 << 30}$8$1$YQ==${'A' * 43}=\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        read_users(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    set_password(tmp_path / "users", "alice", b"one")
    os.symlink(tmp_path / "users", tmp_path / "link")
    with pytest.raises(ConfigError):
        Users(str(tmp_path / "link"))


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "#a", "x" * 300])
def test_names_that_would_break_the_file_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        set_password(tmp_path / "users", name, b"x")
