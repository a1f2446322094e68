"""Which partition a record goes to: Kafka's murmur2 of the key, or sticky round robin without one."""

from __future__ import annotations

from collections.abc import Callable

Partitioner = Callable[[str, bytes | None, int], int]  # (topic, key, partitions) -> partition

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_CACHE_MAX = 100_000


def murmur2(data: bytes) -> int:
    """Return the 32-bit murmur2 of `data` as Kafka's Java client computes it, signed.

    Source: org.apache.kafka.common.utils.Utils.murmur2.
    """
    length = len(data)
    hashed = (_SEED ^ length) & _MASK
    whole = length & ~3
    for index in range(0, whole, 4):
        k = int.from_bytes(data[index : index + 4], "little")
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        hashed = ((hashed * _M) & _MASK) ^ k
    if length > whole:
        hashed ^= int.from_bytes(data[whole:], "little")
        hashed = (hashed * _M) & _MASK
    hashed ^= hashed >> 13
    hashed = (hashed * _M) & _MASK
    hashed ^= hashed >> 15
    return hashed - (1 << 32) if hashed & 0x80000000 else hashed


class KeyPartitioner:
    """Kafka's default partitioner for records with a key, its answers remembered per key."""

    def __init__(self, partitions: int) -> None:
        assert partitions > 0
        self._partitions = partitions
        self._cache: dict[bytes, int] = {}

    def __call__(self, key: bytes) -> int:
        partition = self._cache.get(key)
        if partition is None:
            if len(self._cache) >= _CACHE_MAX:
                self._cache.clear()
            partition = self._cache[key] = (murmur2(key) & 0x7FFFFFFF) % self._partitions
        return partition
