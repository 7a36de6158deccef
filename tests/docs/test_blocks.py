"""The Python blocks of README.md and docs/ run, in order, each document in one namespace and an empty folder.

A block that needs a downloaded checkpoint or a GPU is opened with ```python title="not run: the reason"
and is only compiled.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```python(?P<info>[^\n]*)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def _documents() -> list[Path]:
    everything = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in everything if path.is_file() and _BLOCK.search(path.read_text())]


@pytest.mark.parametrize("path", _documents(), ids=lambda path: path.name)
def test_code_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
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
