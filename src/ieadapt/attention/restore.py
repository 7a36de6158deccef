"""Leaving a model and the process as they were: after any exception, and in whatever order blocks are left."""

from __future__ import annotations

import copy
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode


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


class _Layered:
    """A method of one instance with layers around it, the latest outermost."""

    def __init__(self, method: Callable[..., Any]) -> None:
        functools.update_wrapper(self, method)  # pipelines read the signature
        self.method = method
        self.layers: list[Callable[..., Any]] = []
        self.was_own = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        proceed = self.method
        for layer in self.layers:
            proceed = functools.update_wrapper(functools.partial(layer, proceed), self.method)
        return proceed(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.method, memo)  # a copied scheduler is nobody's business


@contextmanager
def around(owner: Any, name: str, layer: Callable[..., Any]) -> Iterator[None]:
    """Put `layer(proceed, *args, **kwargs)` around a method of one instance; the method itself where there is none.

    Blocks may be left in any order: each takes away its own layer, and the last one restores the instance.

    Example:
        >>> class Thing:
        ...     def double(self, number):
        ...         return 2 * number
        >>> thing = Thing()
        >>> with around(thing, "double", lambda proceed, number: proceed(number) + 1):
        ...     thing.double(4)
        9
        >>> thing.double(4), vars(thing)
        (8, {})
    """
    if getattr(owner, name, None) is None:
        yield
        return
    layered = vars(owner).get(name)
    if not isinstance(layered, _Layered):
        layered = _Layered(getattr(owner, name))
        layered.was_own = name in vars(owner)
        object.__setattr__(owner, name, layered)
    layered.layers.append(layer)
    try:
        yield
    finally:
        layered.layers.remove(layer)
        if not layered.layers and vars(owner).get(name) is layered:
            if layered.was_own:
                object.__setattr__(owner, name, layered.method)
            else:
                object.__delattr__(owner, name)


@contextmanager
def function_mode(mode: TorchFunctionMode) -> Iterator[None]:
    """Keep a function mode on this thread for the length of the block.

    PyTorch's own way of leaving takes away whatever mode is on top, another's if blocks are not left in order.
    """
    _push_mode(mode)
    try:
        yield
    finally:
        above = []
        if mode in _get_current_function_mode_stack():  # not where a generator is finalised by another thread
            while (top := _pop_mode()) is not mode:
                above.append(top)
        for other in reversed(above):
            _push_mode(other)


class _Eager:
    """Runs compiled code eagerly while any block needs it, in any thread: the compiler's stance is the process's."""

    def __init__(self) -> None:
        self._lock, self._blocks = threading.Lock(), 0
        self._stance: Any = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if "torch._dynamo" not in sys.modules:  # nothing can have been compiled
            yield
            return
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                self._stance = torch.compiler.set_stance("force_eager")
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    self._stance.__exit__(None, None, None)


eagerly = _Eager()
"""A block in which compiled code runs eagerly."""
