"""`ieadapt screen` on a tiny model: the price first, the effects after it, and sites chosen by them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from ieadapt.runs.folder import read_run
from tests.cli.conftest import SIZE, Program

FEW = (
    "--sites",
    "mid_block.motion_modules.*",
    "--maps",
    "uniform",
    "--workers",
    "1",
    "--check",
    "0",
    "--prompt",
    "a red ball",
)


def test_the_price_is_said_first_and_alone_with_dry_run(program: Program, tiny: Path, tmp_path: Path) -> None:
    done = program("screen", tiny, *FEW, *SIZE, "--dry-run", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert done.out.startswith("2 replacements at 2 sites x 2 steps x 1 prompt: 4 passes of ")
    assert not (tmp_path / "run").exists()


def test_effects_are_printed_kept_and_choose_sites(program: Program, tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = program("screen", tiny, *FEW, *SIZE, "--out", run)
    assert done.status == 0, done.err
    assert "4 passes of" in done.err
    assert "structure" in done.out
    assert done.out.splitlines()[-1].startswith("report: ")
    again = shlex.split(read_run(run)["command"])[1:-1]
    found = json.loads(program(*again, tmp_path / "again", "--json").out)["effects"]
    assert {row["site"] for row in found} == {
        f"mid_block.motion_modules.0.transformer_blocks.0.attn{n}" for n in (1, 2)
    }
    words = ("perturb", tiny, "--prompt", "a red ball", *SIZE, "--profile", run)
    refused = program(*words, "--sites", "temporal:structure-top=1", "--out", tmp_path / "two").refused()
    assert "the choice of sites needs their structure; got a profile without" in refused


def test_refusals_are_one_line_and_leave_nothing(program: Program, tiny: Path, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        said = program("screen", tiny, *FEW, *words, "--out", tmp_path / "run").refused()
        assert not (tmp_path / "run").exists()
        return said

    assert "not a time; expected a number with s, m or h" in refused("--budget", "soon")
    assert "not a choice of steps" in refused("--at", "2")


def test_what_only_the_model_can_refuse_leaves_nothing_either(program: Program, tiny: Path, tmp_path: Path) -> None:
    for words, said in (
        (("--sites", "joint"), "the selection matches no attention site"),
        (("--budget", "0.001s"), "the budget is below one prompt at one step"),
    ):
        done = program("screen", tiny, *FEW, *SIZE, *words, "--out", tmp_path / "run")
        assert (done.status, said in done.err) == (2, True), done.err
        assert not (tmp_path / "run").exists()
