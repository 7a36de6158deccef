"""Which configurations of an edit there can be, and what the presets choose."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ieadapt.errors import UsageError
from ieadapt.tasks.edit.config import EDIT_PRESETS, EditConfig, edit_preset
from ieadapt.tasks.measure.layer_choice import SiteChoice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "unknown method of an edit; expected inversion, noise-path, flowedit, sdedit; got magic"),
        ({"negative": "none"}, "unknown negative of an edit; expected empty, source; got none"),
        ({"start": 1.0}, r"start of an edit is out of range; expected 0..0.99; got 1.0"),
        ({"residual": -0.1}, "residual of an edit is out of range; expected 0..1"),
        ({"guidance_scale": 0.5}, "guidance_scale of an edit is out of range; expected 1..100"),
        ({"iterations": -1}, "iterations of an edit is out of range"),
        ({"inject_window": "0.5:0.5"}, "not a window of steps; expected fractions.*in inject_window"),
        ({"guidance_window": "all"}, "not a window of steps.*in guidance_window"),
        ({"mask": "cross:"}, "unknown mask of an edit; expected none, difference or cross:WORD; got cross:"),
        ({"words": "ball"}, "unknown word control; expected auto, none, replace or WORD=FACTOR; got ball"),
        ({"inject": "top=0"}, "a choice of no sites"),
        ({"method": "sdedit", "inject": "all"}, "sdedit has no source branch.*got inject all"),
    ],
)
def test_configurations_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EditConfig(**arguments)


def test_what_the_texts_mean() -> None:
    assert EditConfig(inject="none").injection is None
    assert EditConfig(inject="all").injection == SiteChoice()
    assert EditConfig(mask="cross:ball+big star").mask_words == ("ball", "big star")
    config = EditConfig(words="replace, ball=2, red = 0.5")
    assert config.replaces_words
    assert config.reweighted == {"ball": 2.0, "red": 0.5}
    assert EditConfig(words="ball=2").controls_words
    assert not EditConfig(words="none").controls_words


def test_auto_follows_what_the_model_has() -> None:
    auto = EditConfig()
    assert (auto.resolved(["cross", "temporal"]).words, auto.resolved(["cross", "temporal"]).inject) == (
        "replace",
        "temporal",
    )
    assert (auto.resolved(["joint"]).words, auto.resolved(["joint"]).inject) == ("none", "none")
    config = EditConfig(words="ball=2", inject="all")
    assert config.resolved(["cross", "temporal"]) == config
    assert EditConfig("sdedit").resolved([]).inject == "none"


def test_every_field_has_help() -> None:
    assert all(item.metadata.get("help") for item in dataclasses.fields(EditConfig))


def test_the_injecting_presets_differ_in_their_sites_only() -> None:
    names = ("all", "fpe", "high-ep", "low-ep", "random")
    sites = {name: EDIT_PRESETS[name].inject for name in names}
    assert len(set(sites.values())) == len(names)
    assert len({dataclasses.replace(EDIT_PRESETS[name], inject="all") for name in names}) == 1


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match=r"unknown preset of an edit; expected default, inversion, sdedit-0\.4.*got fp"
    ):
        edit_preset("fp")
