"""Headers that no reader could decode are refused before they are taken."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.client.record_headers import check_headers
from ingest.errors import RemoteError, UsageError
from ingest.limits import LIMITS


def test_good_headers_are_frozen_and_measured() -> None:
    headers, size = check_headers([("site", b"A"), ("é", None), ("", b"")])
    assert headers == (("site", b"A"), ("é", None), ("", b""))
    assert size == 4 + 1 + 2 + 3 * 8


@pytest.mark.parametrize("header", [(b"site", b"A"), ("site", "A"), (None, b""), ("site", 5), ("\ud800", b"")])
def test_what_is_no_name_or_value_is_refused(header: Any) -> None:
    with pytest.raises(UsageError, match="record header"):
        check_headers([header])


def test_more_headers_than_readers_take_are_refused() -> None:
    check_headers([("h", None)] * LIMITS.record_headers_max)
    with pytest.raises(RemoteError, match="257 headers"):
        check_headers([("h", None)] * (LIMITS.record_headers_max + 1))
