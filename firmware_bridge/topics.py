"""MQTT topic filters: which are allowed, and which topics they match.

Source: MQTT 5.0, 4.7 (topic names and filters) and 4.8.2 (shared subscriptions); 3.1.1 has the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_FILTER_LENGTH = 256
SHARE = "$share"


def check_filter(text: str) -> str:
    """`text` as a topic filter.

    Raises: ValueError: one that MQTT does not allow; the message says what is wrong.
    """
    if not 0 < len(text) <= MAX_FILTER_LENGTH or "\0" in text:
        raise ValueError(f'topic "{text[:60]}" has {len(text)} characters; 1 to {MAX_FILTER_LENGTH} are allowed')
    shared = text.split("/", 2) if text.startswith(f"{SHARE}/") else None
    if shared is not None and (len(shared) < 3 or not shared[1] or not shared[2] or set("+#") & set(shared[1])):
        raise ValueError(f'topic "{text}": a shared subscription is written {SHARE}/group/topic')
    levels = filter_levels(text)
    for place, level in enumerate(levels):
        if "#" in level and (level != "#" or place != len(levels) - 1):
            raise ValueError(f'topic "{text}": # stands alone, as the last level')
        if "+" in level and level != "+":
            raise ValueError(f'topic "{text}": + stands alone in its level; it cannot be a part of "{level}"')
    return text


def filter_levels(text: str) -> tuple[str, ...]:
    """The levels that a topic is compared with: a shared subscription's without $share and its group."""
    levels = tuple(text.split("/"))
    return levels[2:] if levels[0] == SHARE else levels


def unshared(text: str) -> str:
    """The filter itself, without $share and its group: every subscriber then gets every message."""
    return "/".join(filter_levels(text))


def matches(levels: Sequence[str], topic: Sequence[str]) -> bool:
    """Whether a filter's levels match a topic's. A wildcard at the start does not match the broker's own ($SYS) topics."""
    if levels[0] in ("+", "#") and topic[0].startswith("$"):
        return False
    for place, level in enumerate(levels):
        if level == "#":
            return True
        if place >= len(topic) or level not in ("+", topic[place]):
            return False
    return len(topic) == len(levels)
