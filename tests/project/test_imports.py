"""Imports go one way: each package may import only what is listed for it here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "ieadapt"

_CORE = {"errors", "lazy", "notation", "functional"}
_TOOLS = _CORE | {"files", "attention", "interventions", "metrics", "models", "testbed"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "lazy": set(),
    "files": {"errors"},
    "notation": {"errors"},
    "functional": {"errors", "notation"},
    "attention": _CORE,
    "interventions": _CORE | {"attention"},
    "metrics": _CORE,
    "testbed": _CORE | {"files"},
    "models": _CORE | {"attention", "testbed"},
    "runs": _TOOLS,
    "tasks": _TOOLS | {"runs"},
    "web": _TOOLS | {"runs", "tasks"},
    "cli": _TOOLS | {"runs", "tasks", "web"},
    "__init__": {"lazy"} | _TOOLS | {"runs", "tasks"},
    "__main__": {"cli"},
}
_MADE = {"generate", "measure", "price"}
TASKS: dict[str, set[str]] = {
    "generate": set(),
    "scores": set(),
    "price": {"generate"},
    "pairs": {"generate"},
    "measure": {"generate"},
    "maps": {"generate", "measure"},
    "evaluate": set(),
    "perturb": _MADE | {"evaluate", "pairs"},
    "study": _MADE | {"evaluate", "maps", "scores"},
    "enhance": _MADE | {"pairs"},
    "edit": _MADE | {"evaluate", "maps", "pairs"},
    "screen": _MADE | {"study"},
    "tune": _MADE | {"enhance", "scores", "study"},
    "bench": _MADE | {"edit", "enhance", "evaluate"},
    "demo": _MADE | {"edit", "enhance", "evaluate", "pairs"},
    "__init__": set(),
}
"""Which other tasks a task may import."""


def packages_imported(source: str) -> set[str]:
    """The parts of ieadapt that a module's text imports, wherever in the module; "" for ieadapt itself."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "ieadapt":
            names |= {f"ieadapt.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    inside = [name.split(".") for name in names if name.split(".")[0] == "ieadapt"]
    return {parts[1] if len(parts) > 1 else "" for parts in inside}


def _part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def test_every_part_has_a_place_in_the_order() -> None:
    assert {_part(path) for path in _modules()} <= set(ALLOWED), "say in ALLOWED what the new part may import"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    part = _part(path)
    wrong = packages_imported(path.read_text()) - ALLOWED.get(part, set()) - {part, "__version__"}
    assert not wrong, f"{path.relative_to(SOURCE)} may not import {sorted(wrong)}"


def test_tasks_import_one_way() -> None:
    tasks = SOURCE / "tasks"
    for path in sorted(tasks.rglob("*.py")):
        task = path.relative_to(tasks).parts[0].removesuffix(".py")
        lines = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        names = [line.module.split(".") for line in lines if (line.module or "").startswith("ieadapt.tasks.")]
        wrong = {name[2] for name in names} - TASKS[task] - {task}
        assert not wrong, f"{path.relative_to(SOURCE)} may not import the tasks {sorted(wrong)}"


def test_only_its_command_imports_the_web_app() -> None:
    importing = {path for path in _modules() if _part(path) != "web" and "web" in packages_imported(path.read_text())}
    assert importing == {SOURCE / "cli" / "web.py"}


def test_the_check_sees_each_form_of_import() -> None:
    text = "import ieadapt.cli\nfrom ieadapt import runs\ndef f():\n    from ieadapt.tasks.x import y\nimport ieadapt"
    assert packages_imported(text) == {"cli", "runs", "tasks", ""}
