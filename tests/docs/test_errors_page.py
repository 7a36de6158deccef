"""Every heading of docs/errors.md is the text of an error that the package raises."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
_GAP = "…"


def problems(source: str) -> set[str]:
    """What every error made in a module's text says first, with … for what is filled in."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args]
    named = [(call.func.id, call.args) for call in calls if isinstance(call.func, ast.Name)]
    made = [arguments[0] for name, arguments in named if name.endswith("Error")]
    return {_text(node) for node in [*made, *(arguments[1] for name, arguments in named if name == "raised_as")]}


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            return "".join(_text(part) for part in node.values)
        case ast.BinOp(op=ast.Add()):
            return _text(node.left)
        case _:
            return _GAP


def test_every_heading_is_an_error_of_the_package() -> None:
    made = {text for path in (ROOT / "src").rglob("*.py") for text in problems(path.read_text())}
    lines = (ROOT / "docs" / "errors.md").read_text().splitlines()
    headings = [line.removeprefix("### ") for line in lines if line.startswith("### ")]
    assert len(headings) > 25
    assert not [heading for heading in headings if heading not in made]


def test_problems_are_found_in_every_form() -> None:
    text = "raise UsageError('a b')\nFailureError(f'{x} of {y:.1f} sites')\nUsageError(f'no {x}' + (z if z else ''))"
    text += "\nwith raised_as(UsageError, 'no file', OSError):\n    pass"
    assert problems(text) == {"a b", "… of … sites", "no …", "no file"}
