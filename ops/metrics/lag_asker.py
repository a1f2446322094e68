"""Ask leaders, on this machine and on others, how far groups are behind: in a thread, so that nobody waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from ingest.client.cluster import Cluster
from ingest.client.lag import Place, ask_lags
from ingest.errors import ForebayError
from ops.metrics.group_watch import Answer

ROUND_MS = 1_000  # how long one round of questions may take
_STOP_SECONDS = 3.0

log = logging.getLogger("forebay.monitor")


class LagAsker:
    """One round of questions at a time. All public calls: any thread.

    Args:
        bootstrap: The appliance's data directory, or endpoints; empty: nobody is asked.
    """

    def __init__(self, bootstrap: str, *, round_ms: int = ROUND_MS) -> None:
        self._bootstrap = bootstrap
        self._round_ms = round_ms
        self._changed = threading.Condition()
        self._places: Sequence[Place] = ()
        self._answers: list[Answer] = []
        self._stopping = False
        self._thread: threading.Thread | None = None

    def ask(self, places: Sequence[Place]) -> bool:
        """Begin a round; False: the last one is still under way, so these are not asked."""
        if not places or not self._bootstrap:
            return False
        with self._changed:
            if self._places or self._stopping:
                return False
            self._places = places
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lag", daemon=True)
                self._thread.start()
        return True

    def take(self) -> list[Answer]:
        """Return the answers that have come since the last call."""
        with self._changed:
            answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        """End the thread, and a round under way with it."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        cluster: Cluster | None = None
        told = ""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._places or self._stopping)
                if self._stopping:
                    break
                places = self._places
            answers: list[Answer] = []
            try:
                cluster = cluster or Cluster(self._bootstrap, client_id="monitor")
                found, _ = ask_lags(cluster, places, timeout_ms=self._round_ms, is_over=lambda: self._stopping)
                now_ms = time.monotonic_ns() // 1_000_000
                answers = [Answer(place, lag, now_ms) for place, lag in found.items()]
            except ForebayError as error:  # the appliance was made anew, or is not there yet: the next round tells
                if cluster is not None:
                    cluster.close()
                    cluster = None
                if str(error) != told:
                    told = str(error)
                    log.warning("leaders can't be asked how far groups are behind: %s", error)
            with self._changed:
                self._answers += answers
                self._places = ()
        if cluster is not None:
            cluster.close()
