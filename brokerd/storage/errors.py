"""What a log refuses. Definite refusals carry Kafka's code, so that the server passes them on as they are."""

from __future__ import annotations

from ingest.errors import CorruptBatch, Fenced, RemoteError, StorageError
from ingest.wire.codes import ErrorCode


class MessageTooLarge(RemoteError):
    """The batch passes max.message.bytes; nothing was written."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=int(ErrorCode.MESSAGE_TOO_LARGE))


class InvalidRecord(RemoteError):
    """The batch contradicts itself or the topic's settings; nothing was written."""

    def __init__(self, message: str, *, code: ErrorCode = ErrorCode.INVALID_RECORD) -> None:
        super().__init__(message, code=int(code))


class SequenceError(RemoteError):
    """A gap in an idempotent producer's sequence; nothing was written."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=int(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER))


class ProducerFenced(Fenced):
    """A producer of a newer epoch has taken over this producer id; nothing was written."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=int(ErrorCode.INVALID_PRODUCER_EPOCH))


class OffsetOutOfRange(RemoteError):
    """The offset is not between log start and the end that was given."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=int(ErrorCode.OFFSET_OUT_OF_RANGE))


class StaleLeaderEpoch(StorageError):
    """Leadership was granted under an epoch that the log already knows: the metadata store went back."""


class DamagedLog(StorageError):
    """Files that don't make up one log: a stray, overlapping, missing or newer one. Nothing was changed."""


class Uncleanable(StorageError):
    """A log that can't be compacted as it is. Nothing was changed."""


class QuarantinedBatch(CorruptBatch):
    """Bytes of the log that are no valid batch.

    Attributes:
        next_offset: The next offset that can be read; the log's end if there is none.
    """

    def __init__(self, message: str, *, position: int = -1, next_offset: int) -> None:
        super().__init__(message, position=position)
        self.next_offset = next_offset
