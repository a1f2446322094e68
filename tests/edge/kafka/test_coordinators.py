"""A request for very many groups does not ask for all at once."""

from __future__ import annotations

import asyncio

from edge.kafka.coordinators import AT_ONCE, ask_each


def test_some_are_asked_at_once_and_the_answers_keep_their_order() -> None:
    under_way, most = 0, 0

    async def ask(item: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return 2 * item

    count = 5 * AT_ONCE + 1
    assert asyncio.run(ask_each(ask, range(count))) == list(range(0, 2 * count, 2))
    assert most == AT_ONCE
