"""Bugs to plant: each breaks one rule that members and coordinators stand on, and the simulator has to find it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ingest.client.groups.assignors import CooperativeStickyAssignor
from ingest.client.groups.member import Assign, Member, Phase
from ingest.client.groups.sticky import spread
from tests.brokerd.groups.coordinator import Coordinator
from tests.simulation.groups.world import GroupPlan, GroupWorld, plan_for, plan_of

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTS: dict[str, tuple[Plant, dict[str, Any]]] = {}
WILD = {"strategy": "cooperative-sticky", "members": 5, "slow_ms": 100, "twice": 0.2, "late": 0.05}
CALM = dict.fromkeys(plan_of(0).faults, 0.0)


def plant(**focus: Any) -> Callable[[Plant], Plant]:
    """Name a bug.

    Args:
        focus: Fields of the plan that make the situation likely in which it matters; the rest is the seed's.
    """

    def add(make: Plant) -> Plant:
        PLANTS[make.__name__] = (make, focus)
        return make

    return add


@plant(commit_ms=300, faults={**CALM, "fail_over": 0.5, "kill": 0.2})
def coordinator_answers_early(patch: pytest.MonkeyPatch) -> None:
    """C19: a generation is given out before it is stored, and again by the next coordinator, to others."""
    patch.setattr(Coordinator, "answer", lambda self, token, message: self._deliver(token, message))


@plant(**WILD)
def given_up_while_joining_and_not_told(patch: pytest.MonkeyPatch) -> None:
    """KIP-429: what the leader took for a member's, and the user let go of meanwhile, nobody ever gets."""
    original = Member._synced

    def synced(self: Member, body: Any) -> None:
        original(self, body)
        self._claimed = self.owned

    patch.setattr(Member, "_synced", synced)


@plant(strategy="range", members=5)
def eager_member_joins_before_it_has_given_up(patch: pytest.MonkeyPatch) -> None:
    """Others get what the user still works with."""

    def leave_phase(self: Member) -> None:
        self._assigned = None
        self._join_again()

    patch.setattr(Member, "_leave_phase", leave_phase)


@plant(strategy="cooperative-sticky", members=5)
def handed_on_at_once(patch: pytest.MonkeyPatch) -> None:
    """KIP-429: a partition goes to another member in the round in which its owner learns that it is to give it up."""

    def share(self: CooperativeStickyAssignor, group: Any) -> Any:
        return spread(group.partitions_per_topic, group.subscribers, self._owners(group))

    patch.setattr(CooperativeStickyAssignor, "_share", share)


@plant(strategy="cooperative-sticky", members=5)
def expelled_member_keeps_what_it_had(patch: pytest.MonkeyPatch) -> None:
    """Who is told that it is out joins anew with what others have by now."""

    def lose(self: Member) -> None:
        self._assigned = None
        self._is_leader = False
        self.phase = Phase.OUT

    patch.setattr(Member, "_lose", lose)


@plant(strategy="range", members=5, faults={**CALM, "subscribe": 0.5})
def assignment_taken_up_though_the_group_has_gone_on(patch: pytest.MonkeyPatch) -> None:
    """The user takes what it was told some time ago."""
    original = Member.settled

    def settled(self: Member, change: Any) -> bool:
        if isinstance(change, Assign):
            self.owned |= change.partitions
            self._assigned = None
            return True
        return original(self, change)

    patch.setattr(Member, "settled", settled)


# The first seed of fifty that finds each; the real code passes on it.
SEEDS = {
    "coordinator_answers_early": 12,
    "given_up_while_joining_and_not_told": 120,
    "eager_member_joins_before_it_has_given_up": 1,
    "handed_on_at_once": 1,
    "expelled_member_keeps_what_it_had": 1,
    "assignment_taken_up_though_the_group_has_gone_on": 4,
}


def is_found(name: str, seed: int) -> bool:
    """Tell whether a planted bug is found on a seed."""
    with pytest.MonkeyPatch.context() as patch:
        PLANTS[name][0](patch)
        try:
            GroupWorld(seed, plan_with(name, seed)).run()
        except AssertionError:
            return True
    return False


def plan_with(name: str, seed: int) -> GroupPlan:
    """Return a seed's plan with a plant's focus."""
    return plan_for(seed, **PLANTS[name][1])
