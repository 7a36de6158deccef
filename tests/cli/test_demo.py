"""The demo measures, enhances and scores the bundled model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ieadapt.runs.folder import read_run
from ieadapt.tasks.measure.profile import EntropyProfile
from tests.cli.conftest import Program


@pytest.mark.slow
def test_the_demo_leaves_table_videos_plot_and_report(tmp_path: Path, program: Program) -> None:
    done = program("demo", "--captions", 2, "--steps", 2, "--out", tmp_path)
    assert done.status == 0, done.err
    record = read_run(tmp_path)
    assert record["status"] == "complete"
    assert {"ep.png", "report.html", "profile.parquet", "comparison.json"} <= set(record["files"])
    assert {"00-side-by-side.mp4", "01-side-by-side.mp4"} <= set(record["files"])
    rows = json.loads((tmp_path / "comparison.json").read_text())
    assert {"accuracy", "motion", "flicker"} <= {row["metric"] for row in rows}
    assert {"edit/source.mp4", "edit/edited.mp4", "edit/side-by-side.mp4", "edit/strip.png"} <= set(record["files"])
    assert {"layer/strip.png", "layer/without.mp4"} <= set(record["files"])
    assert re.search(r"Without the attention of layer #3 .* goes from \d\.\d\d to \d\.\d\d of 1", done.out)
    assert "dB to the perfect edit (the source itself: " in done.out
    report = (tmp_path / "report.html").read_text()
    titles = ["What one layer carries", "One edit", "Plain and enhanced", "The difference"]
    assert sorted(titles, key=report.index) == titles
    assert "95 % interval" in done.out
    assert "accuracy" in done.out
    profile = EntropyProfile.load(tmp_path)
    for site in profile.sites:
        assert site.name in done.out


@pytest.mark.slow
def test_a_second_demo_replaces_the_first(tmp_path: Path, program: Program) -> None:
    words = ("demo", "--captions", 1, "--steps", 2, "--out", tmp_path, "--json")
    assert program(*words).status == 0
    second = program(*words)
    assert second.status == 0, second.err
    assert json.loads(second.out)["comparison"][0]["videos"] == 1
    assert {"psnr", "kept", "success"} <= set(json.loads(second.out)["edit"])


def test_no_caption_is_refused(tmp_path: Path, program: Program) -> None:
    assert "--captions 1 or more" in program("demo", "--captions", 0, "--out", tmp_path / "run").refused()
