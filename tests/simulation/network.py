"""Messages between processes: late, lost, out of order, cut off one way or both, and across incarnations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.schedule import Schedule

if TYPE_CHECKING:
    from tests.simulation.process import Process


class Network:
    """Deliver messages by the name of the process they go to.

    Attributes:
        processes: The present incarnation of each.
        cut: Directed pairs of machines that nothing passes between.
        slow_ms: The longest delay; messages overtake each other.
        lost: The part of messages that vanishes.
        late: The part that takes twenty times as long.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.processes: dict[str, Process] = {}
        self.cut: set[tuple[str, str]] = set()
        self.slow_ms = 2
        self.lost = 0.0
        self.late = 0.02
        self.posted = 0

    def is_cut(self, source: Process, target: Process) -> bool:
        return (source.machine, target.machine) in self.cut

    def post(self, source: Process, target: str, deliver: Callable[[Process], None]) -> None:
        """Have the process of that name, whichever incarnation it is by then, take a message."""
        dice = self._schedule.dice
        self.posted += 1
        if dice.random() < self.lost:
            return
        delay_ms = dice.randrange(1, self.slow_ms + 1)
        if dice.random() < self.late:
            delay_ms *= 20

        def arrive() -> None:
            process = self.processes.get(target)
            if process is None or not process.alive or self.is_cut(source, process):
                return
            process.take(lambda: deliver(process))

        self._schedule.after(delay_ms, arrive)

    def tell_of_death(self, dead: Process) -> None:
        """Sockets of a dead process close; whoever can hear it learns of it soon."""
        for process in list(self.processes.values()):
            if process is not dead and process.alive and not self.is_cut(dead, process):
                self._schedule.after(self._schedule.dice.randrange(1, 6), partial(self._lose, process, dead))

    def _lose(self, process: Process, dead: Process) -> None:
        if self.processes.get(process.name) is process:
            process.take(lambda: process.peer_died(dead.name, dead.incarnation))
