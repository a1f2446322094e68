"""What the seeds' tests leave as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def log_again() -> Iterator[None]:
    """A seed's run is silent; other tests in the same process want to hear."""
    yield
    structlog.reset_defaults()
