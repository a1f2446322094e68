"""What is SQLite's and flock's own in the embedded store: files, their damage, a full disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokerd.control.records import encode_record
from ingest.errors import ForeignDirectory, StorageError
from tests.brokerd.control.harness import CLUSTER_ID, Candidate, open_store
from tests.brokerd.control.test_store import RECORDS, ROOT, contents
from tests.processes import Processes


def open_candidate(directory: Path, cluster_id: str = CLUSTER_ID) -> Candidate:
    return Candidate(open_store(f"embedded:{directory}", cluster_id=cluster_id))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "controller"


@pytest.fixture
def active(directory: Path) -> Iterator[Candidate]:
    candidate = open_candidate(directory)
    candidate.win()
    yield candidate
    candidate.store.resign()


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name.startswith("meta.db")}


# ---- whose file ------------------------------------------------------------------------------------------------------


@pytest.fixture
def used(directory: Path) -> Path:
    """A directory left by a controller that was killed: its last commits are in the log only."""
    candidate = open_candidate(directory)
    candidate.win()
    candidate.put(*RECORDS)
    aside = directory.with_name("killed")
    shutil.copytree(directory, aside)
    candidate.store.resign()
    shutil.rmtree(directory)
    aside.rename(directory)
    assert (directory / "meta.db-wal").stat().st_size > 0
    return directory


def test_a_killed_controllers_commits_are_there(used: Path) -> None:
    candidate = open_candidate(used)
    assert contents(candidate.win()) == {encode_record(record) for record in RECORDS}
    candidate.store.resign()


def test_a_killed_controllers_store_is_refused_to_another_cluster_and_not_touched(used: Path) -> None:
    before = files(used)
    with pytest.raises(ForeignDirectory, match="belongs to cluster test-cluster, not to another"):
        open_candidate(used, "another").win()
    assert files(used) == before


def test_a_missing_store_in_a_used_directory_is_no_new_cluster(used: Path) -> None:
    (used / "meta.db").unlink()
    with pytest.raises(StorageError, match=r"meta\.db is missing"):
        open_candidate(used).win()
    (used / "meta.db-wal").unlink()
    with pytest.raises(StorageError, match=r"meta\.db is missing"):
        open_candidate(used).win()
    assert not (used / "meta.db").exists()


def test_half_a_new_store_is_made_anew(directory: Path) -> None:
    directory.mkdir()
    (directory / "meta.db.new").write_bytes(b"half")
    candidate = open_candidate(directory)
    candidate.win()
    candidate.store.resign()
    assert not (directory / "meta.db.new").exists()


def test_files_are_the_services_alone(active: Candidate, directory: Path) -> None:
    assert directory.stat().st_mode & 0o077 == 0
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_directory_that_can_not_be_made_is_a_plain_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        open_candidate(tmp_path / "file" / "controller").win()


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_found_or_harmless(directory: Path, tmp_path: Path) -> None:
    candidate = open_candidate(directory)
    candidate.win()
    candidate.put(*RECORDS)
    candidate.store.resign()
    expected = {encode_record(record) for record in RECORDS}
    whole = (directory / "meta.db").read_bytes()
    assert not (directory / "meta.db-wal").exists()
    refusals = []
    for position in range(0, len(whole), 89):
        copy = tmp_path / "copy"
        copy.mkdir()
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        (copy / "meta.db").write_bytes(damaged)
        other = open_candidate(copy)
        try:
            assert contents(other.win()) == expected, f"byte {position}"
        except StorageError as error:
            refusals.append(str(error))
        finally:
            other.store.resign()
        shutil.rmtree(copy)
    assert len(refusals) > 10
    assert all("meta.db" in refusal for refusal in refusals)


@pytest.mark.parametrize("keep", [0, 1, 100, 4096, 6000])
def test_a_cut_file_is_refused(directory: Path, keep: int) -> None:
    candidate = open_candidate(directory)
    candidate.win()
    candidate.put(*RECORDS)
    candidate.store.resign()
    os.truncate(directory / "meta.db", keep)
    with pytest.raises(StorageError, match=r"meta\.db"):
        open_candidate(directory).win()


# ---- election --------------------------------------------------------------------------------------------------------


def test_a_replaced_lock_file_is_noticed(active: Candidate, directory: Path) -> None:
    standby = open_candidate(directory)
    errors: list[StorageError] = []

    def wait() -> None:
        try:
            standby.win()
        except StorageError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    standby.wait_beats(1)
    (directory / "lock").rename(directory / "lock.old")
    (directory / "lock").write_text("")
    active.store.resign()
    thread.join(5)
    assert "was replaced" in str(errors[0])


# ---- killed and full -------------------------------------------------------------------------------------------------


@pytest.mark.needs("tmpfs_mount")
def test_a_full_disk_refuses_cleanly_and_recovers(tmp_path: Path, processes: Processes) -> None:
    script = (
        f"mount -t tmpfs -o size=6m none {tmp_path} && "
        f"exec {sys.executable} -m tests.brokerd.control.candidate full {tmp_path}"
    )
    child = processes.start(
        ["unshare", "-m", "sh", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = child.communicate(timeout=30)
    assert out.endswith(b"ok\n"), (out, err)
