"""The benchmark runs, keeps what is finished, goes on, and writes records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.testbed.run import BenchConfig, run_testbed
from benchmarks.testbed.scenes import bench_pairs
from benchmarks.testbed.tracks import TRACKS
from benchmarks.testbed.work import RowName, row_tasks
from ieadapt.errors import UsageError
from ieadapt.runs.folder import read_run

SMALL = {"scenes": 2, "steps": 1, "batch": 2, "workers": 1}
METHODS = "plain,stg-a,copy,ceiling"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "testbed"
    run_testbed("scenes", folder, BenchConfig(methods=METHODS, **SMALL))
    return folder


@pytest.mark.slow
def test_every_track_has_a_record_and_a_table(made: Path) -> None:
    for track, methods in (("generation", ["plain", "stg-a"]), ("editing", ["copy", "ceiling"])):
        record = json.loads((made / f"testbed-{track}.json").read_text())
        assert record["name"] == f"testbed-{track}"
        assert record["command"] == read_run(made)["command"]
        assert "held out" in record["notes"]
        rows = record["rows"]
        assert [row["method"] for row in rows] == methods
        assert all(row["scenes"] == 2 and set(TRACKS[track].measures) <= set(row) for row in rows)
        assert (made / f"testbed-{track}.md").read_text().startswith("| method | passes per step | scenes |")
    assert [row["passes_per_step"] for row in _rows(made, "generation")] == [2.0, 3.0]


@pytest.mark.slow
def test_marks_of_the_controls_are_what_they_must_be(made: Path) -> None:
    copy, ceiling = _rows(made, "editing")
    assert (copy["success"], copy["passes"], ceiling["success"]) == (0.0, 0.0, 1.0)
    assert copy["kept"] > 50
    assert ceiling["psnr"] > 28 > copy["psnr"]


def _rows(folder: Path, track: str) -> list[dict]:
    return json.loads((folder / f"testbed-{track}.json").read_text())["rows"]


@pytest.mark.slow
def test_it_goes_on_where_it_stopped_and_takes_more_methods(made: Path) -> None:
    kept = made / "rows" / "generation" / "plain" / "scene-001.json"
    before = {file: file.stat().st_mtime_ns for file in made.rglob("rows/**/*.json") if file != kept}
    content = kept.read_text()
    kept.unlink()
    config = BenchConfig(methods=f"{METHODS},plain-guidance-2", **SMALL)
    found = run_testbed("scenes", made, config, resume=True)
    # made in another batch, which rounds otherwise: a clip may read a little differently
    assert json.loads(kept.read_text())["accuracy"] == pytest.approx(json.loads(content)["accuracy"], abs=0.02)
    assert before == {file: file.stat().st_mtime_ns for file in before}
    assert [row["method"] for row in found.figures["generation"]] == ["plain", "plain-guidance-2", "stg-a"]


@pytest.mark.slow
def test_what_a_method_refuses_is_told_and_costs_no_other(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.testbed import generating

    broken = generating.Variant("pag", generating.EnhanceConfig(start=0.0, sites="no_such_site"))
    monkeypatch.setattr("benchmarks.testbed.tracks.VARIANTS", {**generating.VARIANTS, "pag": broken})
    config = BenchConfig(tracks="generation", methods="pag,plain", **SMALL)
    found = run_testbed("scenes", made, config, resume=True)
    assert [row["method"] for row in found.figures["generation"]] == ["plain"]
    assert len(found.notes) == 1
    assert "not done: generation, pag: " in found.notes[0]
    assert found.notes[0] in json.loads((made / "testbed-generation.json").read_text())["notes"]


@pytest.mark.slow
def test_another_request_needs_another_folder(made: Path) -> None:
    with pytest.raises(UsageError, match="holds a run of another request"):
        run_testbed("scenes", made, BenchConfig(methods="plain", **SMALL | {"steps": 2}), resume=True)
    with pytest.raises(UsageError, match="holds a complete testbed run"):
        run_testbed("scenes", made, BenchConfig(methods="plain", **SMALL))


@pytest.mark.slow
def test_methods_of_a_pair_stay_together_and_scenes_of_a_method_too() -> None:
    pairs = [pair.name for pair in bench_pairs(2)]
    missing = {"generation": {"plain": ["a", "b", "c"]}, "editing": {"copy": pairs, "default": pairs[:1]}}
    assert [list(task.items.values()) for task in row_tasks(missing, 2)] == [
        [RowName("generation", "plain", "a"), RowName("generation", "plain", "b")],
        [RowName("generation", "plain", "c")],
        [RowName("editing", "copy", pairs[0]), RowName("editing", "default", pairs[0])],
        [RowName("editing", "copy", pairs[1])],
    ]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"methods": "plian"}, "no method 'plian' in the testbed benchmark; expected a name such as plain"),
        ({"tracks": "drawing"}, "no track 'drawing' .*choose among generation, editing"),
        ({"methods": ""}, "the choice of methods is empty; expected plain,"),
        ({"tracks": "editing", "methods": "pag"}, "no method of these tracks is chosen; got pag; in --tracks editing"),
        ({"scenes": 201}, r"--scenes is out of range; expected 1\.\.200; got 201"),
        ({"steps": 0}, "--steps must be positive; expected >= 1; got 0"),
        ({"batch": 0}, "--batch must be positive"),
    ],
)
def test_what_cannot_be_run_is_refused(changed: dict, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        BenchConfig(**changed)


def test_only_bundled_models_have_ground_truth(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only a bundled model has ground truth; expected scenes, scenes-dit; got"):
        run_testbed("some/model", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_workers_share_the_work_and_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.testbed.scenes.PROFILE_PROMPTS", 1)
    monkeypatch.setattr("benchmarks.testbed.run.PROFILE_STEPS", 1)
    config = BenchConfig(methods="plain,default,inversion", **SMALL | {"workers": 2, "steps": 2})
    found = run_testbed("scenes", tmp_path, config)
    assert not found.notes
    assert (tmp_path / "profile").is_dir()
    assert [row["passes_per_step"] for row in found.figures["generation"]] == [2.0, 2.5]
    assert {row["method"]: row["against"] for row in found.figures["editing"]} == {
        "default": "inversion",
        "inversion": "inversion",
    }
