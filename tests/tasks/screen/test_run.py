"""A screen in its folder: resumed after a stop, repeatable, readable as a profile, and with a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from diffusers import DiffusionPipeline

import ieadapt
from ieadapt.errors import FailureError, UsageError
from ieadapt.runs.folder import read_run
from ieadapt.tasks.measure.layer_choice import SCREENED, SiteChoice
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.screen import work as screen_work
from ieadapt.tasks.screen.config import ScreenRun
from ieadapt.tasks.screen.report import sentences
from ieadapt.tasks.screen.run import price_screen, run_screen
from tests.families import tiny_pipeline

PROMPTS = ("a red ball", "a blue ball", "a dog in snow")
GENERATION = ieadapt.GenerationConfig(3, guidance_scale=4.0, num_frames=9, height=16, width=16, batch_size=2)
AT = ieadapt.ScreenConfig(at="0.2,0.5,0.7")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("screen") / "whole"
    ieadapt.screen(tiny_pipeline("cogvideox"), PROMPTS, folder, AT, GENERATION, check=1)
    return folder


def _request(**changes: Any) -> ScreenRun:
    return ScreenRun("CogVideoXPipeline", PROMPTS, GENERATION, **{"screen": AT, "check": 0, **changes})


def _pipe() -> DiffusionPipeline:
    return tiny_pipeline("cogvideox")


def test_the_folder_holds_effects_profile_and_report(whole: Path) -> None:
    record, profile = read_run(whole), EntropyProfile.load(whole)
    assert record["status"] == "complete"
    assert {"effects.parquet", "profile.parquet", "profile.json", "price.json", "report.html"} <= set(record["files"])
    effects = profile.effects
    assert effects is not None
    assert effects.group_by("effect", maintain_order=True).len().rows() == [(name, 4) for name in SCREENED]
    assert effects.select(pl.col("low").is_not_null().all(), (pl.col("prompts") == 3).all()).row(0) == (True, True)
    assert set(profile.table["step"]) == {1, 2}
    report = (whole / "report.html").read_text()
    assert "Replacing a joint site is predicted to cost most structure at #" in report
    assert "How far to trust it" in report
    assert "4 replacements at 2 sites x 2 steps x 3 prompts: 24 passes of " in report
    assert ", 3 videos as a check, about " in report
    assert report.count("data:image/png") == 1 + 3
    films = [(whole / f"check-{name}.png").read_bytes() for name in ("plain", 1, 2)]
    assert len(set(films)) == 3
    first = effects.filter(effect="structure").sort("value", descending=True).row(0, named=True)
    order = next(site.order for site in profile.sites if site.name == first["site"])
    assert f"#{order} (joint) replaced by {first['map']}." in report
    assert record["command"].startswith("ieadapt screen CogVideoXPipeline --prompt 'a red ball'")


def test_a_stopped_screen_goes_on_where_it_was(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, step = [], screen_work.screen_step

    def stopping(*arguments: Any) -> Any:
        calls.append(arguments[3])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(screen_work, "screen_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_screen(_request(), tmp_path / "run", pipe=_pipe())
    cells = sorted(path.name for path in (tmp_path / "run" / "cells").iterdir())
    assert len(cells) == 4 * 3  # both batches of the first step
    (tmp_path / "run" / "cells" / cells[0]).write_text("{}")
    with pytest.raises(UsageError, match=r"holds a partial screen run.*--overwrite"):
        run_screen(_request(), tmp_path / "run", pipe=_pipe())
    profile = run_screen(_request(), tmp_path / "run", resume=True, pipe=_pipe())
    assert calls == [1, 1, 2, 1, 2, 2]  # the damaged one is made again
    again, before = profile.effects, EntropyProfile.load(whole).effects
    assert again is not None
    assert before is not None
    assert again.drop("value", "low", "high").equals(before.drop("value", "low", "high"))
    assert again["value"].to_list() == pytest.approx(before["value"].to_list(), rel=1e-3)  # of another batch


def test_another_request_is_not_resumed(whole: Path) -> None:
    with pytest.raises(UsageError, match="the folder holds a run of another request"):
        run_screen(_request(screen=ieadapt.ScreenConfig(maps="uniform")), whole, resume=True, pipe=_pipe())


def test_a_failed_pass_is_said_and_the_others_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = screen_work.screen_step

    def failing(*arguments: Any) -> Any:
        if arguments[3] == 2:
            raise FailureError("the prediction is not finite")
        return step(*arguments)

    monkeypatch.setattr(screen_work, "screen_step", failing)
    with pytest.raises(FailureError, match=r"12 passes of the screen could not be made.*not finite.*--resume"):
        run_screen(_request(), tmp_path / "run", pipe=_pipe())
    assert len(list((tmp_path / "run" / "cells").iterdir())) == 12


def test_the_price_is_said_first_and_a_dry_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = price_screen(_request(), _pipe())
    assert (plan.passes, plan.prompts, plan.steps) == (24, 3, (1, 2))
    assert plan.times.shares["transformer_blocks.0.attn1"] > plan.times.shares["transformer_blocks.1.attn1"] > 0
    assert not list(tmp_path.iterdir())
    said: list[str] = []
    run_screen(_request(budget="100h"), tmp_path / "run", pipe=_pipe(), say=said.append)
    assert said[0].startswith("4 replacements at 2 sites x 2 steps x 3 prompts: 24 passes of ")
    with pytest.raises(UsageError, match="the budget is below one prompt at one step; expected at least"):
        run_screen(_request(budget="0.0001s"), tmp_path / "small", pipe=_pipe())


def test_heads_are_screened_one_by_one(tmp_path: Path) -> None:
    config = ieadapt.ScreenConfig(maps="uniform", at="0.5", heads=True)
    profile = ieadapt.screen(_pipe(), PROMPTS[0], tmp_path / "run", config, GENERATION, check=0)
    assert profile.effects is not None
    heads = profile.effects.filter(effect="structure")
    assert heads.select("site", "head").n_unique() == heads.height == sum(site.heads for site in profile.sites)
    assert heads["low"].null_count() == heads.height
    assert "#0.1" in (tmp_path / "run" / "report.html").read_text()


def test_sites_are_chosen_by_what_was_screened(whole: Path) -> None:
    profile = EntropyProfile.load(whole)
    values = profile.statistics["structure"]
    first = max(values, key=lambda name: values[name])
    chosen = SiteChoice.parse("structure-top=1").choose(profile.sites, **profile.statistics)
    assert [site.name for site in chosen] == [first]
    assert profile.effects is not None
    means = profile.effects.filter(effect="structure", site=first)["value"]
    assert values[first] == pytest.approx(means.mean())
    plain = EntropyProfile(profile.table, profile.metadata)
    with pytest.raises(UsageError, match="needs their structure; got no screen; remedy: pass the folder of"):
        SiteChoice.parse("structure-top=1").choose(plain.sites, **plain.statistics)


def test_damaged_effects_are_refused(whole: Path, tmp_path: Path) -> None:
    EntropyProfile.load(whole).save(tmp_path)
    assert EntropyProfile.load(tmp_path).statistics == EntropyProfile.load(whole).statistics
    (tmp_path / "effects.parquet").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"the effects beside the profile are damaged.*screen again"):
        EntropyProfile.load(tmp_path)


def test_sentences_name_the_largest_and_what_can_be_skipped() -> None:
    rows = {
        "#": ["#0", "#1", "#2", "#3", "#4"],
        "order": range(5),
        "kind": ["spatial"] * 5,
        "structure": [0.5, 0.9, 0.01, 0.7, 0.8],
        "motion": [0.1, -0.2, 0.3, 0.2, None],
        "flicker": [-0.1] * 5,
        "quality": [0.9, 0.05, 0.05, 0.05, 0.05],
    }
    assert sentences(pl.DataFrame(rows).sort("structure", descending=True)) == [
        "Replacing a spatial site is predicted to cost most structure at #1, #4, #3; quality at #0; "
        "motion at #2, #3, #0.",
        "Of the spatial sites, #2 changes the video little: the one to leave out first.",
    ]


def test_price_and_cells_can_be_read(whole: Path) -> None:
    price = json.loads((whole / "price.json").read_text())
    assert price["seconds"] > 0
    assert len(list((whole / "cells").glob("*.json"))) == 24
