"""Who published what, what of it was read back, how often and in which order. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray


class Published(msgspec.Struct, frozen=True):
    """What one device says of its sequence numbers 0 to count - 1.

    Attributes:
        unacknowledged: Those without a PUBACK.
        transmissions: How often those were sent that were sent more than once.
    """

    count: int
    unacknowledged: list[int] = []
    transmissions: dict[int, int] = {}


class Verdict(msgspec.Struct, frozen=True):
    """The balance of a run, in messages.

    Attributes:
        lost: Acknowledged and not read back.
        duplicates: Read back again, each explained by a transmission of its device's.
        unexplained: Read back more often than sent, or never published at all.
        out_of_order: Read for the first time behind a later message of the same device.
    """

    published: int
    acknowledged: int
    read_back: int
    lost: int
    duplicates: int
    unexplained: int
    out_of_order: int
    examples: list[str] = []

    @property
    def holds(self) -> bool:
        """Whether every promise was kept: nothing lost, made up or reordered."""
        return not (self.lost or self.unexplained or self.out_of_order)


class Tally:
    """Count what is read. Memory follows devices, gaps and duplicates, not messages.

    Attributes:
        read_total: Records, duplicates included.
    """

    def __init__(self, devices: int) -> None:
        self._next = np.zeros(devices, np.int64)
        self._gaps: list[set[int]] = [set() for _ in range(devices)]
        self._again: dict[tuple[int, int], int] = {}
        self._strangers = 0
        self.out_of_order = 0
        self.read_total = 0

    @property
    def duplicates(self) -> int:
        return sum(self._again.values())

    @property
    def read_back(self) -> int:
        """How many different messages were read."""
        return int(self._next.sum()) - sum(map(len, self._gaps))

    def add(self, devices: NDArray[np.int64], seqs: NDArray[np.int64]) -> None:
        """Take (n,) records in the order of their partition."""
        self.read_total += len(seqs)
        known = (devices >= 0) & (devices < len(self._next))
        if not known.all():
            self._strangers += int((~known).sum())
            devices, seqs = devices[known], seqs[known]
        if not len(seqs):
            return
        order = np.argsort(devices, kind="stable")
        devices, seqs = devices[order], seqs[order]
        first = np.flatnonzero(np.diff(devices, prepend=-1))
        last = np.append(first[1:], len(seqs)) - 1
        expected = np.empty_like(seqs)
        expected[1:] = seqs[:-1] + 1
        expected[first] = self._next[devices[first]]
        fits = np.logical_and.reduceat(seqs == expected, first)
        self._next[devices[first[fits]]] = seqs[last[fits]] + 1
        for start, end in zip(first[~fits].tolist(), last[~fits].tolist(), strict=True):
            self._add_one_by_one(int(devices[start]), seqs[start : end + 1].tolist())

    def _add_one_by_one(self, device: int, seqs: Sequence[int]) -> None:
        gaps, expected = self._gaps[device], int(self._next[device])
        for seq in seqs:
            if seq >= expected:
                gaps.update(range(expected, seq))
                expected = seq + 1
            elif seq in gaps:
                gaps.discard(seq)
                self.out_of_order += 1
            else:
                self._again[device, seq] = self._again.get((device, seq), 0) + 1
        self._next[device] = expected

    def missing(self, acknowledged_below: Mapping[int, int]) -> int:
        """Return how many of the first n messages of each device were not read yet."""
        total = 0
        for device, count in acknowledged_below.items():
            total += max(0, count - int(self._next[device])) + sum(seq < count for seq in self._gaps[device])
        return total

    def verdict(self, published: Sequence[Published]) -> Verdict:
        """Hold what was read against what the devices say; `published[i]` is device i's."""
        lost, explained, unexplained = 0, 0, self._strangers
        examples: list[str] = []
        for device, said in enumerate(published):
            end = int(self._next[device])
            unread = self._gaps[device] | set(range(end, said.count))
            missing = unread.difference(said.unacknowledged)
            lost += len(missing)
            examples += [
                f"dev-{device:05d} seq {seq} was acknowledged and not read back" for seq in sorted(missing)[:2]
            ]
            unexplained += max(0, end - said.count)
        for (device, seq), extra in self._again.items():
            allowed = published[device].transmissions.get(seq, 1) - 1
            explained += min(extra, allowed)
            if extra > allowed:
                unexplained += extra - allowed
                examples.append(f"dev-{device:05d} seq {seq} was sent {allowed + 1} times and read {extra + 1} times")
        return Verdict(
            published=sum(said.count for said in published),
            acknowledged=sum(said.count - len(said.unacknowledged) for said in published),
            read_back=self.read_back,
            lost=lost,
            duplicates=explained,
            unexplained=unexplained,
            out_of_order=self.out_of_order,
            examples=examples[:5],
        )
