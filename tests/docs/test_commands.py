"""The `ieadapt` lines of README.md and docs/ are commands that exist, with flags that exist, and they run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ieadapt.cli import main
from ieadapt.cli.main import COMMANDS, GROUPS

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```sh[^\n]*\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The words of every `ieadapt` line in the shell blocks of a text, without comments and the general example."""
    lines = [line for found in _BLOCK.finditer(text) for line in found["code"].replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("ieadapt ")]
    return [line[1:] for line in words if line[1] != "COMMAND"]


def _listed() -> list[list[str]]:
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [words for path in documents if path.is_file() for words in commands(path.read_text())]


@pytest.mark.parametrize("words", _listed(), ids=" ".join)
def test_every_command_and_flag_exists(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert words[0] in COMMANDS
    assert main([*words[: 1 + (words[0] in GROUPS)], "--help"]) == 0
    explained = capsys.readouterr().out
    assert all(word in explained for word in words if word.startswith("--"))


@pytest.mark.slow
def test_the_commands_of_the_readme_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands((ROOT / "README.md").read_text()):
        assert main(words) == 0, capsys.readouterr().err


def test_commands_are_found() -> None:
    text = "```sh\nieadapt sites shapes --json  # all\nieadapt COMMAND --help\nmake test\n```\n"
    assert commands(text) == [["sites", "shapes", "--json"]]
