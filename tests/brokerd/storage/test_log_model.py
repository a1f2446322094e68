"""A log under any order of calls behaves like a list."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from brokerd.storage.config import LogConfig
from ingest.log.reader import LocalLog
from tests.brokerd.storage.stores import TOPIC, Store, make_batch, stored


class LogAsList(RuleBasedStateMachine):
    """The model: a list of (base offset, next offset, body), a start, and marks that never go back."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.model: list[tuple[int, int, bytes]] = []
        self.start = self.end = self.mark = self.number = self.boot_ms = 0

    @initialize(interval=st.sampled_from([0, 4096, 1 << 20]), segment_bytes=st.sampled_from([16384, 65536]))
    def begin(self, interval: int, segment_bytes: int) -> None:
        config = LogConfig(segment_bytes=segment_bytes, index_interval_bytes=interval)
        self.store = Store(self.root / "store", config, reserve_bytes=4096)
        self.log = self.store.open()

    @rule(sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=4), count=st.integers(1, 5))
    def append(self, sizes: list[int], count: int) -> None:
        batches = []
        for size in sizes:
            self.number += 1
            body = self.number.to_bytes(4, "little") * (size // 4 + 1)
            batches.append(make_batch(body, count, timestamp_ms=self.number))
            self.model.append((self.end, self.end + count, body))
            self.end += count
        self.log.append(batches, wall_ms=0)

    @rule()
    def flush(self) -> None:
        self.store.flush()
        self.mark = self.end

    @rule()
    def checkpoint(self) -> None:
        assert self.store.directory is not None
        self.store.directory.checkpoint()

    @rule()
    def maintain(self) -> None:
        assert self.store.directory is not None
        self.boot_ms += 1000
        self.store.directory.maintain(self.boot_ms)

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        if clean:
            self.store.close()
        else:
            self.store.kill()
        self.log = self.store.open()

    @rule(hint=st.sampled_from(["*.index", "*.timeindex", "*.snapshot", "../checkpoint"]))
    def lose_hints(self, hint: str) -> None:
        self.store.kill()
        for path in self.store.partition_path.glob(hint):
            path.unlink()
        self.log = self.store.open()

    @rule(data=st.data())
    def delete_records(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(self.start, max(self.start, self.mark)))
        self.log.delete_records(offset)
        self.start = max(self.start, offset)
        self.model = [item for item in self.model if item[1] > self.start]

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        low = max(self.start, self.mark)
        offset = data.draw(st.integers(low, self.end)) if low <= self.end else self.end
        self.log.truncate_to(offset)
        dropped = [item for item in self.model if item[1] > offset]
        self.model = [item for item in self.model if item[1] <= offset]
        self.end = dropped[0][0] if dropped else self.end

    @invariant()
    def reads_like_the_list(self) -> None:
        if not hasattr(self, "log"):
            return
        log = self.log
        assert (log.start_offset, log.end_offset) == (self.start, self.end)
        assert self.mark <= log.high_watermark <= log.end_offset
        found = [(header.base_offset, header.next_offset, body) for header, body in stored(log)]
        assert found == self.model
        if self.model:
            base, _, body = self.model[len(self.model) // 2]
            at = max(base, self.start)
            assert stored(log, at, 1)[0][1] == body
            stamp = int.from_bytes(body[:4], "little")
            assert log.offset_for_time(stamp, end=log.end_offset) == (base, stamp)
        self._compare_with_the_map()

    def _compare_with_the_map(self) -> None:
        log = self.log
        reader = LocalLog(self.store.path, self.store.page_path, log.row, TOPIC, 0)
        offset, found = self.start, []
        while batches := reader.read(offset, 20_000):
            found += [(header.base_offset, header.next_offset, bytes(batch[96:])) for header, batch in batches]
            offset = found[-1][1]
        assert found == [item for item in self.model if item[0] < log.high_watermark]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        shutil.rmtree(self.root)


TestLogAsList = LogAsList.TestCase
TestLogAsList.settings = settings(max_examples=80, stateful_step_count=25)
