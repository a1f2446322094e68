"""CRC-32C (Castagnoli), the checksum of every batch, row and page in Forebay."""

from crc32c import crc32c

__all__ = ["crc32c"]
