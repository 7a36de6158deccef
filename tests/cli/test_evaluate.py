"""`ieadapt evaluate` and `ieadapt compare`: what is printed, and one line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ieadapt.runs.folder import read_run
from ieadapt.runs.videos import encode_video
from tests.cli.conftest import Program
from tests.metrics import clips


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name, spoil in (("plain", 0.0), ("noisy", 0.1)):
        (tmp_path / name).mkdir()
        for index in range(2):
            video = encode_video(clips.noise(clips.pan(32, 48, 3, 2, index), spoil))
            (tmp_path / name / f"v{index}.mp4").write_bytes(video)
    return tmp_path / "plain", tmp_path / "noisy"


def test_compare_prints_the_table_and_the_notes(folders: tuple[Path, Path], tmp_path: Path, program: Program) -> None:
    (folders[0] / "notes.txt").touch()
    done = program("compare", *folders, "--metrics", "psnr,flicker", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert "noisy against plain: means over videos" in done.out
    assert "psnr (dB)" in done.out
    assert "left out of plain: notes.txt: no video" in done.out
    assert "report:" in done.out
    assert read_run(tmp_path / "run")["status"] == "complete"


def test_evaluate_prints_json_and_its_command_repeats_it(
    folders: tuple[Path, Path], tmp_path: Path, program: Program
) -> None:
    words = ("evaluate", folders[1], "--reference", folders[0], "--metrics", "flicker", "--frames", "2", "--align")
    done = program(*words, "--out", tmp_path / "run", "--json")
    summary = json.loads(done.out)["summary"]
    assert [row["metric"] for row in summary] == ["flicker"]
    again = read_run(tmp_path / "run")["command"].split()[1:]
    assert json.loads(program(*again, "--overwrite", "--json").out)["summary"] == summary


def test_one_bad_video_is_listed_and_the_status_is_one(
    folders: tuple[Path, Path], tmp_path: Path, program: Program
) -> None:
    (folders[1] / "v0.mp4").write_bytes(b"no video")
    words = ("compare", *folders, "--metrics", "psnr", "--out")
    done = program(*words, tmp_path / "run")
    assert done.status == 1
    assert "psnr (dB)" in done.out
    assert "left out: v0: this is no video that can be read" in done.out
    assert done.err.splitlines()[-1].startswith("ieadapt: 1 of 2 videos were left out; got v0: this is no video")
    printed = program(*words, tmp_path / "json", "--json")
    assert (printed.status, list(json.loads(printed.out)["left_out"])) == (1, ["v0"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere"], "there is no such folder of videos; in nowhere"),
        (["plain", "--metrics", "ssmi"], "there is no metric 'ssmi'"),
        (["plain", "--metrics", "psnr"], "the metric psnr needs --reference"),
        (["plain", "--frames", "0"], "--frames must be positive"),
        (["plain", "--prompts", "none.txt"], "the prompts file cannot be read"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: list[str],
    expected: str,
    folders: tuple[Path, Path],
    tmp_path: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in program("evaluate", *words, "--out", "run").refused()
    assert not (tmp_path / "run").exists()
