"""The report of a study with known answers: its sentences, correlations, tables, figures and files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ieadapt.errors import UsageError
from ieadapt.runs.report import Table
from ieadapt.tasks.study.report import study_report, write_study_report
from ieadapt.tasks.study.report_effects import (
    Effect,
    SiteEffect,
    effects_of,
    leading_effects,
    relations,
    single_sites,
    site_effects,
    summary,
)
from ieadapt.tasks.study.table import read_table
from tests.tasks.study.fixture import PROMPTS, growing_table, heads_table, profile, study_table, write_study

TABLE, SITES = study_table(), profile().by_site()


def by_column(column: str, table: pl.DataFrame = TABLE) -> Effect:
    return next(effect for effect in effects_of(table) if effect.column == column)


def measured(table: pl.DataFrame) -> dict[Effect, list[SiteEffect]]:
    return {effect: site_effects(table, effect, SITES) for effect in leading_effects(table)}


def test_effects_are_the_measured_columns_with_their_direction() -> None:
    found = {effect.column: (effect.aspect, effect.damage) for effect in effects_of(TABLE)}
    assert found["ssim"] == ("structure", -1)
    assert found["flicker_change"] == ("consistency", 1)
    assert found["sharpness_change"] == ("quality", 0)
    assert found["testbed_fit_change"] == ("quality", -1)
    assert found["testbed_motion_change"] == ("motion", -1)
    assert "flicker" not in found


def test_one_effect_leads_each_aspect() -> None:
    columns = [effect.column for effect in leading_effects(TABLE)]
    assert columns == ["ssim", "mobilenet_consistency_change", "testbed_fit_change", "testbed_motion_change"]
    fewer = TABLE.drop("ssim", "testbed_fit_change", "mobilenet_consistency_change", "testbed_motion_change")
    assert [effect.column for effect in leading_effects(fewer)] == ["psnr", "flicker_change", "sharpness_change"]


def test_damage_is_the_distance_from_the_unchanged_video() -> None:
    assert by_column("ssim").as_damage(np.array([0.9])) == pytest.approx(0.1)
    assert by_column("flicker_change").as_damage(np.array([0.2])) == pytest.approx(0.2)
    assert by_column("sharpness_change").as_damage(np.array([-0.2])) == pytest.approx(0.2)
    assert by_column("psnr").as_damage(np.array([30.0])) == pytest.approx(-30)


def test_site_effects_are_in_order_with_one_value_per_clip() -> None:
    units = site_effects(TABLE, by_column("ssim"), SITES)
    assert [unit.order for unit in units] == sorted(unit.order for unit in units)
    assert {len(unit.values) for unit in units} == {6}
    assert len(units) == 10 * 2 + 12 * 2 + 3
    assert units[0].name == "#0"


def test_sets_of_sites_and_missing_values_do_not_count() -> None:
    table = growing_table()
    assert single_sites(table).height == TABLE.height
    ssim = pl.when((pl.col("sites") == "block.0.spatial") & (pl.col("seed") == 1)).then(None).otherwise(pl.col("ssim"))
    units = site_effects(TABLE.with_columns(ssim=ssim), by_column("ssim"), SITES)
    assert sum(value != value for value in units[0].values) == 2
    assert np.isfinite(units[0].interval()).all()


def test_relations_find_what_was_put_in() -> None:
    found = {
        (relation.effect.column, relation.kind, relation.perturbation): relation
        for relation in relations(measured(TABLE))
    }
    structure = found["ssim", "temporal", "identity"]
    assert structure.overall.rho == pytest.approx(-1)
    assert structure.overall.excludes_zero
    assert structure.within is None  # all temporal sites have the same number of keys
    assert found["testbed_fit_change", "temporal", "identity"].overall.rho == pytest.approx(1)
    assert found["testbed_fit_change", "temporal", "uniform"].overall.rho == pytest.approx(-1)
    spatial = found["ssim", "spatial", "identity"]
    assert not spatial.overall.excludes_zero
    assert spatial.within is not None
    assert "cross" not in {kind for _, kind, _ in found}  # three sites


def test_eight_sites_are_the_fewest_for_a_correlation() -> None:
    temporal = TABLE.filter(pl.col("kind") == "temporal", pl.col("perturbation") == "uniform")
    names = temporal["sites"].unique(maintain_order=True)
    few, enough = (temporal.filter(pl.col("sites").is_in(names[:count].to_list())) for count in (7, 8))
    assert relations(measured(few)) == []
    assert {relation.overall.units for relation in relations(measured(enough))} == {8}
    assert not any("rho" in sentence for sentence in sentences(few))
    _, figures = study_report(few, profile())
    assert {axis.get_title().splitlines()[-1] for axis in figures["ep-and-effects"].axes} == {"too few sites for rho"}


def tables_of(table: pl.DataFrame) -> dict[str, list[list[str]]]:
    """The ranked tables of a report by the label of their effect."""
    blocks = next(section.blocks for section in study_report(table, profile())[0].sections if "costs" in section.title)
    return {block.headings[-2]: [list(row) for row in block.rows] for block in blocks if isinstance(block, Table)}


def test_sites_are_ranked_by_every_effect_with_motion() -> None:
    tables = tables_of(TABLE)
    assert list(tables) == [
        *("ssim", "change of mobilenet_consistency", "change of testbed fit (dB)", "change of testbed motion"),
    ]
    assert {len(rows) for rows in tables.values()} == {10 * 2 + 12 * 2 + 3}
    assert tables["ssim"][0][:4] == ["#1", "block.0.temporal", "temporal", "identity"]
    assert tables["change of testbed motion"][0][1] == "block.0.temporal"
    changes = [float(row[-2].split()[0]) for row in tables["change of testbed motion"]]
    assert changes == sorted(changes)  # a fall is damage


def test_three_clips_are_the_fewest_for_an_interval() -> None:
    two, three = (TABLE.filter(pl.col("prompt") == PROMPTS[0], pl.col("seed") < count) for count in (2, 3))
    assert all("[" in row[-2] for rows in tables_of(three).values() for row in rows)
    assert not any("[" in row[-2] for rows in tables_of(two).values() for row in rows)
    assert any("Fewer than 3 clips give no interval" in sentence for sentence in sentences(two))
    assert not any("Fewer than" in sentence for sentence in sentences(three))


def sentences(table: pl.DataFrame = TABLE) -> list[str]:
    return summary(table, measured(table), relations(measured(table)))


def test_the_summary_says_what_was_put_in() -> None:
    said = sentences()
    assert said[0].startswith("In this model, replacing one of the ")
    assert any(each.startswith("282 videos in which attention was replaced: 25 sites, identity") for each in said)
    quality = next(sentence for sentence in said if "quality” would" in sentence)
    assert re.search(r"This study agrees: temporal, identity rho \+1\.00 \[\+1\.00, \+1\.00\] \(n = 12\);", quality)
    assert "disagrees: temporal, uniform rho -1.00" in quality
    assert "does not settle it: spatial, identity rho" in quality
    assert "cross" not in quality
    structure = next(sentence for sentence in said if "structure” would" in sentence)
    assert "agrees: temporal, identity rho -1.00 [-1.00, -1.00] (n = 12), temporal, uniform" in structure
    assert any("16 correlations were tested here; about 0.8 of them" in sentence for sentence in said)
    assert any("turns its sign" in sentence for sentence in said)


def test_the_summary_names_the_costliest_sites() -> None:
    cost = next(sentence for sentence in sentences() if "one of the 12 temporal sites by identity" in sentence)
    assert cost.startswith("In this model, replacing ")
    assert "costs most structure at #1 with EP 76 % (fall of ssim 0.145)" in cost
    assert "quality at #24 with EP 97 % (fall of testbed fit (dB) 0.292)" in cost


def test_an_effect_that_cannot_be_told_from_none_is_not_called_a_cost() -> None:
    noise = TABLE.with_columns(testbed_fit_change=pl.col("sharpness_change"))
    assert any("no loss of quality that these clips show" in sentence for sentence in sentences(noise))


def test_a_study_of_one_site_and_one_clip_still_has_a_report() -> None:
    table = TABLE.filter((pl.col("sites") == "block.0.spatial") & (pl.col("seed") == 0)).head(1)
    report, _ = study_report(table, profile())
    assert any("replacing one spatial site by the identity map" in sentence for sentence in report.results)


@pytest.mark.slow
def test_a_folder_gets_its_report_with_every_figure_and_table(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study")
    growing_table().write_parquet(folder / "study.parquet")
    html = write_study_report(folder).read_text()
    assert re.findall("<h2>(.*?)</h2>", html) == [
        "What replacing a layer looks like",
        "What it costs",
        "Whether entropy predicts it",
        "Entropy and energy per site",
        "What was measured",
        "How to repeat it",
        "Record",
    ]
    assert html.count("data:image/png") == 3 + 4
    assert not re.search(r"(src|href)=\"https?:", html)
    assert "<script" not in html
    assert "ieadapt study made-up --out runs/study" in html
    for name in ("effects", "ep-and-effects", "entropy-and-energy", "growing-sets"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / f"{name}.svg").read_text()


def test_a_folder_without_a_table_or_with_an_empty_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no table of a study; in .*study\.parquet; remedy"):
        read_table(tmp_path / "study.parquet")
    (tmp_path / "study.parquet").write_bytes(b"not a table")
    with pytest.raises(UsageError, match="no table of a study"):
        read_table(tmp_path / "study.parquet")
    TABLE.clear().write_parquet(tmp_path / "study.parquet")
    with pytest.raises(UsageError, match="holds no measured video"):
        write_study_report(tmp_path)


@pytest.mark.slow
def test_a_study_by_head_draws_damage_per_head() -> None:
    _, figures = study_report(heads_table(), profile())
    image = figures["heads"].axes[0].images[0].get_array()
    assert image.shape == (12, 3)
    assert np.allclose(image, np.tile([0.0, 0.3, 0.0], (12, 1)))
