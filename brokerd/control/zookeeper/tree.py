"""The tree of nodes a cluster has in ZooKeeper, and the operations that carry a commit into it; pure.

    /cluster/id              whose tree, which format; made once with all the rest, never changed
    /controller              ephemeral: who is the controller
    /controller_epoch        a number; every transaction of a controller checks the version of this node
    /brokers/ids/<id>        ephemeral: the machine of a broker is there
    /brokers/next_id         a number; no broker has had this id or a greater one
    /journal, /journal/<n>   a commit too large for one transaction, until it is carried out
    /records/<path>          the records, each at its `record.path`

A record's node holds its checksum in hex, a space and its JSON. A node without a value is only there for its children.
The bytes: docs/format/metadata-store.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from brokerd.control.records import BrokerConfigsRecord, Change, Put, Record, Remove, encode_record
from brokerd.control.stored import check_value, checksum, decode_stored
from ingest.errors import StorageError

FORMAT = 1
APPLICATION = "forebay"
IDENTITY = "/cluster/id"
CONTROLLER = "/controller"
CONTROLLER_EPOCH = "/controller_epoch"
BROKER_IDS = "/brokers/ids"
NEXT_BROKER_ID = "/brokers/next_id"
JOURNAL = "/journal"
RECORDS = "/records"
_OVERHEAD_BYTES = 160  # of one operation: headers, lengths, an ACL with a digest; the chroot comes on top


class Identity(msgspec.Struct, frozen=True):
    """Whose tree this is. Kafka has `version` and `id` here and no `application`."""

    cluster_id: str
    application: str = ""
    format: int = 0


class ControllerNode(msgspec.Struct, frozen=True):
    """Who is the controller; for other candidates, for brokers and for people."""

    endpoint: str
    machine: str
    pid: int
    controller_epoch: int


class BrokerNode(msgspec.Struct, frozen=True, omit_defaults=True):
    """A broker's presence; `machine` is whose candidate keeps the node.

    The rest is what Kafka's brokers write there, version 4, for tools that look for them in ZooKeeper; left out where
    Kafka's clients don't find the broker at its machine. `host` and `port` are those of PLAINTEXT, null and -1 without.
    Source: Kafka's BrokerIdZNode, kafka.zk.ZkData.
    """

    machine: str
    version: int = 0
    listener_security_protocol_map: dict[str, str] = {}
    endpoints: list[str] = []
    host: str | None = ""
    port: int = 0
    jmx_port: int = 0
    timestamp: str = ""


class Journal(msgspec.Struct, frozen=True):
    """What is to be carried out: nothing, or the changes that stand in this many parts; `crc` over all of them."""

    parts: int = 0
    crc: int = 0


@dataclass(frozen=True, slots=True)
class Create:
    path: str
    value: bytes = b""
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class SetData:
    path: str
    value: bytes
    version: int = -1


@dataclass(frozen=True, slots=True)
class Delete:
    path: str
    version: int = -1


@dataclass(frozen=True, slots=True)
class Check:
    path: str
    version: int


Operation = Create | SetData | Delete | Check


def new_tree(cluster_id: str, broker_configs: Mapping[str, str]) -> list[Operation]:
    """Return what makes the tree of a cluster without brokers, in one transaction."""
    identity = msgspec.json.encode(Identity(cluster_id, APPLICATION, FORMAT))
    return [
        Create("/cluster"),
        Create(IDENTITY, identity),
        Create(CONTROLLER_EPOCH, b"0"),
        Create("/brokers"),
        Create(BROKER_IDS),
        Create(NEXT_BROKER_ID, b"1"),
        Create(JOURNAL, msgspec.json.encode(Journal())),
        Create(RECORDS),
        *RecordTree().plan([Put(BrokerConfigsRecord(dict(broker_configs)))]),
    ]


def broker_node(machine: str, kafka_endpoints: Sequence[str], now_ms: int) -> BrokerNode:
    """Return what stands in a broker's node.

    Args:
        kafka_endpoints: PLAINTEXT://host:port and the like; none: Kafka's tools are told nothing.
        now_ms: ms since 1970.
    """
    if not kafka_endpoints:
        return BrokerNode(machine)
    by_name = {name: address for name, _, address in (one.partition("://") for one in kafka_endpoints)}
    host, _, port = by_name.get("PLAINTEXT", "").rpartition(":")
    return BrokerNode(
        machine,
        version=4,
        listener_security_protocol_map={name: name for name in by_name},
        endpoints=list(kafka_endpoints),
        host=host or None,
        port=int(port or -1),
        jmx_port=-1,
        timestamp=str(now_ms),
    )


def broker_path(broker_id: int) -> str:
    return f"{BROKER_IDS}/{broker_id}"


def encode_value(record: Record) -> bytes:
    """Return what a record's node holds."""
    value = encode_record(record)
    return b"%08x %s" % (checksum(record.path, value), value)


def decode_value(where: object, node_path: str, held: bytes) -> Record:
    """Return the record of a node under /records.

    Raises:
        StorageError: it is damaged, or stands at another record's path.
    """
    path = node_path.removeprefix(RECORDS)
    crc, separator, value = held[:8], held[8:9], held[9:]
    try:
        expected = int(crc, 16)
    except ValueError:
        expected = -1
    if expected < 0 or separator != b" ":
        raise StorageError(f"{where}: {node_path} is damaged: it does not begin with a checksum", path=where)
    check_value(where, path, value, expected)
    record = decode_stored(where, path, value)
    if record.path != path:
        raise StorageError(f"{where}: {node_path} holds the record of {record.path}", path=where)
    return record


class RecordTree:
    """Which nodes there are under /records: it takes knowing that to tell a create from a set.

    Only the controller changes them, so what it loaded and committed is what is there; after a commit whose outcome
    is unknown the tree is read anew.
    """

    def __init__(self) -> None:
        self._is_record: dict[str, bool] = {RECORDS: False}
        self._children: Counter[str] = Counter()

    def add(self, path: str, *, is_record: bool) -> None:
        """Note a node that was read, its parent before it."""
        assert path not in self._is_record
        self._is_record[path] = is_record
        self._children[_parent(path)] += 1

    def plan(self, changes: Sequence[Change]) -> list[Operation]:
        """Return the operations of a commit and count them done. Doing them twice does no harm if planned twice.

        Parents come before their children, and go after them; a put wins over a removal of the same path, as in every
        store. Nodes whose only use were their children go with the last one.
        """
        wanted = {RECORDS + c.record.path: encode_value(c.record) for c in changes if isinstance(c, Put)}
        removed = {RECORDS + c.record.path for c in changes if isinstance(c, Remove)} - wanted.keys()
        operations: list[Operation] = []
        for path in sorted(wanted, key=_depth):
            operations += self._missing_parents(path)
            if path in self._is_record:
                self._is_record[path] = True
                operations.append(SetData(path, wanted[path]))
            else:
                self.add(path, is_record=True)
                operations.append(Create(path, wanted[path]))
        for path in sorted(removed, key=_depth, reverse=True):
            if self._is_record.get(path):
                self._is_record[path] = False
                if self._children[path]:
                    operations.append(SetData(path, b""))
                operations += self._prune(path)
        return operations

    def _missing_parents(self, path: str) -> list[Operation]:
        missing: list[Operation] = []
        parent = _parent(path)
        while parent not in self._is_record:
            missing.append(Create(parent))
            parent = _parent(parent)
        missing.reverse()
        for create in missing:
            self.add(create.path, is_record=False)
        return missing

    def _prune(self, path: str) -> Iterator[Operation]:
        while path != RECORDS and not self._is_record[path] and not self._children[path]:
            yield Delete(path)
            del self._is_record[path]
            del self._children[path]
            path = _parent(path)
            self._children[path] -= 1


def request_bytes(operations: Iterable[Operation]) -> int:
    """Return how large the request of these operations is at most, but for the chroot of each path."""
    return sum(
        _OVERHEAD_BYTES + len(o.path) + (len(o.value) if isinstance(o, Create | SetData) else 0) for o in operations
    )


def split(operations: Sequence[Operation], bytes_max: int) -> Iterator[list[Operation]]:
    """Yield the operations in their order, in transactions of at most so many bytes, or of one operation."""
    piece: list[Operation] = []
    size = 0
    for operation in operations:
        more = request_bytes([operation])
        if piece and size + more > bytes_max:
            yield piece
            piece, size = [], 0
        piece.append(operation)
        size += more
    if piece:
        yield piece


def encode_journal(changes: Sequence[Change], bytes_max: int) -> tuple[Journal, list[bytes]]:
    """Return a commit as the nodes of the journal: a line a change, cut into parts of at most so many bytes."""
    body = b"\n".join((b"+" if isinstance(c, Put) else b"-") + encode_record(c.record) for c in changes)
    parts = [body[at : at + bytes_max] for at in range(0, len(body), bytes_max)]
    return Journal(len(parts), checksum(JOURNAL, body)), parts


def decode_journal(where: object, journal: Journal, parts: Sequence[bytes]) -> list[Change]:
    """Return the commit of a journal.

    Raises:
        StorageError: it is damaged.
    """
    body = b"".join(parts)
    check_value(where, JOURNAL, body, journal.crc)
    changes: list[Change] = []
    for line in body.split(b"\n"):
        record = decode_stored(where, JOURNAL, line[1:])
        changes.append(Put(record) if line[:1] == b"+" else Remove(record))
    return changes


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _depth(path: str) -> int:
    return path.count("/")
