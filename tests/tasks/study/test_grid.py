"""The grid of a study, mode by mode."""

from __future__ import annotations

import pytest

from ieadapt.attention import AttentionSite
from ieadapt.errors import UsageError
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.grid import conditions

SITES = [
    AttentionSite("a", "spatial", 0, 2),
    AttentionSite("x", "cross", 1, 2),
    AttentionSite("b", "spatial", 2, 1),
    AttentionSite("c", "spatial", 3, 1),
]
EP = {"a": 50.0, "b": 90.0, "c": 70.0, "x": 10.0}


def told(**changes: str) -> list[str]:
    return [str(condition) for condition in conditions(StudyConfig(**changes), SITES, EP)]  # type: ignore[arg-type]


def test_each_site_with_each_perturbation_but_no_identity_across() -> None:
    assert told(sites="a,x", perturb="identity,mix:0.5") == ["identity at a", "mix:0.5 at a", "mix:0.5 at x"]


def test_cumulative_by_entropy_within_a_kind() -> None:
    made = conditions(StudyConfig(mode="cumulative", perturb="uniform", sites="spatial"), SITES, EP)
    assert [(condition.rank, condition.sites) for condition in made] == [
        ("top", ("b",)),
        ("bottom", ("a",)),
        ("top", ("b", "c")),
        ("bottom", ("c", "a")),
        ("top", ("b", "c", "a")),
        ("bottom", ("b", "c", "a")),
    ]


def test_per_head() -> None:
    assert told(mode="per-head", perturb="uniform", sites="a,b") == [
        "uniform at a, head 0",
        "uniform at a, head 1",
        "uniform at b, head 0",
    ]


def test_a_choice_by_entropy() -> None:
    assert told(sites="spatial:top=1", perturb="uniform") == ["uniform at b"]


def test_identity_at_cross_attention_alone() -> None:
    with pytest.raises(UsageError, match="no identity map; got identity at 1 cross-attention sites only"):
        told(sites="cross", perturb="identity,identity:0.5")
