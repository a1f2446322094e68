"""What was published, how often it was sent, what was acknowledged; and whether what is read back agrees. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

PROBLEMS_MAX = 20


class History:
    """Everything published in one run: unique values, each ok, failed or unknown. Thread: any, one writer a source.

    A source is a device or a producer; its messages have sequence numbers from 0.

    Args:
        run: Makes the values of this run unlike those of any other.
    """

    def __init__(self, run: int) -> None:
        self._run = run
        self._transmissions: dict[int, list[int]] = {}
        self._acknowledged: dict[int, set[int]] = {}
        self._failed: dict[int, set[int]] = {}
        self.acknowledgements: list[tuple[float, int]] = []  # monotonic s, source; in the order they came

    # ---- written by sources

    def value(self, source: int, seq: int) -> bytes:
        """Return the payload of a message: unique, and its bytes can be checked."""
        head = b"%04d %07d " % (source, seq)
        return head + blake2b(head, digest_size=20, key=b"%d" % self._run).hexdigest().encode()

    def transmitted(self, source: int, seq: int) -> None:
        """A message was handed to the network, once more."""
        counts = self._transmissions.setdefault(source, [])
        counts.extend([0] * (seq + 1 - len(counts)))
        counts[seq] += 1

    def acknowledged(self, source: int, seq: int, at_s: float) -> None:
        self._acknowledged.setdefault(source, set()).add(seq)
        self.acknowledgements.append((at_s, source))

    def failed(self, source: int, seq: int) -> None:
        """The outcome is definite: it is not in the log and never will be."""
        self._failed.setdefault(source, set()).add(seq)

    # ---- read by tests

    def was_transmitted(self, source: int, seq: int) -> bool:
        counts = self._transmissions.get(source, [])
        return seq < len(counts) and counts[seq] > 0

    def acknowledged_so_far(self) -> dict[int, frozenset[int]]:
        """Return a copy of what is acknowledged now, by source."""
        return {source: frozenset(set(seqs)) for source, seqs in list(self._acknowledged.items())}

    @property
    def resends(self) -> int:
        return sum(count - 1 for counts in self._transmissions.values() for count in counts if count > 1)

    def parse(self, value: bytes) -> tuple[int, int] | None:
        """Return (source, sequence number) of a value of this run, None if it is none."""
        try:
            source, seq = int(value[:4]), int(value[5:12])
        except ValueError:
            return None
        return (source, seq) if value == self.value(source, seq) else None

    def check(
        self,
        partitions: Mapping[int, Sequence[bytes]],
        acknowledged: Mapping[int, Iterable[int]] | None = None,
    ) -> list[str]:
        """Return what is wrong with the values read back, by partition in the order of their offsets.

        Args:
            acknowledged: What must be there, by source; all that is acknowledged now if not given.
        """
        problems: list[str] = []
        times_read: dict[tuple[int, int], int] = {}
        homes: dict[int, int] = {}
        last_first: dict[int, int] = {}
        for partition, values in partitions.items():
            for offset, value in enumerate(values):
                origin = self.parse(value)
                if origin is None:
                    problems.append(f"partition {partition} offset {offset}: {value[:60]!r} was never published")
                    continue
                source, seq = origin
                if homes.setdefault(source, partition) != partition:
                    problems.append(f"source {source} is in partitions {homes[source]} and {partition}")
                times = times_read[origin] = times_read.get(origin, 0) + 1
                if times == 1:
                    if seq < last_first.get(source, -1):
                        problems.append(
                            f"source {source}: {seq} comes first behind {last_first[source]}, "
                            f"at offset {offset} of partition {partition}"
                        )
                    last_first[source] = max(seq, last_first.get(source, -1))
        for (source, seq), times in times_read.items():
            counts = self._transmissions.get(source, [])
            sent = counts[seq] if seq < len(counts) else 0
            if times > sent:
                problems.append(f"source {source}: {seq} was sent {sent} times and read {times} times")
            if seq in self._failed.get(source, ()):
                problems.append(f"source {source}: {seq} failed for good and was read")
        expected = self.acknowledged_so_far() if acknowledged is None else acknowledged
        for source, seqs in expected.items():
            lost = sorted(seq for seq in seqs if (source, seq) not in times_read)
            if lost:
                problems.append(f"source {source}: {len(lost)} acknowledged and not read back: {lost[:10]}")
        return problems[:PROBLEMS_MAX]

    def homes(self, partitions: Mapping[int, Sequence[bytes]]) -> dict[int, int]:
        """Return the partition in which each source's messages were read."""
        return {
            origin[0]: partition
            for partition, values in partitions.items()
            for value in values
            if (origin := self.parse(value)) is not None
        }

    def gap_s(self, since_s: float, until_s: float, sources: Iterable[int] | None = None) -> float:
        """Return the longest time without an acknowledgement that begins in the second after `since_s`.

        Args:
            until_s: What begins later is something else's.
            sources: Only theirs count.
        """
        wanted = None if sources is None else set(sources)
        longest, last = 0.0, since_s
        for at_s, source in self.acknowledgements:
            if at_s <= since_s or (wanted is not None and source not in wanted):
                continue
            if last > min(since_s + 1.0, until_s):
                break
            longest = max(longest, at_s - last)
            last = at_s
        return longest
