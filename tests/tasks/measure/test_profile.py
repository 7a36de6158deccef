"""The entropy profile: shares, means, files, plot."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ieadapt.errors import FailureError, UsageError
from ieadapt.tasks.measure.layer_choice import SiteChoice
from ieadapt.tasks.measure.profile import EntropyProfile


def _rows() -> list[dict[str, Any]]:
    """Two sites x two heads x two steps x two branches with figures that can be added by hand."""
    return [
        {
            "site": site,
            "kind": kind,
            "order": order,
            "head": head,
            "step": step,
            "branch": branch,
            "videos": 1,
            "n_keys": 16.0,
            "entropy": 1.0,
            "ep": 40.0 * order + 10 * head + step,
            "energy": 1.0 + 2 * order,
        }
        for order, (site, kind) in enumerate([("down.attn1", "spatial"), ("down.motion", "temporal")])
        for head in range(2)
        for step in range(2)
        for branch in ("cond", "uncond")
    ]


@pytest.fixture
def profile() -> EntropyProfile:
    return EntropyProfile.from_rows(_rows(), {"model": "made up", "prompts": ["a"]})


def test_energy_shares_add_up_in_each_step_and_branch(profile: EntropyProfile) -> None:
    sums = profile.table.group_by("step", "branch").agg(total=pl.col("energy_share").sum())
    assert sums["total"].to_list() == pytest.approx([1.0] * 4)


def test_by_site_means_entropy_and_sums_energy_over_heads(profile: EntropyProfile) -> None:
    first, second = profile.by_site().to_dicts()
    assert (first["ep"], first["ep_min"], first["ep_max"]) == pytest.approx((5.5, 0.5, 10.5))
    assert (first["energy"], second["energy"]) == pytest.approx((2.0, 6.0))
    assert (first["energy_share"], second["energy_share"]) == pytest.approx((0.25, 0.75))
    assert first["heads"] == 2


def test_one_branch(profile: EntropyProfile) -> None:
    assert profile.by_site("cond").height == 2
    with pytest.raises(UsageError, match=r"no such branch; expected one of \['cond', 'uncond'\]; got weak"):
        profile.by_site("weak")


def test_select(profile: EntropyProfile) -> None:
    assert [site.name for site in profile.select(top=1)] == ["down.attn1", "down.motion"]
    assert [site.name for site in profile.select(at_least=40)] == ["down.motion"]
    assert [site.name for site in profile.select(kind="spatial")] == ["down.attn1"]
    assert [site.name for site in profile.select(names=["*.motion"])] == ["down.motion"]
    assert len(profile.select(random=1, seed=1)) == 2
    with pytest.raises(UsageError, match=r"several rules for one choice of sites; expected one; got top, bottom"):
        profile.select(top=1, bottom=1)


def test_save_and_load(profile: EntropyProfile, tmp_path: Path) -> None:
    again = EntropyProfile.load(profile.save(tmp_path / "profile"))
    assert again.table.equals(profile.table)
    assert again.metadata == profile.metadata
    assert sorted(path.name for path in (tmp_path / "profile").iterdir()) == ["profile.json", "profile.parquet"]


def test_what_is_no_profile_is_refused(tmp_path: Path, profile: EntropyProfile) -> None:
    with pytest.raises(UsageError, match=r"not a profile; expected profile.json and profile.parquet"):
        EntropyProfile.load(tmp_path)
    folder = profile.save(tmp_path / "old")
    (folder / "profile.json").write_text('{"format": 0}')
    with pytest.raises(UsageError, match=r"a profile of another format"):
        EntropyProfile.load(folder)
    (folder / "profile.json").write_text('{"format": 1}')
    (folder / "profile.parquet").write_bytes(b"broken")
    with pytest.raises(
        UsageError, match=r"measured values of the profile are damaged; got .*parquet; remedy: `ieadapt m"
    ):
        EntropyProfile.load(folder)


def test_a_folder_that_cannot_be_written(tmp_path: Path, profile: EntropyProfile) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailureError, match=r"the profile cannot be written"):
        profile.save(tmp_path / "file")


def test_plot_has_energy_share_and_entropy_for_each_kind(profile: EntropyProfile) -> None:
    figure = profile.plot()
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["spatial attention", "temporal attention"]
    assert len(figure.axes) == 6
    entropy = figure.axes[-1]
    assert [line.get_ydata()[0] for line in entropy.lines if len(set(line.get_ydata())) == 1][:1] == [50]


def test_repr_says_what_was_measured(profile: EntropyProfile) -> None:
    assert repr(profile) == "EntropyProfile(1 spatial, 1 temporal sites, 2 steps)"


def test_heads_and_what_a_choice_compares(profile: EntropyProfile) -> None:
    assert profile.head_ep["down.attn1", 1] == pytest.approx(10.5)
    assert profile.statistics["energy"] == pytest.approx({"down.attn1": 2.0, "down.motion": 6.0})
    assert profile.statistics["resolution"] == {}
    known = EntropyProfile.from_rows([{**row, "resolution": 64} for row in _rows()])
    assert known.statistics["resolution"] == {"down.attn1": 64, "down.motion": 64}


def test_a_profile_from_before_resolutions_is_read(profile: EntropyProfile, tmp_path: Path) -> None:
    folder = profile.save(tmp_path)
    _as_before_hashes(folder)
    profile.table.drop("resolution").write_parquet(folder / "profile.parquet")
    again = EntropyProfile.load(folder)
    assert again.table.equals(profile.table)
    with pytest.raises(UsageError, match="the choice of sites needs their resolution"):
        SiteChoice.parse("level-top=1").choose(again.sites, **again.statistics)


def _as_before_hashes(folder: Path) -> None:
    content = json.loads((folder / "profile.json").read_text())
    content = {name: value for name, value in content.items() if name not in ("sha256", "digest", "digest_method")}
    (folder / "profile.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("column", "change", "told"),
    [
        ("ep", pl.lit(float("nan")), "ep that is no number"),
        ("ep", pl.lit(float("inf")), "ep from inf to inf"),
        ("ep", pl.col("ep") * 9e10, "ep from 0 to"),
        ("ep", -pl.col("ep"), "ep from -51 to"),
        ("temporal_ep", pl.lit(100.5), "temporal_ep from 100.5"),
        ("ep", pl.lit(None, pl.Float64), "values of 'ep' are missing"),
        ("ep", pl.col("ep").cast(pl.String), "no column 'ep' of Float64"),
        ("ep", pl.concat_list("ep"), "no column 'ep' of Float64"),
        ("energy_share", pl.lit(1.5), "energy_share from 1.5"),
        ("text_mass", pl.lit(-0.5), "text_mass from -0.5"),
        ("site", pl.lit(None, pl.String), "values of 'site' are missing"),
        ("site", pl.lit("x"), "twice"),
        ("head", pl.lit(0, pl.Int32), "twice"),
        ("kind", pl.concat_str(pl.col("kind"), pl.col("head")), "a site of two kinds"),
        ("z", pl.lit(1), "a column 'z'"),
    ],
)
def test_values_that_no_measurement_gives_are_refused_without_a_hash_too(
    column: str, change: pl.Expr, told: str, profile: EntropyProfile, tmp_path: Path
) -> None:
    folder = profile.save(tmp_path)
    _as_before_hashes(folder)
    profile.table.with_columns(change.alias(column)).write_parquet(folder / "profile.parquet")
    with pytest.raises(UsageError, match=rf"are damaged; got .*{told}.*in .*profile\.parquet; remedy"):
        EntropyProfile.load(folder)


def test_a_profile_that_lacks_a_column_or_all_rows_is_refused(profile: EntropyProfile, tmp_path: Path) -> None:
    folder = profile.save(tmp_path)
    _as_before_hashes(folder)
    for table, told in ((profile.table.drop("kind"), "no column 'kind'"), (profile.table.head(0), "no values")):
        table.write_parquet(folder / "profile.parquet")
        with pytest.raises(UsageError, match=told):
            EntropyProfile.load(folder)


@pytest.mark.parametrize("file", ["profile.json", "profile.parquet"])
def test_any_flipped_or_lost_byte_is_refused(file: str, profile: EntropyProfile, tmp_path: Path) -> None:
    path = profile.save(tmp_path) / file
    whole, draw = path.read_bytes(), random.Random(file)
    for _ in range(150):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        cut = whole[: draw.randrange(len(whole))]
        for damaged in (bytes(content), cut):
            path.write_bytes(damaged)
            loaded, error = _attempted(tmp_path)
            if loaded is None:
                assert str(tmp_path) in str(error)
                assert error is not None
                assert error.remedy
            else:  # white space at the end of the JSON, or between its fields
                assert loaded.table.equals(profile.table)
                assert loaded.metadata == profile.metadata


def _attempted(folder: Path) -> tuple[EntropyProfile | None, UsageError | None]:
    try:
        return EntropyProfile.load(folder), None
    except UsageError as error:
        return None, error


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [1], [None], True])
@pytest.mark.parametrize("name", ["model", "prompts", "seed", "weights_sample", "latent_grid", "format", "digest"])
def test_fields_of_another_type_are_named(name: str, value: Any, profile: EntropyProfile, tmp_path: Path) -> None:
    folder = profile.save(tmp_path)
    content = json.loads((folder / "profile.json").read_text())
    (folder / "profile.json").write_text(json.dumps(content | {name: value}))
    loaded, error = _attempted(folder)
    assert loaded is None
    assert re.search(r"the profile cannot be read; got .*; in .*profile\.json; remedy", str(error))
