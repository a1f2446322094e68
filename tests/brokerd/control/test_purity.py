"""The controller's decisions touch no clock, socket, file or dice: those are the shell's."""

from __future__ import annotations

import ast
from pathlib import Path

import brokerd.control

SHELL = {
    "process.py",
    "candidacy.py",
    "guide.py",
    "embedded.py",
    "lock.py",
    "zookeeper.py",
    "zookeeper_cluster.py",
    "zookeeper_presence.py",
    "zookeeper_records.py",
    "zookeeper_reign.py",
    "zookeeper_session.py",
}
FORBIDDEN = {"time", "os", "socket", "random", "zmq", "sqlite3", "threading", "asyncio", "datetime", "secrets"}


def test_all_but_the_shell_is_pure() -> None:
    folder = Path(brokerd.control.__path__[0])
    modules = sorted(folder.glob("*.py"))
    assert {module.name for module in modules} > SHELL
    for module in modules:
        if module.name in SHELL:
            continue
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                shell = {f"brokerd.control.{name.removesuffix('.py')}" for name in SHELL}
                assert node.module not in shell, f"{module.name} imports {node.module}"
            assert not {name.split(".")[0] for name in names} & FORBIDDEN, f"{module.name}: {names}"
