"""Run one seed, in this process or in a worker."""

from __future__ import annotations

import traceback
from collections import Counter

from tests.simulation.groups.world import GroupWorld


def run_one(seed: int, *, show: bool = False) -> tuple[int, str, Counter[str]]:
    """Run a seed; return it with what broke, empty if nothing did, and what happened."""
    world = GroupWorld(seed)
    failure = ""
    try:
        world.run()
    except AssertionError as error:
        failure = f"{type(error).__name__}: {error}"
        if show:
            traceback.print_exc()
    if show:
        print("\n".join(world.log))
        print(world.plan)
    return seed, failure, world.events
