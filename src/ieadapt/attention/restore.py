"""Setting an attribute on one instance for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute on one instance, and leave the instance as it was, also after an exception.

    Example:
        >>> class Thing:
        ...     word = "plain"
        >>> thing = Thing()
        >>> with attribute(thing, "word", "other"):
        ...     thing.word
        'other'
        >>> thing.word, vars(thing)
        ('plain', {})
    """
    had, before = name in vars(owner), vars(owner).get(name)
    object.__setattr__(owner, name, value)
    try:
        yield
    finally:
        if had:
            object.__setattr__(owner, name, before)
        else:
            object.__delattr__(owner, name)
