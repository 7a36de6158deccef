"""`ieadapt study`: the run, its status, its table, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from ieadapt.interventions import PERTURBATION_FORMS
from ieadapt.models import known_models
from tests.cli.conftest import SIZE, Program

SITE = "mid_block.attentions.0.transformer_blocks.0.attn1"
SMALL = ("--sites", SITE, "--metrics", "psnr", "--workers", "1", "--device", "cpu", *SIZE)


@pytest.mark.slow
def test_a_study_its_status_and_its_table(program: Program, tiny: Path, tmp_path: Path) -> None:
    out, prompts = tmp_path / "study", tmp_path / "prompts.txt"
    prompts.write_text("a red ball\na blue star\n")
    words = ("study", tiny, "--prompts", prompts, *SMALL, "--batch", "2", "--out", out)
    done = program(*words)
    assert done.status == 0, done.err
    assert "perturbed videos: 4\n" in done.err
    assert done.out.splitlines()[0].split() == ["kind", "perturbation", "sites", "head", "EP", "%", "psnr"]
    assert done.out.count(SITE) == 2
    assert done.out.splitlines()[-1].endswith("report.html")
    assert "<html" in (out / "report.html").read_text()
    assert program("study", "--status", out).out.startswith("animatediff: 4 of 4 cells done, 0 running\n")
    (out / "study.parquet").unlink()
    assert "4 cells in" in program("study", "--compact", out).out
    assert pl.read_parquet(out / "study.parquet").height == 4
    assert "holds this study already; got 4 finished cells" in program(*words).refused()
    again = program(*words, "--resume", "--json")
    assert [row["videos"] for row in json.loads(again.out)["conditions"]] == [2, 2]
    assert json.loads(program("study", "--status", out, "--json").out)["done"] == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\nb\na\n", "a prompt stands twice; got prompt 3 is prompt 1 again"),
        ("a\n\nb\n", "the prompts file has a blank line"),
        ("", "the prompts file is empty"),
    ],
)
def test_prompts_files_that_cannot_be(content: str, words: str, program: Program, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(content)
    refused = program("study", tiny, "--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "study").refused()
    assert words in refused
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--metrics", "psnrr", "there is no metric 'psnrr'"),
        (
            "--perturb",
            "identity,melt",
            f"unknown perturbation; expected {', '.join(PERTURBATION_FORMS)}; got melt",
        ),
        ("--window", "0.5:1.5", "not a window of steps; expected fractions"),
        ("--branch", "uncond", "unknown branch of a study"),
        ("--mode", "twice", "unknown mode of a study"),
        ("--engine", "spark", "unknown engine"),
        ("--workers", "0", "a study needs workers"),
        ("--seeds", "0", "a study needs seeds"),
        ("--sites", "nowhere", "the selection matches no attention site"),
        ("--dtype", "float8", "unknown precision"),
    ],
)
def test_options_that_cannot_be(
    option: str, value: str, words: str, program: Program, tiny: Path, tmp_path: Path
) -> None:
    refused = program("study", tiny, "--prompt", "a", *SMALL, option, value, "--out", tmp_path / "study")
    assert refused.status == 2
    assert words in refused.err
    assert not (tmp_path / "study").exists()


def test_a_study_needs_a_model_or_a_folder(program: Program, tmp_path: Path) -> None:
    assert "there is no model" in (line := program("study", "--prompt", "a").refused())
    assert f"such as {next(iter(known_models()))};" in line
    assert "study.json is missing" in program("study", "--status", tmp_path).refused()
    assert "study.json is missing" in program("study", "--compact", tmp_path).refused()


def test_an_output_folder_that_is_a_file(program: Program, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = program("study", tiny, "--prompt", "a", *SMALL, "--out", tmp_path / "file").refused()
    assert "the output folder cannot be used" in refused
