"""What a log has written and not flushed yet: files, names, and where flushes under way will end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from brokerd.storage.files import File
from brokerd.storage.segment import Segment

# A flush that ends where a name was made may have been captured before; one may run and one wait, so the third was not.
_FLUSHES_CERTAIN = 3


class Unflushed:
    """Bookkeeping between an append and its flush. Thread: the owner's; no I/O.

    Attributes:
        files: Sealed files with unflushed writes, each with the offset at which it ends; they stay open.
        directories: Whose names are not durable yet: [directory, the log's end when the name was made, flushes up to
            exactly there that are done since].
        flushed_at: (segment, position) where the last flush ended; None if not known.
        size_bytes: Written since the last flush that reached the end.
        flushes: Captured, and neither done nor dropped for a later one; two may end at the same offset.
    """

    __slots__ = ("_ends", "directories", "files", "flushed_at", "flushes", "size_bytes")

    def __init__(self) -> None:
        self.files: list[tuple[File, int]] = []
        self.directories: list[tuple[Path, int, int]] = []
        self.flushed_at: tuple[int, int] | None = None
        self.size_bytes = 0
        self.flushes = 0
        self._ends: dict[int, tuple[int, int]] = {}  # where flushes under way end -> (segment, position)

    def doubt(self, segments: Sequence[Segment]) -> None:
        """Note segments that another process wrote, the last of them active: nobody knows what of them is flushed."""
        for segment, following in pairwise(segments):
            self.files.append((segment.reader(), following.base_offset))
        self.size_bytes = sum(segment.size for segment in segments)

    def add_directory(self, path: Path, end_offset: int) -> None:
        """Note that a name was made in `path`; the flush that counts for anything at `end_offset` covers it."""
        self.directories.append((path, end_offset, 0))

    def capture(self, end_offset: int, active: Segment, *, dirty: bool) -> tuple[tuple[File, ...], tuple[Path, ...]]:
        """Return the files and directories that a flush up to `end_offset`, in the active segment, must write."""
        assert active.file is not None
        files = [file for file, _ in self.files]
        if dirty or self.directories:
            files.append(active.file)
        self.flushes += 1
        self._ends[end_offset] = (active.base_offset, active.size)
        return tuple(files), tuple(dict.fromkeys(entry[0] for entry in self.directories))

    def settle(self, end_offset: int) -> list[File]:
        """Take note that a flush up to `end_offset` is done; return the sealed files that need not stay open."""
        self.flushed_at = self._ends.pop(end_offset, self.flushed_at)
        for earlier in [end for end in self._ends if end < end_offset]:
            del self._ends[earlier]
        done = [file for file, end in self.files if end <= end_offset]
        self.files = [(file, end) for file, end in self.files if end > end_offset]
        self.directories = [
            (path, at, seen + (at == end_offset))
            for path, at, seen in self.directories
            if at > end_offset or (at == end_offset and seen + 1 < _FLUSHES_CERTAIN)
        ]
        return done

    def holds(self, segment: Segment) -> bool:
        """Tell whether a sealed segment's file has unflushed writes and must stay open."""
        return any(file is segment.file for file, _ in self.files)

    def drop(self, gone: list[Segment]) -> None:
        """Forget the files of deleted segments."""
        files = {segment.file for segment in gone}
        self.files = [(file, end) for file, end in self.files if file not in files]

    def cut(self, offset: int, flushed_at: tuple[int, int] | None) -> None:
        """Forget what reached above `offset`."""
        self.files = [(file, end) for file, end in self.files if end <= offset]
        self._ends.clear()
        self.flushed_at = flushed_at
