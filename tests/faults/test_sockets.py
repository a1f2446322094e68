"""The files of the sockets are removed under the processes that listen on them: nobody could connect any more."""

from __future__ import annotations

import random

from tests.faults.appliance import ProcessTree, await_value
from tests.faults.trial import Trial


def test_sockets_whose_files_somebody_removed_are_bound_anew(tree: ProcessTree) -> None:
    with Trial(tree, random.randrange(10**9)) as trial:
        trial.fleet.await_more(300)
        paths = list(tree.run_dir.glob("*.sock"))
        assert {path.name for path in paths} >= {"controller.sock", "broker-1.sock", "broker-1-peer.sock"}
        for path in paths:
            path.unlink()
        await_value(lambda: all(path.exists() for path in paths), "the sockets to be there", explain=tree.log_tail)
        trial.judge()
