"""Connections of a broker to those it follows."""

from __future__ import annotations

import zmq

from brokerd.serving.peers import PeerConnections
from ingest.wire.messages import BrokerMetadata


def test_a_broker_that_can_not_be_reached_under_what_it_says_ends_nobody() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    peers = PeerConnections(context, zmq.Poller(), "here")
    broker = BrokerMetadata(2, 1, ["tcp://there"], "there", "/d", "/p", 7, peer_endpoints=["tcp://there"])
    assert not peers.send(broker, b"x")
    peers.close_all()
    context.term()
