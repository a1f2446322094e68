"""The error tree of Forebay. Foreign exceptions (zmq, OSError, msgspec) are mapped to it at each border.

ForebayError
├── ConfigError              the caller: a key, value or file that can't be used; names key, value and place
│   └── UsageError           the caller: an API used wrongly (closed handle, unassigned partition)
│       └── ForkedHandle     the caller: a handle made before fork() used in the child
├── DeserializationError     the caller's deserializer raised; names the record, which `seek` can pass
├── BufferFull               the caller is faster than the brokers and asked not to wait
├── RemoteError              a broker said no; carries Kafka's code, `retriable` and `definite`
│   ├── Fenced               someone newer took over: stop
│   └── CommitFailed         the group has given the partitions to others: what was read is read again
├── TransportError           no answer: the outcome is unknown
│   └── RequestTimedOut
├── ProtocolError            the peer broke the protocol: close that connection
├── CorruptBatch             bytes that are no valid batch; position, expected, found
│   └── DecompressedTooLarge a body that would unpack beyond its limit
├── UnsupportedFormat        a newer version than this program reads
├── NoOffset                 nobody has said where to begin, and auto_offset_reset is "none"
├── LogTruncation            records that were read are gone (unclean election); never skipped in silence
└── StorageError             the disk or the directory said no; path and reason
    ├── DirectoryLocked      another process owns the directory
    ├── ForeignDirectory     another cluster's or broker's directory, or a newer format
    ├── DiskFull             refused before anything was written
    └── LogDirOffline        the directory failed; it takes no more writes
"""

from __future__ import annotations


class ForebayError(Exception):
    """Any error Forebay raises on purpose."""


class ConfigError(ForebayError):
    """A setting can't be used; the message names key, value and place."""


class UsageError(ConfigError):
    """An API was used in a way it can't be."""


class ForkedHandle(UsageError):
    """A delivery handle made before fork() was used in the child."""


class DeserializationError(ForebayError):
    """A deserializer raised; the position stays at this record until `seek` passes it.

    Attributes:
        topic, partition, offset: The record.
    """

    def __init__(self, topic: str, partition: int, offset: int, cause: Exception) -> None:
        super().__init__(
            f"{topic}-{partition}, record {offset}: the deserializer raised {type(cause).__name__}: {cause}; "
            "seek() passes it"
        )
        self.__cause__ = cause
        self.topic = topic
        self.partition = partition
        self.offset = offset


class BufferFull(ForebayError):
    """The producer's buffer.memory is in use and the caller asked not to wait."""


class RemoteError(ForebayError):
    """A broker refused; `code` is Kafka's error code.

    Attributes:
        code: Kafka's number, see ingest.wire.codes.
        retriable: Asking again may succeed.
        definite: Nothing was changed and nothing will be.
    """

    def __init__(self, message: str, *, code: int, retriable: bool = False, definite: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.retriable = retriable
        self.definite = definite


class Fenced(RemoteError):
    """Someone newer took over this producer, leader or broker."""


class CommitFailed(RemoteError):
    """Offsets can't be committed: the group has gone on without this member, others read on from its last commit."""


class TransportError(ForebayError):
    """No answer came; whether the request took effect is unknown."""


class RequestTimedOut(TransportError):
    """The deadline passed without an answer."""


class ProtocolError(ForebayError):
    """The peer sent something that breaks the protocol."""


class CorruptBatch(ForebayError):
    """Bytes that are not a valid batch."""

    def __init__(self, message: str, *, position: int = -1) -> None:
        super().__init__(message)
        self.position = position


class DecompressedTooLarge(CorruptBatch):
    """A compressed body that would unpack beyond its limit."""


class UnsupportedFormat(ForebayError):
    """Written by a newer version than this program reads."""


class NoOffset(ForebayError):
    """A partition has no position, and `auto_offset_reset` "none" gives it none."""


class LogTruncation(ForebayError):
    """Records at a position that was read are gone or replaced."""


class StorageError(ForebayError):
    """The disk or the directory said no."""

    def __init__(self, message: str, *, path: object = "") -> None:
        super().__init__(message)
        self.path = str(path)


class DirectoryLocked(StorageError):
    """Another process owns the directory."""


class ForeignDirectory(StorageError):
    """A directory of another cluster or broker, or of a newer format."""


class DiskFull(StorageError):
    """There is no room; nothing was written."""


class LogDirOffline(StorageError):
    """The directory failed; it takes no more writes in this process."""
