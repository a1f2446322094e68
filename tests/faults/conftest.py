"""The appliance that most fault runs break; a module that wants another has a fixture of that name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.appliance import ProcessTree


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[ProcessTree]:
    """Three brokers that serve; whatever runs on the directory is ended after the test."""
    tree = ProcessTree(tmp_path / "data")
    try:
        tree.up()
        yield tree
    finally:
        tree.end()
