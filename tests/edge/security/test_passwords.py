"""The file of users."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge.security import passwords
from edge.security.passwords import Users, hash_password, read_users, remove_user, set_password
from edge.security.scram import HASHES, ITERATIONS_MIN, derive_keys
from ingest.errors import ConfigError


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "SCRYPT_N", 16)
    monkeypatch.setattr(passwords, "SCRAM_ITERATIONS", ITERATIONS_MIN)


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


HASHED = hash_password(b"one", salt=b"salt")


@pytest.mark.parametrize(
    "line",
    [
        "alice",
        "alice:",
        "alice:secret",
        "alice:scrypt$3$8$1$YQ==$YQ==",
        ":x",
        "a\x01b:x",
        f"alice:{HASHED} x",
        f"alice:{HASHED} SCRAM-SHA-256$1:YQ==$YQ==:YQ==",
    ],
)
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


def test_a_password_has_keys_of_its_own_for_each_mechanism(tmp_path: Path) -> None:
    path = tmp_path / "users"
    set_password(path, "alice", b"secret")
    users = Users(str(path))
    salts = set()
    for mechanism in HASHES:
        keys, real = users.scram_keys("alice", mechanism)
        assert real
        assert keys == derive_keys(mechanism, b"secret", keys.salt, ITERATIONS_MIN)
        salts.add(keys.salt)
    assert len(salts) == 2
    set_password(path, "alice", b"secret")
    assert users.scram_keys("alice", "SCRAM-SHA-256")[0].salt not in salts
    assert users.without_scram == []


def test_lines_from_before_there_was_scram_are_read_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"old:{HASHED}\n")
    path.chmod(0o600)
    users = Users(str(path))
    set_password(path, "new", b"secret")
    for user, password in (("old", b"one"), ("new", b"secret")):
        assert users.check(user, password)
    assert [users.scram_keys(user, "SCRAM-SHA-256")[1] for user in ("old", "new")] == [False, True]
    assert users.without_scram == ["old"]
    assert f"old:{HASHED}\n" in path.read_text()


def test_an_unknown_user_has_the_same_salt_in_every_process_and_after_every_change(tmp_path: Path) -> None:
    path = tmp_path / "users"
    set_password(path, "alice", b"secret")
    first, real = Users(str(path)).scram_keys("bob", "SCRAM-SHA-256")
    assert not real
    set_password(path, "carol", b"secret")
    users = Users(str(path))
    second, _ = users.scram_keys("bob", "SCRAM-SHA-256")
    assert (first.salt, first.iterations) == (second.salt, second.iterations)
    assert first.stored_key != second.stored_key
    others = [users.scram_keys("bob", "SCRAM-SHA-512"), users.scram_keys("dave", "SCRAM-SHA-256")]
    assert len({second.salt, *(keys.salt for keys, _ in others)}) == 3
    known, _ = users.scram_keys("alice", "SCRAM-SHA-256")
    assert [len(field) for field in known if isinstance(field, bytes)] == [
        len(field) for field in second if isinstance(field, bytes)
    ]
    assert second.iterations == known.iterations


def test_an_unknown_user_has_the_iterations_that_others_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_password(tmp_path / "users", "alice", b"secret")
    monkeypatch.setattr(passwords, "SCRAM_ITERATIONS", ITERATIONS_MIN * 2)
    assert Users(str(tmp_path / "users")).scram_keys("bob", "SCRAM-SHA-256")[0].iterations == ITERATIONS_MIN


@pytest.mark.parametrize("text", ["a\u00a0b", "\u212b", "\U0001f600", "a\x07", "\u06271"])
def test_what_clients_encode_in_different_ways_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="choose another"):
        set_password(tmp_path / "users", "alice", text.encode())
    with pytest.raises(ConfigError):
        set_password(tmp_path / "users", text, b"secret")
    set_password(tmp_path / "users", "zoë", "pässword, =2C".encode())
