"""MQTT topic names and filters: which are valid, and which filter matches which name.

Source: MQTT 5.0 section 4.7.
"""

from __future__ import annotations


def name_problem(topic: str) -> str:
    """Tell why nothing can be published under this name; empty: it can."""
    if not topic:
        return "the topic is empty"
    if "+" in topic or "#" in topic:
        return f"topic {topic[:80]!r} holds a wildcard"  # MQTT-3.3.2-2
    if "\0" in topic:
        return f"topic {topic[:80]!r} holds NUL"
    return ""


def filter_problem(pattern: str) -> str:
    """Tell why this is no topic filter; empty: it is one."""
    if not pattern or "\0" in pattern:
        return f"topic filter {pattern[:80]!r} is empty or holds NUL"
    levels = pattern.split("/")
    for number, level in enumerate(levels):
        if "#" in level and (level != "#" or number != len(levels) - 1):
            return f"topic filter {pattern[:80]!r}: '#' stands alone, as the last level"  # MQTT-4.7.1-1
        if "+" in level and level != "+":
            return f"topic filter {pattern[:80]!r}: '+' fills a whole level"  # MQTT-4.7.1-2
    return ""


def wildcard_count(pattern: str) -> int:
    """Return how many wildcards a filter has."""
    return sum(level in ("+", "#") for level in pattern.split("/"))


def match(pattern: list[str], levels: list[str]) -> list[str] | None:
    """Return what each wildcard stands for, None where the filter does not match. Both come split at '/'."""
    if levels[0][:1] == "$" and pattern[0] in ("+", "#"):
        return None  # MQTT-4.7.2-1
    found: list[str] = []
    for number, level in enumerate(pattern):
        if level == "#":
            found.append("/".join(levels[number:]))
            return found
        if number >= len(levels):
            return None
        if level == "+":
            found.append(levels[number])
        elif level != levels[number]:
            return None
    return found if len(levels) == len(pattern) else None
