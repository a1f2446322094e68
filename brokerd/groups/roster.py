"""Who is in a group: members by id, static ones by instance too, and ids whose owners are yet to come. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from brokerd.groups.config import GroupConfig
from brokerd.groups.member import Member
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import JoinGroupRequest, LeavingMember


class Roster:
    """The members of one group.

    Attributes:
        members: By member id, in the order in which they came.
        statics: The member id of each static member, by its instance id.
        pending: Member ids given out whose owners have not joined yet, and until when they may.
    """

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self.members: dict[str, Member] = {}
        self.statics: dict[str, str] = {}
        self.pending: dict[str, int] = {}
        for member in members:
            self.add(member)

    # ---- coming and going --------------------------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """Take a member in."""
        self.members[member.member_id] = member
        if member.instance_id is not None:
            self.statics[member.instance_id] = member.member_id

    def remove(self, member: Member) -> None:
        """Take a member out; its instance may be another member's by now."""
        del self.members[member.member_id]
        if member.instance_id is not None and self.statics.get(member.instance_id) == member.member_id:
            del self.statics[member.instance_id]

    def static(self, instance_id: str) -> Member | None:
        """Return the member that an instance is."""
        return self.members.get(self.statics.get(instance_id, ""))

    # ---- who is heard ------------------------------------------------------------------------------------------------

    def check(self, member_id: str, instance_id: str | None) -> ErrorCode:
        """Tell why one that says it is a member is not heard, NONE if it is."""
        if instance_id is not None:
            known = self.statics.get(instance_id)
            if known is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if known != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        return ErrorCode.NONE if member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    def check_join(self, request: JoinGroupRequest, protocol_type: str, config: GroupConfig) -> ErrorCode:
        """Tell why one may not join, NONE if it may.

        Args:
            protocol_type: Of the members there are.
        """
        if not config.session_timeout_ms_min <= request.session_timeout_ms <= config.session_timeout_ms_max:
            return ErrorCode.INVALID_SESSION_TIMEOUT
        if not request.protocol_type or not request.protocols or request.rebalance_timeout_ms < 0:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        member = self.members.get(request.member_id)
        if request.instance_id is not None:
            known = self.statics.get(request.instance_id)
            if request.member_id and known is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if request.member_id and known != request.member_id:
                return ErrorCode.FENCED_INSTANCE_ID
            member = self.members.get(known or "")
        elif request.member_id and member is None and request.member_id not in self.pending:
            return ErrorCode.UNKNOWN_MEMBER_ID
        others = [other for other in self.members.values() if other is not member]
        if others and (
            request.protocol_type != protocol_type or _common_protocols(others).isdisjoint(request.protocols)
        ):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        is_new = member is None and request.member_id not in self.pending
        if is_new and len(self.members) + len(self.pending) >= config.members_max:
            return ErrorCode.GROUP_MAX_SIZE_REACHED
        return ErrorCode.NONE

    def leaving(self, leaving: LeavingMember) -> str | ErrorCode:
        """Return the id of the member that is to leave, named by its instance maybe, or why there is none."""
        if leaving.instance_id is None:
            return leaving.member_id
        known = self.statics.get(leaving.instance_id)
        if known is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if leaving.member_id and leaving.member_id != known:
            return ErrorCode.FENCED_INSTANCE_ID
        return known

    # ---- all together ------------------------------------------------------------------------------------------------

    @property
    def all_joined(self) -> bool:
        """Whether every member waits for the next generation, and nobody is yet to come."""
        return not self.pending and all(member.joining is not None for member in self.members.values())

    def rebalance_timeout_ms(self) -> int:
        """Return how long the slowest member may take."""
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def choose_protocol(self) -> str:
        """Return the protocol that most members like best among those that all know."""
        members = list(self.members.values())
        common = _common_protocols(members)
        votes = Counter(next(name for name, _ in member.protocols if name in common) for member in members)
        return max(votes, key=lambda name: votes[name])


def _common_protocols(members: Sequence[Member]) -> set[str]:
    return set.intersection(*({name for name, _ in member.protocols} for member in members))
