"""Failure domains: what dies together. Copies are counted by machine, on one machine by disk; racks are preferences.

Three brokers on one disk are three processes and one copy; they are counted as three only where a topic has no replica
anywhere else, for there the operator asked for just that.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import NamedTuple


class Place(NamedTuple):
    """Where a broker keeps its copies.

    Attributes:
        site: The machine.
        device: The disk: st_dev of the log directory.
        rack: Where the machine is; "" if nobody said so.
    """

    site: str
    device: int
    rack: str = ""


class Domains:
    """The places of all brokers that ever registered; pure."""

    def __init__(self, places: Mapping[int, Place] = {}) -> None:
        self._places = dict(places)

    @property
    def sites(self) -> int:
        """How many machines there are."""
        return len({place.site for place in self._places.values()})

    def site(self, broker: int) -> str:
        return self._place(broker).site

    def rack(self, broker: int) -> str:
        return self._place(broker).rack

    def disk(self, broker: int) -> Hashable:
        return self._place(broker)[:2]

    def copies(self, members: Collection[int], replicas: Collection[int]) -> int:
        """Count the copies that `members` are, of a partition with these `replicas`.

        By machine if the replicas are on two or more, else by disk if they are on two or more, else by broker.
        """
        for domain in (self.site, self.disk):
            if len(set(map(domain, replicas))) > 1:
                return len(set(map(domain, members)))
        return len(set(members))

    def count(self, brokers: Collection[int]) -> int:
        """Count the distinct domains of brokers: machines if there are two or more, else disks."""
        sites = set(map(self.site, brokers))
        return len(sites) if len(sites) > 1 else len(set(map(self.disk, brokers)))

    def _place(self, broker: int) -> Place:
        return self._places.get(broker) or Place(f"broker {broker}", 0)
