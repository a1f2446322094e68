"""Whose directory this is: `directory.json`, made once, checked at each open."""

from __future__ import annotations

import uuid
from pathlib import Path

import msgspec

from brokerd.storage.files import read_file
from ingest.atomic_file import replace_file
from ingest.errors import ForeignDirectory
from ingest.log.names import parse_partition_name

FORMAT = 1


class DirectoryIdentity(msgspec.Struct, frozen=True):
    """The contents of `directory.json`."""

    format: int
    directory_id: str
    cluster_id: str
    broker_id: int


def read_identity(path: Path) -> DirectoryIdentity | None:
    """Return the identity stored in a log directory, None if it has none yet.

    Raises:
        ForeignDirectory: a newer format, or not readable; nothing was changed.
    """
    data = read_file(path / "directory.json", 65536)
    if data is None:
        return None
    try:
        found = msgspec.json.decode(data)
        stored_format = found["format"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        raise ForeignDirectory(
            f"{path / 'directory.json'} can't be read: the directory may be another program's", path=path
        ) from None
    if stored_format != FORMAT:
        raise ForeignDirectory(
            f"{path} has format {stored_format}, this program reads {FORMAT}: use the newer program", path=path
        )
    try:
        return msgspec.convert(found, DirectoryIdentity)
    except msgspec.ValidationError as error:
        raise ForeignDirectory(f"{path / 'directory.json'}: {error}", path=path) from None


def check_identity(path: Path, found: DirectoryIdentity, cluster_id: str, broker_id: int) -> None:
    """Refuse a directory of another cluster or broker.

    Raises:
        ForeignDirectory: naming both.
    """
    if found.cluster_id != cluster_id:
        raise ForeignDirectory(f"{path} belongs to cluster {found.cluster_id}, not {cluster_id}", path=path)
    if found.broker_id != broker_id:
        raise ForeignDirectory(f"{path} belongs to broker {found.broker_id}, not {broker_id}", path=path)


def check_new(path: Path) -> None:
    """Refuse a directory that holds partitions but no identity: as a new one it would count as an empty replica.

    Raises:
        ForeignDirectory: naming the missing file.
    """
    if any(parse_partition_name(entry.name) for entry in path.iterdir()):
        raise ForeignDirectory(f"{path / 'directory.json'} is missing, though there are partitions", path=path)


def write_identity(path: Path, cluster_id: str, broker_id: int, mode: int) -> DirectoryIdentity:
    """Give a new directory its identity, durably."""
    identity = DirectoryIdentity(FORMAT, str(uuid.uuid4()), cluster_id, broker_id)
    replace_file(path / "directory.json", msgspec.json.encode(identity), mode=mode)
    return identity
