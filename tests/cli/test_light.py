"""Help, the list of models and refusals come at once: nothing heavy is imported for them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ieadapt.cli.main import COMMANDS

HEAVY = {"torch", "diffusers", "transformers", "gradio", "polars", "matplotlib", "plotly", "av", "numpy", "PIL", "ray"}
HELP = [[name, "--help"] for name in COMMANDS] + [["bench", "vbench", "--help"], ["bench", "v2v", "--help"]]
REFUSALS = [
    ["measure", "scenes", "--prompt", "a", "--nonsense"],
    ["enhance", "scenes", "--prompt", "a", "--preset", "nonsense"],
    ["edit", "scenes", "--video", "a.mp4", "--prompt", "b", "--preset", "nonsense"],
    ["measure", "scenes"],
    ["study", "scenes"],
    ["perturb", "scenes", "--prompt", "a", "--perturbation", "nonsense"],
    ["generate"],
    ["enhance", "scenes", "--prompt", "a", "--steps", "many"],
    ["enhance", "scenes", "--prompt", "a", "--steps", "0"],
    ["screen", "scenes", "--prompt", "a", "--at", "2"],
]
_RUN = """
import contextlib, io, json, sys
from ieadapt.cli import main
for words in json.loads(sys.argv[1]):
    before = set(sys.modules)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = main(words)
    print(json.dumps([words, status, sorted(set(sys.modules) - before)]))
"""


@pytest.fixture(scope="module")
def runs() -> dict[tuple[str, ...], tuple[int, set[str]]]:
    """By command line: its exit status, and what it imported, in one process after the other commands."""
    lines = [*HELP, ["--help"], ["--version"], ["models"], ["models", "--json"], *REFUSALS]
    return _imported(lines)


def _imported(lines: list[list[str]]) -> dict[tuple[str, ...], tuple[int, set[str]]]:
    command = [sys.executable, "-c", _RUN, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {tuple(words): (status, {name.split(".")[0] for name in names}) for words, status, names in rows}


def test_help_and_the_list_of_models_import_nothing_heavy(runs: dict[tuple[str, ...], tuple[int, set[str]]]) -> None:
    for words in (*map(tuple, HELP), ("--help",), ("--version",), ("models",), ("models", "--json")):
        status, imported = runs[words]
        assert status == 0, words
        assert not imported & HEAVY, words


def test_refusals_import_nothing_heavy(runs: dict[tuple[str, ...], tuple[int, set[str]]]) -> None:
    for words in map(tuple, REFUSALS):
        status, imported = runs[words]
        assert status == 2, words
        assert not imported & HEAVY, words


def test_a_command_that_loads_a_model_imports_what_it_needs() -> None:
    ((status, imported),) = _imported([["sites", "no-such-model"]]).values()
    assert status == 2
    assert "torch" in imported, "the test would see torch"
