"""`ieadapt perturb` on a tiny model: original and perturbed from the same noise, only where and when it was asked."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import torch

from ieadapt.runs.folder import read_run
from tests.cli.conftest import SIZE, Program
from tests.runs.files import decode_video

RED = ("--prompt", "a red ball")


def _frames(run: Path, part: str) -> torch.Tensor:
    return decode_video((run / f"00-{part}.mp4").read_bytes())


def test_videos_measures_and_report(program: Program, tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = program("perturb", tiny, *RED, "--prompt", "a blue ball", *SIZE, "--sites", "temporal", "--out", run)
    assert done.status == 0, done.err
    assert "(temporal) became identity, at every step." in done.out
    record = read_run(run)
    assert record["status"] == "complete"
    assert record["seeds"] == [0, 1]
    assert all("motion_modules" in name for name in record["sites"])
    assert {"00-original.mp4", "01-perturbed.mp4", "01-side-by-side.mp4", "00-strip.png"} <= set(record["files"])
    assert not torch.equal(_frames(run, "original"), _frames(run, "perturbed"))
    assert "with ieadapt.intercept(pipe, change" in record["repeat"]["Python"]
    html = (run / "report.html").read_text()
    assert html.count("data:video/mp4") == 2
    assert "http" not in html.replace("http-equiv", "")


def test_the_recorded_command_repeats_the_run(program: Program, tiny: Path, tmp_path: Path) -> None:
    words = ("perturb", tiny, *RED, *SIZE, "--perturbation", "mix:0.5", "--sites", "mid_block.*", "--branch", "cond")
    assert program(*words, "--out", tmp_path / "one").status == 0
    again = shlex.split(read_run(tmp_path / "one")["command"])[1:-1]
    assert program(*again, tmp_path / "two").status == 0
    assert (tmp_path / "one" / "00-perturbed.mp4").read_bytes() == (tmp_path / "two" / "00-perturbed.mp4").read_bytes()


def test_a_choice_by_entropy_measures_first_and_takes_a_given_profile(
    program: Program, tiny: Path, tmp_path: Path
) -> None:
    words = ("perturb", tiny, *RED, *SIZE, "--sites", "temporal:top=1", "--json")
    found = json.loads(program(*words, "--out", tmp_path / "one").out)
    assert len(found["sites"]) == 1
    assert (tmp_path / "one" / "profile.parquet").is_file()
    given = json.loads(program(*words, "--profile", tmp_path / "one", "--out", tmp_path / "two").out)
    assert given["sites"] == found["sites"]
    assert given["videos"] == found["videos"]
    assert not (tmp_path / "two" / "profile.parquet").exists()


def test_refusals_are_one_line_and_leave_nothing(program: Program, tiny: Path, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        said = program("perturb", tiny, *RED, *words, *SIZE, "--out", tmp_path / "run").refused()
        assert not (tmp_path / "run").exists()
        return said

    assert "unknown perturbation" in refused("--perturbation", "none")
    assert "matches no attention site" in refused("--sites", "down_blocks.9.*")
