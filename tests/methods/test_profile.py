"""The entropy profile: shares, means, files, plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ieadapt.errors import FailureError, UsageError
from ieadapt.methods import EntropyProfile, SiteChoice


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
    sums = profile.table.group_by("step", "branch").agg(total=__import__("polars").col("energy_share").sum())
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
    (folder / "profile.parquet").write_bytes(b"broken")
    with pytest.raises(UsageError, match=r"not a profile"):
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
    assert profile.figures["energy"] == pytest.approx({"down.attn1": 2.0, "down.motion": 6.0})
    assert profile.figures["level"] == {}
    known = EntropyProfile.from_rows([{**row, "resolution": 64} for row in _rows()])
    assert known.figures["level"] == {"down.attn1": 64, "down.motion": 64}


def test_a_profile_from_before_resolutions_is_read(profile: EntropyProfile, tmp_path: Path) -> None:
    folder = profile.save(tmp_path)
    profile.table.drop("resolution").write_parquet(folder / "profile.parquet")
    again = EntropyProfile.load(folder)
    assert again.table.equals(profile.table)
    with pytest.raises(UsageError, match="the choice of sites needs their resolution"):
        SiteChoice.parse("level-top=1").choose(again.sites, **again.figures)
