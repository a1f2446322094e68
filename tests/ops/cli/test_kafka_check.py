"""What `forebay doctor` says of the Kafka gateway: where clients are sent, and that they get there."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.kafka.fields import Malformed
from edge.kafka.probe import Seen, look
from ops.cli.checks import Check
from ops.cli.kafka_check import judge
from tests.ops.cli.conftest import Forebay

VERSIONS = {0: (0, 10), 1: (4, 12), 3: (0, 12)}
NAMES = {"log1": ["10.0.0.2"], "debian": ["127.0.1.1"], "nowhere": []}


def judged(bound: str, asked: str, brokers: dict[int, tuple[str, int]] | None, closed: int = 0) -> list[Check]:
    return list(
        judge(
            "kafka",
            bound,
            asked,
            Seen(VERSIONS, brokers),
            resolve=lambda name: NAMES.get(name, [name]),
            connects=lambda _, port: "Connection refused" if port == closed else "",
        )
    )


def test_all_is_well_on_loopback() -> None:
    first, second = judged("127.0.0.1:9092", "127.0.0.1", {1: ("127.0.0.1", 9092), 2: ("127.0.0.1", 9094)})
    assert (first.state, second.state) == ("ok", "ok")
    assert "Produce 0-10, Fetch 4-12" in first.what
    assert "programs on this machine alone" in first.what
    assert "does not encrypt; everybody is let in" in first.what
    assert "2 at 127.0.0.1:9094" in second.what


def test_an_address_that_nobody_answers_at_is_a_problem() -> None:
    _, check = judged("0.0.0.0:9092", "10.0.0.2", {1: ("log1", 9092), 2: ("log1", 9094)}, closed=9094)
    assert check.state == "problem"
    assert "broker 2 is at log1:9094" in check.what
    assert "Connection refused" in check.why
    assert "advertised_host" in check.next


def test_a_gateway_on_loopback_that_tells_another_address_is_said_to_be_so() -> None:
    _, check = judged("127.0.0.1:9092", "127.0.0.1", {1: ("log1", 9092)}, closed=9092)
    assert check.state == "problem"
    assert "listens on 127.0.0.1 alone" in check.why


@pytest.mark.parametrize("told", ["127.0.0.1", "localhost", "debian"])
def test_clients_of_other_machines_that_are_told_loopback_are_warned_of(told: str) -> None:
    _, check = judged("0.0.0.0:9092", "10.0.0.2", {1: (told, 9092)})
    assert check.state == "warning"
    assert "connects to itself" in check.why


def test_a_name_that_nobody_knows_is_a_problem() -> None:
    _, check = judged("127.0.0.1:9092", "127.0.0.1", {1: ("nowhere", 9092)})
    assert check.state == "problem"
    assert "can't be resolved" in check.what


def test_a_gateway_that_wants_a_login_says_no_more() -> None:
    (check,) = judged("10.0.0.2:9092", "10.0.0.2", None)
    assert check.state == "ok"
    assert "wants a login" in check.what


def answering(answer: Callable[[int], bytes], then: Callable[[int], None]) -> None:
    """Serve one connection: each request, by its API key, is answered with these bytes; none closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                while head := peer.recv(4):
                    request = peer.recv(struct.unpack(">i", head)[0])
                    found = answer(struct.unpack_from(">h", request)[0])
                    if not found:
                        return
                    peer.sendall(struct.pack(">i", 4 + len(found)) + request[4:8] + found)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            then(server.getsockname()[1])
        finally:
            thread.join(10)


def test_a_closed_metadata_is_a_login_and_rubbish_is_no_kafka() -> None:
    versions = struct.pack(">hihhh", 0, 1, 3, 0, 12)

    def closes(port: int) -> None:
        assert look("127.0.0.1", port, timeout_s=5) == Seen({3: (0, 12)}, None)

    def refuses(port: int) -> None:
        with pytest.raises(Malformed):
            look("127.0.0.1", port, timeout_s=5)

    answering(lambda key: versions if key == 18 else b"", closes)
    answering(lambda key: b"\0\0\0\0\0\x09", refuses)
    answering(lambda key: versions if key == 18 else b"\0\0\0\x02" + b"\xff" * 12, refuses)


def test_a_running_appliance_is_looked_at_as_a_client_would(forebay: Forebay) -> None:
    def checks(*options: str, code: int) -> list[dict[str, str]]:
        forebay.up("--brokers", "2", *options)
        said = forebay.run("doctor", "--data-dir", str(forebay.data_dir), "--format", "json", code=code)
        forebay.down()
        return [check for check in json.loads(said.stdout)["checks"] if check["name"] == "kafka"]

    well = checks(code=0)
    assert [check["state"] for check in well] == ["ok", "ok"]
    assert "Produce 0-" in well[0]["what"]
    config = Path(forebay.data_dir).with_suffix(".toml")
    config.write_text("[kafka]\nadvertised_port = 1\n")
    wrong = checks("--config", str(config), code=1)
    assert [check["state"] for check in wrong] == ["ok", "problem", "problem"]
    assert "broker 1 is at 127.0.0.1:1, where nobody" in wrong[1]["what"]
    (none,) = checks("--kafka-port", "-1", code=0)
    assert none["what"].startswith("no Kafka gateway runs")
