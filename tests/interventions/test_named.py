"""Perturbations as words."""

from __future__ import annotations

import pytest

from ieadapt.errors import UsageError
from ieadapt.interventions import PERTURBATION_FORMS, parse_perturbation


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("identity", "Identity(scope='video')"),
        ("identity:0.5", "Identity(0.5, scope='video')"),
        ("identity:1", "Identity(scope='video')"),
        ("uniform", "Uniform(scope='video')"),
        ("mix:.5", "Mix(0.5, scope='video')"),
        ("temperature:2", "Temperature(2, scope='video')"),
        ("blur:1.5", "BlurQueries(1.5, scope='video')"),
        ("blur:inf", "BlurQueries(inf, scope='video')"),
        ("shuffle", "Shuffle(scope='video')"),
        ("shuffle:7", "Shuffle(7, scope='video')"),
        ("skip", "Skip(scope='video')"),
    ],
)
def test_every_name(text: str, shown: str) -> None:
    assert repr(parse_perturbation(text)) == shown


def test_the_scope_is_passed_on() -> None:
    assert parse_perturbation("identity", scope="all").scope == "all"


@pytest.mark.parametrize("text", ["mix", "mix:much", "identity:1:2", "uniform:1", "blur", "temperature:"])
def test_wrong_amounts(text: str) -> None:
    with pytest.raises(
        UsageError, match="unknown perturbation; expected identity, identity:WEIGHT, uniform, mix:WEIGHT"
    ):
        parse_perturbation(text)


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match=f"unknown perturbation; expected {', '.join(PERTURBATION_FORMS)}; got swap"):
        parse_perturbation("swap")
