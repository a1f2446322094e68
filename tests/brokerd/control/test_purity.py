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
    "zookeeper/store.py",
    "zookeeper/cluster.py",
    "zookeeper/presence.py",
    "zookeeper/records.py",
    "zookeeper/reign.py",
    "zookeeper/session.py",
}
FORBIDDEN = {"time", "os", "socket", "random", "zmq", "sqlite3", "threading", "asyncio", "datetime", "secrets"}


def test_all_but_the_shell_is_pure() -> None:
    folder = Path(brokerd.control.__path__[0])
    modules = {str(module.relative_to(folder)): module for module in sorted(folder.rglob("*.py"))}
    assert modules.keys() > SHELL
    shell = {f"brokerd.control.{name.removesuffix('.py').replace('/', '.')}" for name in SHELL}
    for name, module in modules.items():
        if name in SHELL:
            continue
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                assert node.module not in shell, f"{name} imports {node.module}"
            assert not {used.split(".")[0] for used in names} & FORBIDDEN, f"{name}: {names}"
