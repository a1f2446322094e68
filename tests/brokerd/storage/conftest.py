"""A store that is closed at the end of its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brokerd.storage.config import LogConfig
from tests.brokerd.storage.stores import Store


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Return a function that makes a store from LogConfig's fields; a small reserve keeps the tests quick."""
    stores: list[Store] = []

    def make(root: Path | None = None, **config: Any) -> Store:
        store = Store(root or tmp_path / f"store-{len(stores)}", LogConfig(**config), reserve_bytes=65536)
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store()
