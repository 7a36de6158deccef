"""A model's own number and size of frames, in every family, and a requested size rounded down to what it takes."""

from __future__ import annotations

import pytest

from ieadapt.runs.settings import GenerationConfig
from ieadapt.runs.sources import Frames
from ieadapt.tasks.edit.run import frames_for
from tests.tiny import FAMILIES, build, call_arguments


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_is_called_with_fits_it(family: str) -> None:
    requested = {name: call_arguments(family)[name] for name in ("num_frames", "height", "width")}
    fitting = frames_for(build(family), GenerationConfig(**requested))
    assert (fitting.number, fitting.height, fitting.width) == tuple(requested.values())


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
    fitting = frames_for(pipe, GenerationConfig())
    assert fitting.height == high * scale
    assert fitting.number == (config.sample_frames if number is None else number)


def test_a_size_that_does_not_fit_is_rounded_down() -> None:
    fitting = frames_for(build("wan"), GenerationConfig(num_frames=8, height=100, width=70))
    assert fitting.number <= 8
    assert (fitting.height, fitting.width) < (101, 71)
    assert fitting == frames_for(build("wan"), GenerationConfig(num_frames=fitting.number, height=fitting.height, width=fitting.width))  # fmt: skip # noqa: E501
