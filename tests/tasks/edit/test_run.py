"""A model's own number and size of frames, in every family, and what is asked rounded down to what it takes."""

from __future__ import annotations

import pytest

from ieadapt.runs.sources import Frames
from ieadapt.tasks.edit.run import frames_for
from ieadapt.tasks.generate import GenerationConfig
from tests.tiny import FAMILIES, build, call_arguments


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_is_called_with_fits_it(family: str) -> None:
    asked = {name: call_arguments(family)[name] for name in ("num_frames", "height", "width")}
    wanted = frames_for(build(family), GenerationConfig(**asked))
    assert (wanted.number, wanted.height, wanted.width) == tuple(asked.values())


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("wan", Frames(81, 480, 832)),
        ("hunyuanvideo", Frames(129, 720, 1280)),
        ("mochi", Frames(19, 480, 848)),
        ("ltx", Frames(161, 512, 704)),
    ],
)
def test_the_defaults_of_a_pipeline_are_the_models_own(family: str, expected: Frames) -> None:
    assert frames_for(build(family), GenerationConfig()) == expected


@pytest.mark.parametrize(("family", "number"), [("animatediff", 16), ("modelscope", 16), ("cogvideox", None)])
def test_where_the_pipeline_has_none_the_denoiser_says_it(family: str, number: int | None) -> None:
    pipe = build(family)
    config = pipe.transformer.config if family == "cogvideox" else pipe.unet.config
    scale = getattr(pipe, "vae_scale_factor_spatial", None) or pipe.vae_scale_factor
    high = config.sample_height if family == "cogvideox" else config.sample_size
    wanted = frames_for(pipe, GenerationConfig())
    assert wanted.height == high * scale
    assert wanted.number == (config.sample_frames if number is None else number)


def test_a_size_that_does_not_fit_is_rounded_down() -> None:
    wanted = frames_for(build("wan"), GenerationConfig(num_frames=8, height=100, width=70))
    assert wanted.number <= 8
    assert (wanted.height, wanted.width) < (101, 71)
    assert wanted == frames_for(build("wan"), GenerationConfig(num_frames=wanted.number, height=wanted.height, width=wanted.width))  # fmt: skip # noqa: E501
