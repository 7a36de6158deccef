"""The Python blocks of README.md and docs/ run, in order, each document in one namespace and an empty folder.

Documents that load the bundled model share one pipeline; the first block that changed it would break the next document.
A block that needs a downloaded checkpoint or a GPU is opened with ```python title="not run: the reason"
and is only compiled; those of docs/examples run on tiny pipelines, in `test_examples.py`.
A page whose blocks take long holds the comment `<!-- blocks: slow -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import ieadapt

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```python(?P<info>[^\n]*)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


_SLOW = "<!-- blocks: slow -->"
_loaded: Callable[..., Any] = cache(ieadapt.load)


def _documents() -> list[Any]:
    everything = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    written = {path: path.read_text() for path in everything if path.is_file() and path.parent.name != "examples"}
    return [
        pytest.param(path, id=path.name, marks=[pytest.mark.slow] if _SLOW in text else [])
        for path, text in written.items()
        if _BLOCK.search(text)
    ]


@pytest.mark.parametrize("path", _documents())
def test_code_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ieadapt, "load", _loaded, raising=False)
    namespace: dict[str, object] = {"__name__": "document"}
    text = path.read_text()
    for found in _BLOCK.finditer(text):
        line = text[: found.start()].count("\n") + 2
        compiled = compile("\n" * (line - 1) + found["code"], str(path), "exec")
        if "not run:" not in found["info"]:
            exec(compiled, namespace)


def test_a_block_is_found_and_one_not_to_be_run_is_told_apart() -> None:
    found = list(_BLOCK.finditer('```python\na = 1\n```\ntext\n```python title="not run: needs a GPU"\nb\n```\n'))
    assert [block["code"] for block in found] == ["a = 1\n", "b\n"]
    assert ["not run:" in block["info"] for block in found] == [False, True]
