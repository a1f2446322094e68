"""The thread that keeps a consumer in its group: it answers the coordinator while the user is busy elsewhere."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Collection

from ingest.client.cluster import ANY_BROKER, Answered, Cluster, monotonic_ms
from ingest.client.groups.committed import MemberId
from ingest.client.groups.member import IDLE_MS, Ask, Change, Member, MemberConfig
from ingest.client.positions import TopicPartition
from ingest.client.wake_fd import WakeFd
from ingest.errors import ForebayError
from ingest.machine import machine_id, pid_namespace, start_ticks
from ingest.topic_name import is_internal
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.group_messages import FindCoordinatorRequest, MemberProcess

LOOK_MS = 5_000
LEAVE_MS = 1_000
RETRY_MS = 20

log = logging.getLogger("forebay.client")


def matches(pattern: re.Pattern[str], topic: str) -> bool:
    """Tell whether a pattern means a topic: its whole name, and never one of the brokers' own."""
    return pattern.fullmatch(topic) is not None and not is_internal(topic)


def this_process() -> MemberProcess:
    """Return what a coordinator on this machine needs to watch this process."""
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    return MemberProcess(machine_id(), pid_namespace(), os.getpid(), ticks)


def this_host() -> str:
    """Return this machine's name, as `group describe` shows it."""
    return socket.gethostname()


class Membership:
    """One member with its own connections and thread. All public calls: any thread.

    Args:
        news: Set when there is something for the user to do.
    """

    def __init__(self, bootstrap: str, config: MemberConfig, news: WakeFd, *, client_id: str) -> None:
        self._bootstrap = bootstrap
        self._config = config
        self._client_id = client_id
        self._news = news
        self._lock = threading.Lock()
        self._member = Member(config)
        self._pattern: re.Pattern[str] | None = None
        self._coordinator = -1
        self._looking = False
        self._look_at_ms = 0
        self._told: Change | None = None
        self._closed = False
        self._wake = WakeFd()
        self._thread: threading.Thread | None = None

    # ---- the user's side ---------------------------------------------------------------------------------------------

    def subscribe(self, topics: Collection[str], pattern: re.Pattern[str] | None) -> None:
        """Read these topics, or all whose names match, from now on."""
        with self._lock:
            self._pattern = pattern
            self._member.polled(monotonic_ms())
            if pattern is None:
                self._member.subscribe(topics)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="forebay-group", daemon=True)
            self._thread.start()
        self._wake.set()

    def polled(self) -> None:
        """The user asks for records."""
        with self._lock:
            is_back = self._member.polled(monotonic_ms())
        if is_back:
            self._wake.set()

    def change(self) -> Change | None:
        """Return what the user is to do now.

        Raises:
            ForebayError: the group does not take this member; it is not tried again. Any other is a bug of ours.
        """
        with self._lock:
            change = self._member.change()
            if change is None and self._member.failure is not None:
                raise self._member.failure
            return change

    def settled(self, change: Change) -> bool:
        """Take note that the user has done it; False: the group has gone on, ask `change` again."""
        with self._lock:
            accepted = self._member.settled(change)
        self._wake.set()
        return accepted

    def identity(self, names: Collection[TopicPartition] = ()) -> MemberId | None:
        """Return under what to commit for these partitions; None: it is no member now, or not the one that has them.

        A member that was taken for gone may be one again, under a newer generation, before its user has let go of what
        is others' by now.
        """
        with self._lock:
            member = self._member
            if member.generation < 0 or not member.member_id or not member.owned.issuperset(names):
                return None
            return MemberId(member.generation, member.member_id, self._config.instance_id)

    @property
    def was_late(self) -> bool:
        """Whether it has left for want of polls, and not come back yet."""
        with self._lock:
            return self._member.left

    def owned(self) -> frozenset[TopicPartition]:
        """Return what the user holds, as the group sees it."""
        with self._lock:
            return self._member.owned

    def stop(self) -> None:
        """Have the thread leave the group, unless it is a static member, and end, without waiting for it."""
        self._closed = True
        self._wake.set()

    def close(self) -> None:
        """As `stop`, and wait for it."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        cluster = Cluster(self._bootstrap, client_id=self._client_id)
        try:
            cluster.watch(self._wake)
            while not self._closed:
                cluster.poll()
                with self._lock:
                    self._go_on(cluster)
                    due_ms = self._next_ms(cluster)
                self._tell()
                if not cluster.unsure:
                    cluster.wait(max(0, min(due_ms, cluster.deadline_ms()) - monotonic_ms()))
            self._leave(cluster)
        except Exception as error:  # the thread ends: whatever it was, the user is told at the next poll
            with self._lock:
                self._member.failure = error
            self._tell()
        finally:
            cluster.close()

    def _go_on(self, cluster: Cluster) -> None:
        member, now_ms = self._member, monotonic_ms()
        if member.failure is not None:
            return
        if self._pattern is not None:
            cluster.want_all()
            if cluster.version >= 0:
                member.subscribe([name for name in cluster.topics if matches(self._pattern, name)])
        needed = member.topics_to_know
        cluster.want(needed)
        member.know({name: len(topic.partitions) for name, topic in cluster.topics.items()})
        known = needed & (cluster.topics.keys() | cluster.missing.keys())
        if self._coordinator not in cluster.brokers:
            self._look(cluster, now_ms)
            return
        ask = member.step(now_ms, known)
        if ask is not None:
            self._send(cluster, ask)

    def _next_ms(self, cluster: Cluster) -> int:
        """Return when there may be something to do without a sign of it."""
        now_ms = monotonic_ms()
        if self._coordinator in cluster.brokers or self._member.failure is not None:
            return self._member.next_ms(now_ms)
        return now_ms + IDLE_MS if self._looking else self._look_at_ms

    def _send(self, cluster: Cluster, ask: Ask) -> None:
        def on_done(answered: Answered) -> None:
            with self._lock:
                if self._member.answered(ask.number, answered.body, answered.error, monotonic_ms()):
                    self._coordinator = -1

        if not cluster.send(self._coordinator, ask.body, on_done, timeout_ms=ask.timeout_ms, payload=ask.payload):
            self._member.unsent(ask, monotonic_ms())
            self._coordinator = -1

    def _look(self, cluster: Cluster, now_ms: int) -> None:
        """Ask any broker which one coordinates the group."""
        if self._looking or now_ms < self._look_at_ms:
            return
        self._look_at_ms = now_ms + RETRY_MS

        def on_found(answered: Answered) -> None:
            with self._lock:
                self._looking = False
                found = answered.body.coordinators[0] if answered.error is None else None
                if found is None:
                    return
                if not found.error_code:
                    self._coordinator = found.broker_id
                elif not ErrorCode(found.error_code).retriable:
                    self._member.failure = error_from_code(
                        found.error_code, found.message or f"group {self._config.group!r}"
                    )

        request = FindCoordinatorRequest([self._config.group])
        self._looking = cluster.send(ANY_BROKER, request, on_found, timeout_ms=LOOK_MS)

    def _tell(self) -> None:
        """Wake the user for what is new to it."""
        with self._lock:
            change = self._member.change()
            news = self._member.failure is not None or (change is not None and change != self._told)
            self._told = change
        if news:
            self._news.set()

    def _leave(self, cluster: Cluster) -> None:
        with self._lock:
            goodbye = self._member.leave()
        if goodbye is None or self._coordinator < 0:
            return
        try:
            cluster.call(self._coordinator, goodbye, timeout_ms=LEAVE_MS)
        except ForebayError as error:
            log.info("did not get to leave group %s: %s", self._config.group, error)
