"""A process: it lives, stands still, dies, and comes back as another incarnation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.world import World


class Process:
    """Base of all simulated processes. What it takes while it is stopped waits until it goes on.

    Attributes:
        incarnation: Unique among all processes of the run.
    """

    def __init__(self, world: World, name: str, machine: str) -> None:
        self.world = world
        self.name = name
        self.machine = machine
        self.incarnation = world.next_incarnation()
        self.alive = True
        self.stopped = False
        self._waiting: list[Callable[[], None]] = []
        world.network.processes[name] = self

    @property
    def now_ms(self) -> int:
        return self.world.schedule.now_ms

    def take(self, act: Callable[[], None]) -> None:
        """Do something now, or once the process goes on."""
        if not self.alive:
            return
        if self.stopped:
            self._waiting.append(act)
            return
        act()
        if self.alive:
            self.settle()

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Do something later, if this incarnation still lives."""
        self.world.schedule.after(delay_ms, lambda: self.take(act))

    def stop(self) -> None:
        self.stopped = True

    def go_on(self) -> None:
        self.stopped = False
        waiting, self._waiting = self._waiting, []
        for act in waiting:
            self.take(act)

    def kill(self) -> None:
        """End at once, without a word."""
        if not self.alive:
            return
        self.alive = False
        self._waiting.clear()
        self.world.network.tell_of_death(self)

    def settle(self) -> None:
        """What a loop does after each event."""

    def peer_died(self, name: str, incarnation: int) -> None:
        """A connection to another process has ended."""
