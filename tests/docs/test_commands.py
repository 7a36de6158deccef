"""The `ieadapt` lines of README.md and docs/ are commands that exist, with flags that exist, and they run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from ieadapt.cli import main
from ieadapt.cli.main import COMMANDS, GROUPS
from ieadapt.runs.videos import encode_video
from tests.tiny import build

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```sh[^\n]*\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^```yaml title=\"(?P<name>[^\"]+)\"\n(?P<content>.*?)^```", re.MULTILINE | re.DOTALL)


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
def test_the_commands_of_the_readme_run_one_after_the_other_with_a_model_of_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    build("animatediff").save_pretrained("my-model")
    Path("few.txt").write_text("a red ball\na dog in snow\n")
    Path("prompts.txt").write_text("\n".join(f"a dog in snow, number {number}" for number in range(12)))
    ran = [words for words in commands((ROOT / "README.md").read_text()) if "MODEL" in words]
    assert [words[0] for words in ran] == ["sites", "screen", "tune", "enhance"]
    for words in ran:
        quick = [] if words[0] == "sites" else ["--steps", "2"]
        quick += ["--candidates", "2"] if words[0] == "tune" else []
        assert main([word.replace("MODEL", "my-model") for word in words] + quick) == 0, capsys.readouterr().err


_TASKS = ("index", "find-layers", "better-video", "edit-a-clip", "cluster")
_SHORT = {
    "maps": {"--at-steps": "0,1", "--steps": "2"},
    "study": {"--steps": "2", "--sites": "mid_block.motion_modules.*", "--seeds": "1"},
    "screen": {"--steps": "2"},
    "edit": {"--steps": "4"},
}


def shortened(words: list[str]) -> list[str]:
    """The same command with two or four steps, and a study of the middle block's temporal sites alone."""
    short = _SHORT.get(words[0], {"--steps": "2", "--seeds": "1"})
    if words[0] == "study" and "--prompts" in words and "--sites" not in words:
        words = [*words, "--sites", "all"]
    return [short.get(flag, word) for flag, word in zip([None, *words], words, strict=False)]


@pytest.mark.slow
@pytest.mark.parametrize("page", _TASKS)
def test_the_commands_of_a_page_run_one_after_the_other(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / f"{page}.md").read_text()
    Path("prompts.txt").write_text("a big red star moving left over bricks\n")
    Path("clip.mp4").write_bytes(encode_video(torch.rand(16, 3, 128, 128)))
    for file in _FILE.finditer((ROOT / "docs" / "edit-a-clip.md").read_text()):
        Path(file["name"]).write_text(file["content"])
    for words in commands(text):
        if "ray" not in words:  # an engine with tests of its own
            assert main(shortened(words)) == 0, capsys.readouterr().err


def test_a_command_is_shortened_in_its_numbers_only() -> None:
    words = ["study", "scenes", "--prompts", "prompts.txt", "--steps", "20", "--out", "runs/study"]
    assert shortened(words) == [*words[:5], "2", *words[6:], "--sites", "mid_block.motion_modules.*"]
    assert shortened(["study", "--status", "runs/study"]) == ["study", "--status", "runs/study"]


def test_commands_are_found() -> None:
    text = "```sh\nieadapt sites scenes --json  # all\nieadapt COMMAND --help\nmake test\n```\n"
    assert commands(text) == [["sites", "scenes", "--json"]]
