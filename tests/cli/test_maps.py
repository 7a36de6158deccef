"""`ieadapt maps` on a tiny model: pictures, numbers, report, and what it refuses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np

from ieadapt.attention import find_sites
from ieadapt.runs.folder import read_run
from tests.cli.conftest import Program
from tests.tiny import build

SIZE = ("--steps", "2", "--height", "16", "--width", "24", "--frames", "5")
NAMES = {site.kind: site.name for site in find_sites(build("animatediff"))}


def test_maps_leaves_pictures_numbers_and_a_report(tiny: Path, tmp_path: Path, program: Program) -> None:
    asked = ("--prompt", "a red ball", "--site", NAMES["temporal"], "--at-steps", "0,1", "--threshold", "0.5")
    done = program("maps", tiny, *asked, *SIZE, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert "own frame" in done.out
    record = read_run(tmp_path / "run")
    assert record["status"] == "complete"
    assert record["sites"] == [NAMES["temporal"]]
    assert record["looked_at"] == [0, 1]
    assert set(record["files"]) == {"maps.npz", "video.mp4", "looks.png", "frames.png", "report.html"}
    with np.load(tmp_path / "run" / "maps.npz") as kept:
        assert kept["weights_frames"].shape == (2, 5, 5)
    html = (tmp_path / "run" / "report.html").read_text()
    assert html.count("data:image/png") == 2
    assert "http" not in html.replace("http-equiv", "")


def test_the_recorded_command_repeats_the_run(tiny: Path, tmp_path: Path, program: Program) -> None:
    asked = ("--prompt", "a red ball", "--site", NAMES["spatial"], "--query", "1,0,2", "--head", "0", "--at-steps", "1")
    assert program("maps", tiny, *asked, *SIZE, "--out", tmp_path / "one").status == 0
    words = shlex.split(read_run(tmp_path / "one")["command"])[1:-1]
    assert program(*words, tmp_path / "two").status == 0
    assert (tmp_path / "one" / "maps.npz").read_bytes() == (tmp_path / "two" / "maps.npz").read_bytes()


def test_cross_attention_has_a_picture_per_step_and_json(tiny: Path, tmp_path: Path, program: Program) -> None:
    asked = ("--prompt", "a red ball", "--site", NAMES["cross"], "--at-steps", "0,1", "--json")
    done = program("maps", tiny, *asked, *SIZE, "--out", tmp_path)
    assert {"words-step-0.png", "words-step-1.png"} <= set(json.loads(done.out)["files"])


def test_refusals_are_one_line_and_leave_nothing(tiny: Path, tmp_path: Path, program: Program) -> None:
    def refused(*words: str) -> str:
        done = program("maps", tiny, "--prompt", "a red ball", *words, *SIZE, "--out", tmp_path / "run")
        assert not (tmp_path / "run").exists()
        assert (done.status, done.out) == (2, "")
        return done.err.splitlines()[-1]

    assert "there is no site" in refused()
    assert "matches no attention site; expected a name" in refused("--site", NAMES["spatial"] + "x")
    assert "expected steps within 0..1; got 7" in refused("--site", NAMES["spatial"], "--at-steps", "7")
    assert "within 5 frames x 4 rows x 6 columns" in refused(
        "--site", NAMES["spatial"], "--query", "0,9,0", "--at-steps", "1"
    )
    assert "no such head" in refused("--site", NAMES["spatial"], "--head", "9")
    assert "leave --query out" in refused("--site", NAMES["cross"], "--query", "0,0,0")
