"""Machines of one test: network namespaces joined by a bridge, each with an address and a boot id of its own.

They share the file system. What a machine's processes take for the boot id is a file bound over the kernel's, so that
nobody takes another machine's sockets and segments for near ones.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.machine import program

_numbers = itertools.count()  # of the networks that this process makes
_CUT = "forebay_cut"  # the table of the rules that drop packets
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Machine:
    """One namespace. Thread: the test's.

    Attributes:
        address: Where the others reach it.
    """

    def __init__(self, hub: str, name: str, number: int, directory: Path) -> None:
        self.name = name
        self.address = f"10.98.0.{number}"
        port = f"port{number}"
        self._boot_id = directory / f"boot-id-{number}"
        self._boot_id.write_text(f"{uuid.uuid4()}\n")
        _ip("netns", "add", name)
        _ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("-n", hub, "link", "set", port, "master", "bridge", "up")
        _ip("-n", name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            _ip("-n", name, "link", "set", link, "up")

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:
        """Return the command that runs another on this machine, as one process."""
        bind = f'mount --bind "$0" {_BOOT_ID} && exec "$@"'
        return [_tool("ip"), "netns", "exec", self.name, "sh", "-c", bind, str(self._boot_id), *map(str, arguments)]

    def cut(self, *, inbound: bool = True, outbound: bool = True, ports: Sequence[int] = ()) -> None:
        """Let no packet of others reach it, or leave it; nobody is told.

        Args:
            ports: Only what goes to servers there and comes from them is lost, from this machine's own servers too.
        """
        these = "{ " + ", ".join(map(str, ports)) + " }"
        lost = {}
        if inbound:
            lost["input"] = f"tcp sport {these}" if ports else "iifname eth0"
        if outbound:
            lost["output"] = f"tcp dport {these}" if ports else "oifname eth0"
        chains = [f"chain {hook} {{ type filter hook {hook} priority 0; {what} drop; }}" for hook, what in lost.items()]
        self._nft("\n".join([f"table inet {_CUT} {{", *chains, "}", ""]))

    def heal(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # it was not cut
            self._nft(f"delete table inet {_CUT}")

    def _nft(self, rules: str) -> None:
        _ip("netns", "exec", self.name, _tool("nft"), rules)


@contextlib.contextmanager
def network(directory: Path, count: int) -> Iterator[Sequence[Machine]]:
    """Make machines; remove them in the end. Their processes are the caller's to end before."""
    first = next(_numbers) * 100
    names = [f"fb{os.getpid()}-{first + number}" for number in range(count + 1)]
    try:
        hub = names[0]
        _ip("netns", "add", hub)
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "up")
        yield [Machine(hub, name, number, directory) for number, name in enumerate(names[1:], 1)]
    finally:
        for name in names:
            with contextlib.suppress(subprocess.CalledProcessError):  # it was not made
                _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    _run(_tool("ip"), *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20, stdin=subprocess.DEVNULL)


def _tool(name: str) -> str:
    path = program(name)
    assert path is not None, f"{name} is not installed"
    return path
