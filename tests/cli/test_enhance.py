"""`ieadapt enhance`: seeds, resume, presets, foreign profiles, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ieadapt.runs.folder import read_run
from tests.cli.conftest import SIZE, Program

TEMPORAL = ("--sites", "temporal:middle=1")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("a red ball\na blue ball\n")
    return file


def _stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}


def test_seeds_and_resume(program: Program, tiny: Path, tmp_path: Path, prompts: Path) -> None:
    run = tmp_path / "run"
    words = ("enhance", tiny, "--prompts", prompts, *SIZE, *TEMPORAL, "--seeds", 2, "--seed", 5, "--batch", 2)
    done = program(*words, "--out", run)
    assert done.status == 0, done.err
    record = read_run(run)
    assert record["seeds"] == [5, 7, 6, 8]
    assert record["cost"]["weak_passes"] == 2
    assert record["cost"]["blocks_replayed"] > 0
    before = _stamps(run)
    assert len(before) == 12
    assert "holds a complete enhance run" in program(*words, "--out", run).refused()

    (run / "02-plain.mp4").write_bytes((run / "00-plain.mp4").read_bytes())
    (run / "03.json").write_text("half a reco")
    done = program(*words, "--out", run, "--resume")
    assert done.status == 0, done.err
    assert "kept from the earlier run: 2 of 4 pairs" in done.out
    after = _stamps(run)
    assert {name for name in after if after[name] == before.get(name)} == {name for name in before if name < "02"}
    assert read_run(run)["status"] == "complete"
    assert all((run / name).is_file() for name in read_run(run)["files"])


def test_a_changed_setting_is_not_taken_for_the_earlier_one(
    program: Program, tiny: Path, tmp_path: Path, prompts: Path
) -> None:
    run = tmp_path / "run"
    words = ("enhance", tiny, "--prompts", prompts, *SIZE, *TEMPORAL, "--out", run, "--json")
    assert json.loads(program(*words).out)["kept"] == 0
    assert json.loads(program(*words, "--resume").out)["kept"] == 2
    assert json.loads(program(*words, "--resume", "--scale", 2).out)["kept"] == 0
    prompts.write_text("a red ball\na green ball\n")
    assert json.loads(program(*words, "--resume", "--scale", 2).out)["kept"] == 1


def test_a_preset_and_what_is_said_beside_it(program: Program, tiny: Path, tmp_path: Path) -> None:
    words = ("enhance", tiny, "--prompt", "a ball", *SIZE, "--preset", "pag")
    assert program(*words, "--out", tmp_path / "a", "--json").status == 0
    record = read_run(tmp_path / "a")
    assert record["enhancement"]["scale"] == 3
    assert record["sites"] == ["mid_block.attentions.0.transformer_blocks.0.attn1"]
    assert program(*words, "--scale", 1.5, "--out", tmp_path / "b", "--json").status == 0
    assert read_run(tmp_path / "b")["enhancement"]["scale"] == 1.5
    assert "--preset pag" in read_run(tmp_path / "b")["command"]


def test_online_sites_are_in_the_record(program: Program, tiny: Path, tmp_path: Path) -> None:
    done = program("enhance", tiny, "--prompt", "a ball", *SIZE, "--entropy", "online:1", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert not (tmp_path / "run" / "profile.json").exists()
    assert len(read_run(tmp_path / "run")["sites"]) == 7


@pytest.mark.slow
def test_a_profile_of_another_size(program: Program, tiny: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    assert program("measure", tiny, "--prompt", "a ball", *SIZE, "--out", profile).status == 0
    larger = ("--steps", 2, "--height", 16, "--width", 32, "--frames", 5)
    words = ("enhance", tiny, "--prompt", "a ball", *larger, "--profile", profile)
    done = program(*words, "--out", tmp_path / "run")
    assert done.status == 2
    wanted = "another size; expected 5 frames of 4 x 8 tokens; got 5 frames of 4 x 6 tokens; remedy: measure at this"
    assert wanted in done.err
    assert program(*words, "--out", tmp_path / "forced", "--force").status == 0


def test_bad_input(program: Program, tiny: Path, tmp_path: Path) -> None:
    words = ("enhance", tiny, "--prompt", "a ball", *SIZE, *TEMPORAL, "--out", tmp_path / "run")
    assert "unknown preset" in program(*words, "--preset", "best").refused()
    assert "another length than the run; expected 2" in program(*words, "--schedule", "1,1,1").refused()
    assert "scale is out of range" in program(*words, "--scale", 1000).refused()
    assert "needs seeds" in program(*words, "--seeds", 0).refused()
    assert "unknown source of entropy" in program(*words, "--entropy", "guess").refused()
    assert not (tmp_path / "run").exists()


def test_the_report_says_what_was_done(program: Program, tiny: Path, tmp_path: Path) -> None:
    words = ("enhance", tiny, "--prompt", "a ball", *SIZE)
    expected = {
        "freeu": "In the one pass backbone and skip connections of the U-Net were reweighted (freeu:0.9:0.2:1.5:1.6)",
        "stg-r": "In a weak pass the transformer blocks around 2 attention sites (spatial, temporal) were left out,",
    }
    for name, sentence in expected.items():
        assert program(*words, "--preset", name, "--out", tmp_path / name).status == 0
        assert sentence in (tmp_path / name / "report.html").read_text(encoding="utf-8")
