"""Connections and the limit of file descriptors, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource
from edge.descriptors import connections_within_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(connections_within_limit({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed", "raised"),
    [(256, 1024, 100, 100, 256), (256, 1024, 900, 900, 964), (256, 1024, 5000, 960, 1024)],
)
def test_the_limit_is_raised_as_far_as_needed_and_no_more_connections_taken_than_it_allows(
    soft: int, hard: int, wanted: int, allowed: int, raised: int
) -> None:
    code = CODE.format(soft=soft, hard=hard, wanted=wanted)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == f"{allowed} {raised}"
