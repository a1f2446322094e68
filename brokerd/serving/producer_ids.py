"""Producer ids in hand: blocks from the controller, given out one by one, never twice."""

from __future__ import annotations

from collections import deque

LOW = 100  # ask for the next block while so many are left, so that producers start while the controller is away


class ProducerIdBlocks:
    """Blocks of producer ids. Thread: the broker loop."""

    def __init__(self) -> None:
        self._blocks: deque[range] = deque()
        self._left = 0

    @property
    def low(self) -> bool:
        return self._left < LOW

    def add(self, start: int, count: int) -> None:
        self._blocks.append(range(start, start + count))
        self._left += count

    def take(self) -> int | None:
        """Return the next id, or None until there is another block."""
        if not self._left:
            return None
        block = self._blocks[0]
        self._left -= 1
        if len(block) == 1:
            self._blocks.popleft()
        else:
            self._blocks[0] = block[1:]
        return block[0]
