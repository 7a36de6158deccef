"""A study in this process: its table, its folder, and what cannot be asked."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import ieadapt
from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics import evaluate
from ieadapt.runs.cells import CellRow, CellStore
from ieadapt.runs.settings import GenerationConfig
from ieadapt.runs.shared_files import StorageError
from ieadapt.tasks.study import work
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.run import StudyRun, run_study
from ieadapt.tasks.study.table import compact_study, read_table, study_status
from ieadapt.tasks.study.videos import read_strips
from tests.families import every_family, tiny_pipeline
from tests.tasks.study.conftest import ASKED, OTHER, PROMPTS, SITE, SMALL, same
from tests.tiny import call_arguments

Asked = Callable[..., StudyRun]


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study; tests must leave it as it is."""
    folder = tmp_path_factory.mktemp("studies") / "whole"
    run_study(StudyRun(str(model), PROMPTS, ASKED, SMALL, workers=1), folder)
    return folder


def table(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "study.parquet")


def test_the_table_says_what_was_perturbed_and_what_it_did(whole: Path) -> None:
    rows = table(whole)
    assert rows.height == 8
    assert set(rows["sites"]) == {SITE, OTHER}
    assert rows["perturbation"].to_list()[:4] == ["identity", "identity", "uniform", "uniform"]
    profile = ieadapt.EntropyProfile.load(whole)
    assert rows.filter(pl.col("sites") == SITE)["ep"][0] == pytest.approx(profile.ep[SITE])
    assert rows["psnr"].is_between(1, 60).all()
    assert (rows["sharpness_change"].abs() > 0).all()
    assert rows["model"].unique().to_list() == ["animatediff"]


def test_the_numbers_are_those_of_the_videos_made_by_hand(model: Path, whole: Path) -> None:
    pipe, row = ieadapt.load(model), table(whole).row(0, named=True)
    plain = ieadapt.generate(pipe, row["prompt"], SMALL, row["seed"])[0]
    with ieadapt.intercept(pipe, ieadapt.Identity(), row["sites"], guidance="all"):
        perturbed = ieadapt.generate(pipe, row["prompt"], SMALL, row["seed"])[0]
    expected = evaluate(perturbed, plain, ["psnr", "sharpness"])
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_status_and_strips(whole: Path) -> None:
    status = study_status(whole)
    assert (status.cells, status.done, status.running, status.damaged) == (8, 8, 0, 0)
    assert (status.baselines, status.pairs) == (2, 2)
    assert status.sentences()[0] == "animatediff: 8 of 8 cells done, 0 running"
    strips = list(read_strips(whole))
    assert [strip.perturbation for strip in strips].count(None) == 1
    assert len(strips) == 5
    assert {strip.prompt for strip in strips} == {PROMPTS[0]}
    assert strips[0].frames.shape == (5, 16, 24, 3)


def test_numbers_do_not_depend_on_the_batch(asked: Asked, whole: Path, tmp_path: Path) -> None:
    changed = asked({"metrics": "psnr"}, generation=dataclasses.replace(SMALL, batch_size=2))
    rows, one_by_one = run_study(changed, tmp_path / "a").table, table(whole)
    assert rows["prompt"].to_list() == one_by_one["prompt"].to_list()
    assert (rows["psnr"] - one_by_one["psnr"]).abs().max() < 0.01


def test_damaged_and_foreign_cells_are_reported_and_redone(asked: Asked, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "a")
    (tmp_path / "a" / "study.parquet").unlink()
    first, second, third, *_ = sorted((tmp_path / "a" / "cells").iterdir())
    first.write_bytes(first.read_bytes()[:100])
    content = json.loads(second.read_text())
    content["values"]["psnr"] += 1.0
    second.write_text(json.dumps(content))
    third.write_bytes((tmp_path / "a" / "cells" / f"{sorted(table(whole)['key'])[3]}.json").read_bytes())
    (tmp_path / "a" / "cells" / "notes.txt").write_text("mine")
    status = study_status(tmp_path / "a")
    assert (status.done, status.damaged, status.foreign) == (5, 3, ("notes.txt",))
    result = run_study(asked(), tmp_path / "a", resume=True)
    same(result.table, table(whole))
    assert "3 damaged cells were set aside and done again" in result.notes[0]
    assert "1 files among the cells are none of this study: notes.txt" in result.notes[1]
    assert len(list((tmp_path / "a" / "rejected").iterdir())) == 3
    assert (tmp_path / "a" / "cells" / "notes.txt").read_text() == "mine"


def test_a_study_goes_on_from_its_table_alone(
    asked: Asked, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    for name in ("study.json", "grid.json", "profile.json", "profile.parquet"):
        (tmp_path / "a" / name).write_bytes((whole / name).read_bytes())
    rows = table(whole)
    spoilt = rows.with_columns(psnr=pl.when(pl.col("key") == rows["key"][2]).then(99.0).otherwise(pl.col("psnr")))
    spoilt.head(6).write_parquet(tmp_path / "a" / "study.parquet")
    written: list[str] = []
    store = CellStore.write
    monkeypatch.setattr(CellStore, "write", lambda self, row: (written.append(row.key), store(self, row)))
    same(run_study(asked(), tmp_path / "a", resume=True).table, rows)
    assert set(written) == {rows["key"][2], rows["key"][6], rows["key"][7]}


def test_a_number_that_was_changed_anywhere_in_the_table_is_noticed(whole: Path, tmp_path: Path) -> None:
    rows, changed = read_table(whole / "study.parquet"), tmp_path / "study.parquet"
    for name in (name for name, kind in rows.schema.items() if kind.is_numeric() and rows[name].is_not_null().any()):
        spoilt = rows.with_columns(
            pl.when(pl.int_range(pl.len()) == 3).then(pl.col(name) * 1.01 + 1).otherwise(name).cast(rows[name].dtype)
        )
        spoilt.write_parquet(changed)
        with pytest.raises(UsageError, match=r"the table of this study is damaged; got values that .*--compact DIR"):
            read_table(changed)
    swapped = rows.with_columns(pl.col("ep", "energy", "energy_share").reverse())
    swapped.write_parquet(changed)
    with pytest.raises(UsageError, match="the table of this study is damaged"):
        read_table(changed)
    rows.drop("joined_digest").write_parquet(changed)  # as earlier versions wrote it
    assert read_table(changed).height == rows.height


def test_a_damaged_twin_is_made_again(asked: Asked, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "a")
    for path in [*sorted((tmp_path / "a" / "cells").iterdir())[:6], tmp_path / "a" / "study.parquet"]:
        path.unlink()
    one, other = sorted((tmp_path / "a" / "twins").iterdir())
    one.write_bytes(one.read_bytes()[:-40] + bytes(40))
    other.write_bytes(b"?")
    same(run_study(asked(), tmp_path / "a", resume=True).table, table(whole))


def test_a_full_disk_stops_the_study_and_leaves_it_sound(
    asked: Asked, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sync, written = CellStore.write, os.fsync, []

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self: CellStore, row: CellRow) -> None:
        written.append(row.key)
        if len(written) == 4:
            monkeypatch.setattr(os, "fsync", full)
        store(self, row)

    monkeypatch.setattr(CellStore, "write", write)
    run = asked({"sites": SITE})
    with pytest.raises(StorageError, match="No space left on device"):
        run_study(run, tmp_path / "a")
    monkeypatch.setattr(os, "fsync", sync)
    status = study_status(tmp_path / "a")
    assert (status.done, status.damaged, status.running, status.foreign) == (3, 0, 0, ())
    same(run_study(run, tmp_path / "a", resume=True).table, table(whole).filter(pl.col("sites") == SITE))


def test_a_cell_that_cannot_be_computed_leaves_the_others(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = work.make_perturbed

    def fails(pipe: Any, condition: Any, *others: Any) -> Any:
        if condition.perturbation == "uniform":
            raise FailureError("the generated frames are not finite")
        return make(pipe, condition, *others)

    monkeypatch.setattr(work, "make_perturbed", fails)
    with pytest.raises(FailureError, match="2 cells of the study could not be computed; got the generated frames"):
        run_study(asked({"sites": SITE}), tmp_path / "a")
    assert compact_study(tmp_path / "a").height == 2
    monkeypatch.setattr(work, "make_perturbed", make)
    assert run_study(asked({"sites": SITE}), tmp_path / "a", resume=True).table.height == 4


@every_family
def test_every_family_and_a_pipeline_in_memory(family: str, tmp_path: Path) -> None:
    size = {name: value for name, value in call_arguments(family).items() if name in ("height", "width", "num_frames")}
    site = next(site.name for site in ieadapt.find_sites(tiny_pipeline(family)) if site.kind in ("temporal", "joint"))
    rows = ieadapt.study(
        tiny_pipeline(family),
        PROMPTS[0],
        tmp_path / "a",
        StudyConfig("identity", site, metrics="psnr", window="0.5:1"),
        GenerationConfig(2, **size),
    )
    assert rows.height == 1
    assert rows["psnr"].is_finite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 2}, "seeds: there 1, asked 2"),
        ({"perturb": "identity"}, "perturb: there identity,uniform, asked identity"),
        ({"window": "0.5:1"}, "window: there 0:1, asked 0.5:1"),
        ({"metrics": "psnr"}, "metrics: there psnr,sharpness, asked psnr"),
    ],
)
def test_a_study_of_another_configuration(asked: Asked, whole: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"holds a study of another configuration; got {message}; in"):
        run_study(asked(changes), whole, resume=True)


def test_other_prompts_are_another_configuration(asked: Asked, whole: Path) -> None:
    with pytest.raises(UsageError, match="prompts: there 2 prompts, asked 3, number 3 being 'a cat'"):
        run_study(asked(prompts=(*PROMPTS, "a cat")), whole, resume=True)


def test_metrics_that_are_not_named_are_those_of_the_study(asked: Asked, whole: Path) -> None:
    same(run_study(asked({"metrics": None}), whole, resume=True).table, table(whole))


def test_going_on_must_be_asked_for(asked: Asked, whole: Path) -> None:
    with pytest.raises(UsageError, match=r"holds this study already; got 8 finished cells; .*--resume"):
        run_study(asked(), whole)


def test_a_folder_of_something_else(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds files of something else; got letter.txt"):
        run_study(asked(), tmp_path)
    with pytest.raises(UsageError, match=r"no study in this folder: study.json is missing"):
        study_status(tmp_path)


def test_sites_that_do_not_exist_leave_no_study_behind(asked: Asked, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="matches no attention site"):
        run_study(asked({"sites": "nowhere"}), tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ()}, "there is no prompt"),
        ({"prompts": ("a", " ")}, "a prompt is blank"),
        ({"prompts": ("a", "b", "a")}, "a prompt stands twice; got prompt 3 is prompt 1 again"),
        ({"engine": "spark"}, "unknown engine; expected local, ray; got spark"),
        ({"workers": 0}, "a study needs workers"),
        ({"generation": GenerationConfig(1), "study": StudyConfig(window="0.5:1")}, "no denoising step begins inside"),
    ],
)
def test_what_cannot_be_asked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StudyRun(**{"model": "scenes", "prompts": ("a",), **changes})


def test_a_pipeline_in_memory_stays_in_its_process(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a pipeline in memory stays in its process"):
        ieadapt.study(tiny_pipeline("wan"), "a ball", tmp_path / "a", workers=2)
