"""Packages that import their modules on first use, so that a command line can be read without torch."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


@cache
def offered(package: str) -> Mapping[str, str]:
    """What a package offers, by name: the module that holds it.

    These are the imports that stand in its text under `if TYPE_CHECKING:`, where type checkers and editors find them.

    Example:
        >>> offered("ieadapt.models")["known_models"]
        'ieadapt.models.location'
    """
    text = Path(str(sys.modules[package].__file__)).read_text()
    blocks = [node for node in ast.parse(text).body if isinstance(node, ast.If)]
    lines = [line for block in blocks for line in block.body if isinstance(line, ast.ImportFrom)]
    return {each.name: str(line.module) for line in lines for each in line.names}


def on_first_use(package: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package that imports what it offers when that is used.

    Example:
        >>> on_first_use("ieadapt.models")("known_models")()["scenes"].family
        'AnimateDiff'
    """

    def attribute(name: str) -> Any:
        if name not in offered(package):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(offered(package)[name]), name)

    return attribute
