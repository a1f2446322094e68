"""SASLprep: one form for user names and passwords that look alike. Pure.

Source: RFC 4013, over RFC 3454 with its tables of Unicode 3.2.
"""

from __future__ import annotations

import stringprep
from unicodedata import ucd_3_2_0

_PROHIBITED = (
    stringprep.in_table_a1,  # unassigned in Unicode 3.2
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class SaslError(Exception):
    """What a client sent gets nobody in; the message is for our log, not for the client, and holds no secret."""


def saslprep(text: str) -> str:
    """Return the form of a text that is compared, as of a stored string.

    Raises:
        SaslError: it holds something that is prohibited, or mixes directions of writing.
    """
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    found = ucd_3_2_0.normalize("NFKC", mapped)
    if any(prohibited(char) for char in found for prohibited in _PROHIBITED):
        raise SaslError("a character that SASLprep prohibits")
    if any(map(stringprep.in_table_d1, found)):
        ends = stringprep.in_table_d1(found[0]) and stringprep.in_table_d1(found[-1])
        if not ends or any(map(stringprep.in_table_d2, found)):
            raise SaslError("both directions of writing")
    return found
