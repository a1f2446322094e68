"""Who guesses passwords."""

from __future__ import annotations

from edge.security.guesses import FAILURES_MAX, REMEMBERED_MAX, WINDOW_MS, Guesses


def test_too_many_wrong_passwords_for_one_user_from_one_address_and_a_minute_later_again_none() -> None:
    guesses = Guesses()
    for number in range(FAILURES_MAX):
        assert not guesses.too_many("a", "alice", number)
        guesses.failed("a", "alice", number)
    assert guesses.too_many("a", "alice", FAILURES_MAX)
    assert not guesses.too_many("a", "bob", FAILURES_MAX)
    assert not guesses.too_many("b", "alice", FAILURES_MAX)
    assert not guesses.too_many("a", "alice", WINDOW_MS)  # the first has passed


def test_names_that_are_made_up_are_not_all_remembered() -> None:
    guesses = Guesses()
    for number in range(REMEMBERED_MAX + 10):
        guesses.failed("a", str(number), 0)
    assert len(guesses._failures) <= REMEMBERED_MAX
