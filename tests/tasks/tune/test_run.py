"""A tune in its folder: whole, resumed after a stop, priced, refused; and its preset and blind page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ieadapt
from ieadapt.errors import FailureError, UsageError
from ieadapt.runs.folder import read_run
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.tune import work as tune_work
from ieadapt.tasks.tune.arms import Arm, default_candidates
from ieadapt.tasks.tune.config import METRICS, TuneConfig, TuneRun
from ieadapt.tasks.tune.method import halves
from ieadapt.tasks.tune.report import blind_page
from ieadapt.tasks.tune.run import Tuned, price_tune, run_tune
from tests.families import tiny_pipeline

PROMPTS = tuple(f"a red ball number {number}" for number in range(12))
GENERATION = ieadapt.GenerationConfig(2, guidance_scale=4.0, num_frames=9, height=16, width=16, batch_size=6)
ARMS = [
    Arm("late blocks", EnhanceConfig(start=0, sites="joint:bottom=1")),
    Arm("apg", EnhanceConfig.preset("apg")),
]


def _request(**changes: Any) -> TuneRun:
    return TuneRun("CogVideoXPipeline", PROMPTS, GENERATION, **{"tune": TuneConfig("sharpness"), **changes})


def _run(folder: Path, arms: list[Arm] = ARMS, **changes: Any) -> Tuned:
    more = {name: changes.pop(name) for name in ("resume", "say") if name in changes}
    return run_tune(_request(**changes), folder, pipe=tiny_pipeline("cogvideox"), candidates=arms, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuned, list[str]]:
    folder, said = tmp_path_factory.mktemp("tune") / "whole", list[str]()
    return folder, _run(folder, say=said.append), said


def test_the_folder_holds_result_preset_blind_page_and_report(whole: tuple[Path, Tuned, list[str]]) -> None:
    folder, found, said = whole
    record, result = read_run(folder), json.loads((folder / "result.json").read_text())
    assert record["status"] == "complete"
    assert {"report.html", "result.json", "compare-blind.html", "preset.json"} <= set(record["files"])
    assert result["verdict"] == found.verdict.word in ("confirmed", "refuted", "undecided")
    assert found.race[-1].keys() == {"late blocks", "apg"}
    assert found.best.name == max(found.race[-1], key=lambda name: found.race[-1][name])
    assert len(found.tests[0].gains) == len(halves(PROMPTS)[1]) == 6
    assert set(found.scales) == {2.0, 6.0, 8.0}
    assert set(found.guards) == {"flicker", "warp_error"}
    assert "2 candidates on 6 prompts, the best one on 6 others: at most " in said[0]
    assert "(80 % power)" in said[1]
    page = (folder / "compare-blind.html").read_text()
    assert page.count("data:video/mp4") == 12
    assert found.verdict.sentence.split(":")[0] in (folder / "report.html").read_text()


def test_its_preset_is_what_enhance_takes(whole: tuple[Path, Tuned, list[str]], tmp_path: Path) -> None:
    folder, found, _ = whole
    assert EnhanceConfig.preset(str(folder / "preset.json")) == found.best.enhance
    with pytest.raises(UsageError, match=r"no such preset file; in none.json; remedy: `ieadapt tune` writes one"):
        EnhanceConfig.preset("none.json")
    (tmp_path / "other.json").write_text('{"format": 1, "enhance": {"colour": 1}}')
    with pytest.raises(UsageError, match="holds settings that an enhancement has not; got colour"):
        EnhanceConfig.preset(str(tmp_path / "other.json"))


def test_a_stopped_tune_goes_on_where_it_was(
    whole: tuple[Path, Tuned, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, generate = [], tune_work.generate

    def stopping(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return generate(*arguments)

    folder = tmp_path / "run"
    monkeypatch.setattr(tune_work, "generate", stopping)
    with pytest.raises(KeyboardInterrupt):
        _run(folder)
    done = len(list((folder / "cells").glob("*.json")))
    assert 0 < done < len(list((whole[0] / "cells").glob("*.json")))
    again = _run(folder, resume=True)
    assert again.best == whole[1].best
    assert again.tests[0].gains == pytest.approx(whole[1].tests[0].gains, rel=1e-3)


def test_plain_with_other_seeds_is_compared_with_plain_at_as_many_steps(tmp_path: Path) -> None:
    null = [Arm("null", shift=1000), Arm("null, again", shift=2000)]
    found = _run(tmp_path / "null", null)
    assert found.best.plain_steps(GENERATION) == 2
    assert not (tmp_path / "null" / "preset.json").exists()
    assert len(found.tests) in (1, 2)


def test_the_price_is_said_alone(tmp_path: Path) -> None:
    price = price_tune(_request(), tiny_pipeline("cogvideox"))
    assert price.startswith("14 candidates on 6 prompts, the best one on 6 others: at most ")


def test_a_budget_takes_fewer_candidates_or_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the budget is below one round; expected at least .*; got 0\.001s"):
        _run(tmp_path / "run", budget="0.001s")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": PROMPTS[:11] * 2}, "too few prompts to choose on one half.*at least 12 different ones.*got 11"),
        ({"tune": {"metric": "beauty"}}, "this metric cannot be tuned; expected testbed_accuracy, .*; got beauty"),
        ({"tune": {"metric": "sharpness", "candidates": 1}}, "too few candidates of a tune; expected >= 2; got 1"),
        ({"tune": {"metric": "sharpness", "matters": 0.0}}, "smallest gain that matters is out of range"),
        ({"tune": {"metric": "sharpness"}, "budget": "soon"}, "not a time"),
    ],
)
def test_requests_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    tune = changes.pop("tune", {"metric": "sharpness"})
    with pytest.raises(UsageError, match=message):
        TuneRun(**{"model": "scenes", "prompts": PROMPTS, "generation": GENERATION, **changes}, tune=TuneConfig(**tune))


def test_a_score_of_the_test_bed_needs_its_models(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"this video has no such score; expected a bundled model.*testbed_fit"):
        _run(tmp_path / "run", tune=TuneConfig("testbed_fit"))
    assert not (tmp_path / "run").exists()


def test_every_metric_that_can_be_fooled_has_guards_that_can_be_measured() -> None:
    for name, guards in METRICS.items():
        assert bool(guards) != name.startswith("testbed_")
        assert name not in guards


def test_default_candidates_differ_and_keep_to_the_kinds_of_the_model() -> None:
    sites = ieadapt.find_sites(tiny_pipeline("animatediff"))
    arms = default_candidates(sites, screened=True, guidance=True)
    assert len({arm.name for arm in arms}) == len({repr(arm.enhance) for arm in arms}) == len(arms)
    assert {arm.enhance.sites.split(":")[0] for arm in arms if arm.name.startswith("identity")} == {
        "spatial",
        "temporal",
    }
    assert not [arm for arm in default_candidates(sites, screened=False, guidance=False) if arm.name == "apg"]


def test_random_sites_are_as_many_and_drawn_anew() -> None:
    arm = Arm("late", EnhanceConfig(start=0, sites="spatial:top=2"))
    drawn = [arm.draw(seed).enhance for seed in range(2)]
    assert [each.sites for each in drawn] == ["random-as:spatial:top=2"] * 2
    assert [each.seed for each in drawn] == [0, 1]
    assert Arm("default", EnhanceConfig()).draw(0).enhance.sites == "random-as:temporal/joint:top=0.5"
    with pytest.raises(ValueError, match="plain chooses no sites"):
        Arm("plain").draw(0)


def test_sides_of_the_blind_page_are_drawn_and_remembered() -> None:
    pairs = [(f"prompt {number}", b"enhanced", b"plain") for number in range(40)]
    page = blind_page(pairs, seed=0)
    sides = [page.count(f'"enhanced": "{side}"') for side in ("left", "right")]
    assert sum(sides) == 40
    assert min(sides) > 8
    assert page != blind_page(pairs, seed=1)
    assert page == blind_page(pairs, seed=0)
    hostile = blind_page([("</script><b>", b"", b"")], seed=0)
    assert "</script><b>" not in hostile


def test_videos_that_cannot_be_made_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any) -> Any:
        raise FailureError("the generated frames are not finite")

    monkeypatch.setattr(tune_work, "generate", failing)
    with pytest.raises(FailureError, match=r"videos of the tune could not be made; got the generated frames.*--resume"):
        _run(tmp_path / "run")
