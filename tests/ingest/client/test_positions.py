"""Where a position is read: at its leader, or for a while at the follower that it named."""

from __future__ import annotations

import pytest

from ingest.client.positions import PATIENCE_MS, PREFERRED_MS, Position, TopicPartition


@pytest.fixture
def position() -> Position:
    made = Position(TopicPartition("t", 0), -1)
    made.lead_by(b"t" * 16, 1, 5)
    made.seek(3)
    made.row = 7
    made.prefer(2, 0)
    return made


def test_a_follower_is_read_until_the_leaders_word_is_old(position: Position) -> None:
    assert (position.source, position.row, position.strays) == (2, -1, True)
    position.expire(PREFERRED_MS - 1)
    assert position.source == 2
    position.expire(PREFERRED_MS)
    assert (position.source, position.leader_until_ms) == (1, 0)


def test_one_that_refuses_is_left_at_once_and_not_asked_again_for_a_while(position: Position) -> None:
    position.row = 4
    position.not_served(10, for_good=True)
    assert (position.source, position.row, position.leader_until_ms) == (1, -1, 10 + PATIENCE_MS)


def test_one_that_is_behind_has_some_patience(position: Position) -> None:
    position.not_served(PATIENCE_MS - 1, for_good=False)
    assert position.source == 2
    position.source_well_ms = PATIENCE_MS - 1
    position.not_served(PATIENCE_MS, for_good=False)
    assert position.source == 2
    position.not_served(2 * PATIENCE_MS, for_good=False)
    assert position.source == 1


def test_another_offset_and_another_leader_epoch_are_for_the_leader(position: Position) -> None:
    position.seek(9)
    assert position.source == 1
    position.prefer(2, 0)
    position.lead_by(b"t" * 16, 1, 6)
    assert position.source == 1
    position.not_served(0, for_good=True)
    assert position.leader_until_ms == 0, "it is at its leader"
