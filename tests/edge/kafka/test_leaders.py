"""What clients are told of what leaders answer."""

from __future__ import annotations

import pytest

from edge.kafka.leaders import client_code
from ingest.wire.codes import ErrorCode


@pytest.mark.parametrize("code", [ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.UNKNOWN_LEADER_EPOCH])
def test_of_an_epoch_that_the_client_did_not_tell_it_hears_nothing(code: ErrorCode) -> None:
    assert client_code(code) == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert client_code(code, told=3) == code


def test_a_client_that_knows_names_alone_hears_nothing_of_ids() -> None:
    assert client_code(ErrorCode.UNKNOWN_TOPIC_ID) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
