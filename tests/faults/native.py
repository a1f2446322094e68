"""Native producers under a fault run: acks=all, idempotent, each record sent once and expected once."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType

from ingest.errors import ForebayError, RemoteError
from ingest.producer import Delivery, Producer
from tests.faults.history import History

FIRST_SOURCE = 1000  # devices are numbered from 0


class NativeProducer:
    """One producer in a thread that sends at a steady pace; its records are a source of the history.

    Args:
        source: From FIRST_SOURCE on; also its key, so all of it goes to one partition.
    """

    def __init__(self, history: History, bootstrap: str, topic: str, *, source: int, per_s: int = 100) -> None:
        assert source >= FIRST_SOURCE
        self._history = history
        self._topic = topic
        self.source = source
        self._pause_s = 1 / per_s
        self._producer = Producer(bootstrap, acks="all", client_id=f"native-{source}")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"native-{source}", daemon=True)
        self.failures: list[str] = []

    def __enter__(self) -> NativeProducer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        with contextlib.suppress(TimeoutError):  # of a test that failed: `finish` has waited
            self._producer.close(0)

    def finish(self, timeout_s: float = 30.0) -> None:
        """Send nothing new, and wait until every record has its outcome."""
        self._stopping.set()
        self._thread.join()
        self._producer.flush(timeout_s)

    def _run(self) -> None:
        seq = 0
        while not self._stopping.wait(self._pause_s):
            self._history.transmitted(self.source, seq)

            def delivered(delivery: Delivery, seq: int = seq) -> None:
                self._delivered(seq, delivery.exception())

            self._producer.send(
                self._topic, self._history.value(self.source, seq), key=b"%d" % self.source, on_delivery=delivered
            )
            seq += 1

    def _delivered(self, seq: int, error: ForebayError | None) -> None:
        if error is None:
            self._history.acknowledged(self.source, seq, time.monotonic())
        elif isinstance(error, RemoteError) and error.definite:
            self._history.failed(self.source, seq)
        else:
            self.failures.append(f"{self.source}: {seq}: {error!r}")  # unknown: it may be read or not
