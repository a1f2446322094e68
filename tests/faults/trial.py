"""A fault run: an appliance under load with readers all through it, and the judgement when the faults are over."""

from __future__ import annotations

import random
from contextlib import ExitStack
from types import TracebackType

from ingest.admin import Admin
from ingest.wire.messages import PartitionMetadata
from tests.faults.appliance import TOPIC, ProcessTree, await_value
from tests.faults.copies import await_in_sync, compare_copies
from tests.faults.fleet import Fleet
from tests.faults.history import History
from tests.faults.native import FIRST_SOURCE, NativeProducer
from tests.faults.readers import MappedReader, Tail, read_back

HEALED_S = 30.0  # so long after the last fault everything is as it was (I20)


class Trial:
    """Devices and producers of a topic, mapped readers of every replica, consumers that follow; all in threads.

    Args:
        copies: Replicas of each partition.
        natives: Producers beside the devices.
        configs: Of the topic.

    Attributes:
        topic_id: Of the topic it is about.
        history: What was sent and acknowledged.
        dice: For whoever breaks things, from the seed.
    """

    def __init__(
        self,
        tree: ProcessTree,
        seed: int,
        *,
        copies: int = 3,
        partitions: int = 6,
        devices: int = 20,
        per_s: int = 400,
        natives: int = 2,
        patience_s: float = 2.0,
        **configs: str,
    ) -> None:
        print(f"seed {seed}")
        self.tree = tree
        self.dice = random.Random(seed)
        self.history = History(seed)
        self.topic_id = tree.create_topic(TOPIC, partitions, copies, **{"segment_bytes": "65536", **configs})
        self.mapped = [MappedReader(tree.data_dir, seed=number) for number in range(2)]
        self.tails = [Tail(tree.bootstrap, TOPIC, local=local) for local in (True, False)]
        self.fleet = Fleet(
            self.history,
            lambda: tree.mqtt_port,
            devices=devices,
            messages=1_000_000,
            per_s=per_s,
            patience_s=patience_s,
            seed=seed,
        )
        self.natives = [
            NativeProducer(self.history, tree.bootstrap, TOPIC, source=FIRST_SOURCE + number)
            for number in range(natives)
        ]
        self._stack = ExitStack()

    def __enter__(self) -> Trial:
        with ExitStack() as stack:
            for one in (*self.mapped, *self.tails, self.fleet, *self.natives):
                stack.enter_context(one)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    # ---- where it stands

    def partitions(self) -> list[PartitionMetadata]:
        """Return what the cluster says of the topic's partitions now, by number."""
        with Admin(self.tree.bootstrap) as admin:
            return sorted(admin.describe_topic(TOPIC).partitions, key=lambda item: item.partition)

    def await_leader(self, partition: int, epoch_min: int, timeout_s: float = HEALED_S) -> PartitionMetadata:
        """Wait until somebody leads a partition in such an epoch or a later one."""

        def led() -> PartitionMetadata | None:
            found = self.partitions()[partition]
            return found if found.leader > 0 and found.leader_epoch >= epoch_min else None

        found = await_value(led, f"a leader of partition {partition}", timeout_s, self.tree.log_tail)
        assert found is not None
        return found

    def await_leaders_but(self, *brokers: int, timeout_s: float = HEALED_S) -> list[PartitionMetadata]:
        """Wait until others than these brokers lead everything."""

        def led() -> list[PartitionMetadata]:
            found = self.partitions()
            return found if all(item.leader > 0 and item.leader not in brokers for item in found) else []

        return await_value(led, f"others than {brokers} to lead", timeout_s, self.tree.log_tail)

    def await_in_sync(self, timeout_s: float = HEALED_S) -> None:
        await_in_sync(self.tree, TOPIC, timeout_s)

    def prefer_leaders(self) -> None:
        """Have each partition led by its first replica, as it was at the start; they are all in sync."""
        with Admin(self.tree.bootstrap) as admin:
            admin.elect_leaders()

        def preferred() -> bool:
            return all(item.leader == item.replicas[0] for item in self.partitions())

        await_value(preferred, "the preferred leaders", explain=self.tree.log_tail)

    # ---- the end

    def judge(self, timeout_s: float = HEALED_S) -> dict[int, list[bytes]]:
        """See to it that all is whole within the time, and that nothing acknowledged is lost; return what is there."""
        self.tree.await_ready(timeout_s)
        self.await_in_sync(timeout_s)
        self.fleet.finish()
        for native in self.natives:
            native.finish()
            assert native.failures == []
        by_map = read_back(self.tree.bootstrap, TOPIC, local=True)
        by_fetch = read_back(self.tree.bootstrap, TOPIC, local=False)
        assert self.history.check(by_map) == [], self.tree.log_tail()
        assert by_map == by_fetch
        for tail in self.tails:
            tail.await_ends({partition: len(values) for partition, values in by_map.items()})
            assert tail.problems == []
            assert tail.values == {partition: values for partition, values in by_map.items() if values}
        for reader in self.mapped:
            assert not reader.problems, reader.problems
            assert reader.batches, "a mapped reader saw nothing"
        await_value(lambda: not compare_copies(self.tree, TOPIC), "the copies to be equal", 10)
        return by_map
