"""The embedded metadata store: one SQLite file, opened by the controller alone, election by flock.

meta.db holds two tables. `identity` has one row, written when the file is made and never again, so that it can be read
without a lock, a log or a trace: whose cluster, which format. `nodes` has one row a record: its path, its value as
JSON, and a CRC-32C over both, because SQLite itself would not notice a flipped bit in a value.

The journal is a write-ahead log with synchronous=FULL: a commit has been through fdatasync before it is answered. With
NORMAL a power cut could take back an epoch that a broker already wrote under. locking_mode=EXCLUSIVE keeps SQLite's
index of the log in our memory: there is no -shm file to map, and no other process can open the file beside us.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from brokerd.control.image import ClusterImage
from brokerd.control.lock import IN_ZOOKEEPER, ControllerLock
from brokerd.control.records import Change, Put, encode_record
from brokerd.control.stored import check_value, checksum, decode_stored, image_of
from ingest.errors import DiskFull, Fenced, ForeignDirectory, StorageError
from ingest.failpoints import failpoint
from ingest.wire.codes import ErrorCode

APPLICATION_ID = 0x46424D44  # "FBMD", in SQLite's own header: `file meta.db` shows it
FORMAT = 1
WAL_PAGES = 256  # checkpointed at 1 MiB, then reused in place: commits take no new space
RESERVE_BYTES = 1 << 20  # given up first on a full disk, so that topics can be deleted and brokers can come back
_EPOCH_PATH = "/controller_epoch"


class EmbeddedStore:
    """The records of one cluster in <directory>/meta.db. Thread: the controller's."""

    def __init__(self, directory: str | os.PathLike[str], *, cluster_id: str) -> None:
        self._directory = Path(directory)
        self._path = self._directory / "meta.db"
        self._reserve = self._directory / "reserve"
        self._cluster_id = cluster_id
        self._lock = ControllerLock(self._directory / "lock")
        self._db: sqlite3.Connection | None = None

    def campaign(self, stop_fd: int, beat: Callable[[], None]) -> int | None:
        """Wait for the lock, then open the file and raise the controller epoch. See `MetadataStore.campaign`."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self._directory}: {error.strerror}", path=self._directory) from None
        if not self._lock.acquire(stop_fd, beat):
            return None
        try:
            self._create_if_new()
            self._drop_cached()
            self._check_identity()
            self._open()
            epoch = self._read_epoch() + 1
            # its fdatasync also covers what a predecessor wrote and was killed before it could sync
            self._write([(_EPOCH_PATH, str(epoch).encode())], [])
        except BaseException:
            self.resign()
            raise
        self._lock.note(f"cluster {self._cluster_id} controller epoch {epoch} pid {os.getpid()}")
        return epoch

    def load(self) -> ClusterImage:
        """Return all records; each one's checksum is verified. Cost: about 1 ms per 100 records."""
        records = []
        for path, value, crc in self._query("SELECT path, value, crc FROM nodes ORDER BY path"):
            check_value(self._path, path, value, crc)
            if path != _EPOCH_PATH:
                records.append(decode_stored(self._path, path, value))
        return image_of(self._path, records)

    def commit(self, changes: Sequence[Change], *, controller_epoch: int) -> None:
        """Write one transaction. Cost: one fdatasync; 1,000 partitions in about 10 ms."""
        puts = [(c.record.path, encode_record(c.record)) for c in changes if isinstance(c, Put)]
        removed = [(c.record.path,) for c in changes if not isinstance(c, Put)]
        self._write(puts, removed, controller_epoch)

    def check(self) -> None:
        """Return: no one else can be the controller while this process holds the lock."""

    def absent(self, broker_ids: Iterable[int]) -> set[int]:
        """Return none: there are no other machines."""
        return set()

    def resign(self) -> None:
        """Close the file, then free the lock."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        self._lock.release()

    def close(self) -> None:
        """Resign."""
        self.resign()

    # ---- the file ----------------------------------------------------------------------------------------------------

    def _create_if_new(self) -> None:
        """Make the file under another name and rename it, so that no crash leaves half of one."""
        if self._path.exists():
            return
        left_over = [name for name in ("meta.db-wal", "meta.db-journal") if (self._directory / name).exists()]
        noted = self._lock.noted()
        if IN_ZOOKEEPER in noted:
            raise StorageError(
                f"{self._directory} belongs to {noted}: give its address with --zookeeper", path=self._path
            )
        if left_over or noted:
            raise StorageError(
                f"{self._path} is missing, though this cluster has used it; put it back from a backup, or remove "
                f"{self._directory} to begin with no topics",
                path=self._path,
            )
        new = self._directory / "meta.db.new"
        new.unlink(missing_ok=True)
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        with self._mapped_errors(), contextlib.closing(sqlite3.connect(new, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = OFF")  # nobody has seen it before the fsync and the rename below
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("BEGIN")
            db.execute("CREATE TABLE identity (cluster_id TEXT NOT NULL)")
            db.execute("CREATE TABLE nodes (path TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL)")
            db.execute("INSERT INTO identity VALUES (?)", (self._cluster_id,))
            db.execute("COMMIT")
        _fsync(new)
        os.rename(new, self._path)
        _fsync(self._directory)

    def _drop_cached(self) -> None:
        """Have the device say what it holds: after a failed fdatasync the cache shows as clean what is lost."""
        for path in (self._path, self._directory / "meta.db-wal"):
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(fd)

    def _check_identity(self) -> None:
        """Refuse another's or a newer file. `immutable` reads without lock, log or write: the file stays as it was."""
        uri = f"{self._path.absolute().as_uri()}?mode=ro&immutable=1"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
                application_id = db.execute("PRAGMA application_id").fetchone()[0]
                file_format = db.execute("PRAGMA user_version").fetchone()[0]
                if application_id == APPLICATION_ID and file_format == FORMAT:
                    row = db.execute("SELECT cluster_id FROM identity").fetchone()
        except sqlite3.Error as error:
            raise StorageError(f"{self._path} is damaged or no database: {error}", path=self._path) from None
        if application_id != APPLICATION_ID:
            raise ForeignDirectory(f"{self._path} is not a Forebay metadata store", path=self._path)
        if file_format > FORMAT:
            raise ForeignDirectory(
                f"{self._path} has format {file_format}; this version reads up to {FORMAT}: use a newer forebay",
                path=self._path,
            )
        if row is None or row[0] != self._cluster_id:
            other = "no cluster" if row is None else f"cluster {row[0]}"
            raise ForeignDirectory(f"{self._path} belongs to {other}, not to {self._cluster_id}", path=self._path)

    def _open(self) -> None:
        with self._mapped_errors():
            self._db = db = sqlite3.connect(self._path, isolation_level=None, timeout=1.0)
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            assert mode == "wal", f"journal mode {mode}"
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StorageError(f"{self._path} is damaged: {verdict}", path=self._path)
        self._keep_reserve()

    def _read_epoch(self) -> int:
        for path, value, crc in self._query("SELECT path, value, crc FROM nodes WHERE path = ?", (_EPOCH_PATH,)):
            check_value(self._path, path, value, crc)
            return int(value)
        return 0

    def _write(
        self, puts: Sequence[tuple[str, bytes]], removed: Sequence[tuple[str]], controller_epoch: int | None = None
    ) -> None:
        try:
            self._transaction(puts, removed, controller_epoch)
        except DiskFull:
            if not self._reserve.exists():
                raise
            self._reserve.unlink()
            self._transaction(puts, removed, controller_epoch)
        else:
            self._keep_reserve()

    def _transaction(
        self, puts: Sequence[tuple[str, bytes]], removed: Sequence[tuple[str]], controller_epoch: int | None
    ) -> None:
        db = self._db
        if db is None:
            raise Fenced("this controller has resigned", code=ErrorCode.STALE_CONTROLLER_EPOCH)
        rows = [(path, value, checksum(path, value)) for path, value in puts]
        with self._mapped_errors():
            db.execute("BEGIN IMMEDIATE")
            try:
                if controller_epoch is not None:
                    self._fence(controller_epoch)
                db.executemany("DELETE FROM nodes WHERE path = ?", removed)
                db.executemany("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?)", rows)
                failpoint("control.before_commit")
                db.execute("COMMIT")
                failpoint("control.after_commit")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _fence(self, controller_epoch: int) -> None:
        current = self._read_epoch()
        if current != controller_epoch:
            raise Fenced(
                f"controller epoch {controller_epoch} is over, {current} has begun",
                code=ErrorCode.STALE_CONTROLLER_EPOCH,
            )

    def _query(self, sql: str, parameters: tuple[str, ...] = ()) -> list[tuple[str, bytes, int]]:
        assert self._db is not None, "campaign first"
        with self._mapped_errors():
            return self._db.execute(sql, parameters).fetchall()

    def _keep_reserve(self) -> None:
        """Take the reserve if it is not there; a full disk has none until space is freed."""
        if self._reserve.exists():
            return
        fd = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError:
            self._reserve.unlink()
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name == "SQLITE_FULL":
                raise DiskFull(f"{self._path}: the disk is full; nothing was changed", path=self._path) from error
            raise StorageError(f"{self._path}: {error} ({name or 'sqlite'})", path=self._path) from error


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
