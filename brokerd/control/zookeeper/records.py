"""The records in ZooKeeper: read all of them, commit changes whole.

A commit is one transaction. One too large for that goes into the journal: its parts, then a small transaction that
makes them count, then the operations in pieces. Whoever loads the records carries out what the journal still holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from brokerd.control.image import ClusterImage
from brokerd.control.records import Change, Record
from brokerd.control.stored import image_of
from brokerd.control.zookeeper.reign import Reign
from brokerd.control.zookeeper.session import Requests, Session
from brokerd.control.zookeeper.tree import (
    JOURNAL,
    RECORDS,
    Create,
    Delete,
    Journal,
    Operation,
    RecordTree,
    SetData,
    decode_journal,
    decode_value,
    encode_journal,
    request_bytes,
    split,
)
from ingest.errors import DiskFull, StorageError
from ingest.failpoints import failpoint

log = structlog.get_logger()

NODE_BYTES_MAX = 900_000  # ZooKeeper cuts the connection at a request of 1 MiB, jute.maxbuffer
_CHECKS_BYTES = 1024  # what each transaction of a controller checks


class Records:
    """What one reign reads and writes under /records and /journal. Thread: the controller's."""

    def __init__(self, session: Session, reign: Reign, request_bytes_max: int) -> None:
        self._session = session
        self._where = session.where
        self._ask = Requests(session)
        self._reign = reign
        self._request_bytes_max = request_bytes_max
        self._tree: RecordTree | None = None  # None: to be read first

    def load(self) -> ClusterImage:
        """Return all records, after what is left in the journal is carried out.

        Raises:
            Fenced, StorageError: see `MetadataStore.load`.
        """
        self._reign.check()
        self._tree = None
        if self._reign.outcome_unknown:
            self._reign.overtake()
        self._ask.sync()
        tree, records = self._read()
        if self._finish_journal(tree):
            tree, records = self._read()
        self._reign.check()
        self._tree = tree
        return image_of(self._where, records)

    def commit(self, changes: Sequence[Change]) -> None:
        """Make all changes durable, or none.

        Raises:
            Fenced, DiskFull, StorageError: see `MetadataStore.commit`.
        """
        self._reign.check()
        if self._reign.outcome_unknown:
            raise StorageError(f"{self._where}: the outcome of a commit is unknown: load again first", path=self._where)
        if self._tree is None:
            self.load()
        assert self._tree is not None
        tree, self._tree = self._tree, None  # which counts the changes done before they are
        operations = tree.plan(changes)
        for operation in operations:
            if self._bytes([operation]) > NODE_BYTES_MAX:
                raise DiskFull(
                    f"{self._where}{operation.path}: {request_bytes([operation])} bytes are more than a node may have "
                    f"({NODE_BYTES_MAX}); nothing was changed",
                    path=self._where,
                )
        if self._bytes(operations) <= self._request_bytes_max:
            failpoint("control.before_commit")
            self._reign.write(operations)
        else:
            self._write_journal(changes, operations)
        failpoint("control.after_commit")
        self._tree = tree

    def _write_journal(self, changes: Sequence[Change], operations: Sequence[Operation]) -> None:
        journal, parts = encode_journal(changes, self._request_bytes_max)
        for number, part in enumerate(parts):
            self._reign.write([Create(f"{JOURNAL}/{number}", part)])
            failpoint("zookeeper.journal_part")
        failpoint("control.before_commit")
        self._reign.write([SetData(JOURNAL, msgspec.json.encode(journal))])
        failpoint("zookeeper.journal_written")
        self._carry_out(operations, [str(number) for number in range(len(parts))])

    def _carry_out(self, operations: Sequence[Operation], parts: Sequence[str]) -> None:
        for piece in split(operations, self._request_bytes_max):
            self._reign.write(piece)
            failpoint("zookeeper.journal_piece")
        self._reign.write([SetData(JOURNAL, msgspec.json.encode(Journal())), *_deletes(parts)])

    def _finish_journal(self, tree: RecordTree) -> bool:
        """Do what the last controller could not, and say if there was any; remove parts that never came to count."""
        node, parts = self._ask.get(JOURNAL), self._ask.children(JOURNAL)
        where = f"{self._where}{JOURNAL}"
        if node is None or parts is None:
            raise StorageError(f"{where} is missing; restore it from a backup", path=where)
        try:
            journal = msgspec.json.decode(node.value, type=Journal)
        except msgspec.DecodeError as error:
            raise StorageError(f"{where} can't be read: {error}", path=where) from None
        if journal.parts:
            read = self._ask.get_all(f"{JOURNAL}/{number}" for number in range(journal.parts))
            changes = decode_journal(self._where, journal, [part.value if part is not None else b"" for part in read])
            log.warning("carrying out a commit that was left in the journal", changes=len(changes))
            self._carry_out(tree.plan(changes), parts)
        elif parts:
            self._reign.write(_deletes(parts))
        return journal.parts > 0

    def _read(self) -> tuple[RecordTree, list[Record]]:
        tree, records = RecordTree(), list[Record]()
        level = [RECORDS]
        while level:
            below: list[str] = []
            for path, node in zip(level, self._ask.get_all(level), strict=True):
                if node is None:
                    raise StorageError(f"{self._where}{path} is missing, or went as it was read", path=self._where)
                if path != RECORDS:
                    tree.add(path, is_record=bool(node.value))
                if node.value:
                    records.append(decode_value(self._where, path, node.value))
                if node.children:
                    below += [f"{path}/{name}" for name in self._ask.children(path) or []]
            level = below
        return tree, records

    def _bytes(self, operations: Sequence[Operation]) -> int:
        return _CHECKS_BYTES + request_bytes(operations) + len(operations) * len(self._session.chroot)


def _deletes(parts: Sequence[str]) -> list[Operation]:
    return [Delete(f"{JOURNAL}/{name}") for name in parts]
