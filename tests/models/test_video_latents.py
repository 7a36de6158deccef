"""Latents in every family: what the pipeline decodes is the clip that was encoded, up to the VAE's own loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from ieadapt.errors import UsageError
from ieadapt.models.video_latents import encode_video, fitting_size, latents_of
from ieadapt.tasks.edit.pipeline_run import PipelineRunner
from tests.families import every_family, tiny_pipeline
from tests.tiny import call_arguments


def clip(family: str) -> Tensor:
    """A random clip of the family's smallest size."""
    size = call_arguments(family)
    return torch.rand(size["num_frames"], 3, size["height"], size["width"], generator=torch.Generator().manual_seed(0))


def _through_the_vae(pipe: Any, frames: Tensor, image_vae: bool) -> Tensor:
    video = rearrange(frames, "frame channel height width -> 1 channel frame height width") * 2 - 1
    if image_vae:
        video = rearrange(video, "1 channel frame height width -> frame channel height width")
    with torch.no_grad():
        back = pipe.vae.decode(pipe.vae.encode(video).latent_dist.mode()).sample
    back = back if image_vae else rearrange(back, "1 channel frame height width -> frame channel height width")
    return (back / 2 + 0.5).clamp(0, 1)


@every_family
def test_the_pipeline_decodes_what_the_vae_alone_would(family: str) -> None:
    pipe, frames = tiny_pipeline(family), clip(family)
    decoded = PipelineRunner(pipe, frames, 2).decode(encode_video(pipe, frames))
    expected = _through_the_vae(pipe, frames, family in ("animatediff", "modelscope"))
    torch.testing.assert_close(decoded[0], expected, rtol=1e-3, atol=1e-4)
    assert expected.std() > 0.02


@every_family
def test_the_grid_is_the_latents_by_frame_row_and_column(family: str) -> None:
    pipe, frames = tiny_pipeline(family), clip(family)
    row, latents = latents_of(pipe), encode_video(pipe, frames)
    grid = row.grid(pipe, latents, (len(frames), *frames.shape[2:]))
    assert torch.equal(row.ungrid(pipe, grid), latents)
    brighter = frames.clone()
    brighter[-1, :, : frames.shape[2] // 2] = 1.0  # of the last frame, the upper half
    moved = (row.grid(pipe, encode_video(pipe, brighter), (len(frames), *frames.shape[2:])) - grid).abs().mean(dim=1)[0]
    upper, lower = moved[-1].chunk(2)
    assert upper.mean() > lower.mean()
    assert moved[-1].mean() > moved[0].mean()


@every_family
def test_the_fitting_size_is_the_largest_that_runs(family: str) -> None:
    pipe, size = tiny_pipeline(family), call_arguments(family)
    exact = size["num_frames"], size["height"], size["width"]
    assert fitting_size(pipe, *exact) == exact
    assert fitting_size(pipe, exact[0], exact[1] + 7, exact[2] + 7) == exact


def test_frames_fit_the_vae_and_the_positions() -> None:
    assert fitting_size(tiny_pipeline("wan"), 12, 32, 48)[0] == 9
    assert fitting_size(tiny_pipeline("mochi"), 12, 64, 96)[0] == 7
    assert fitting_size(tiny_pipeline("animatediff"), 100, 16, 24)[0] == 32


@pytest.mark.parametrize("frames", [6, 8, 9, 12, 15, 16, 17])
def test_cogvideox_gives_back_as_many_frames_as_fit(frames: int) -> None:
    """Its VAE decodes two latent frames at a time: an even number of them has no first frame apart."""
    pipe, size = tiny_pipeline("cogvideox"), call_arguments("cogvideox")
    kept, height, width = fitting_size(pipe, frames, size["height"], size["width"])
    given = torch.rand(kept, 3, height, width)
    assert len(PipelineRunner(pipe, given, 2).decode(encode_video(pipe, given))[0]) == kept
    assert kept in {6: (1,), 8: (8,), 9: (9,), 12: (9,), 15: (9,), 16: (16,), 17: (17,)}[frames]


@pytest.fixture
def without_encoder() -> Iterator[Any]:
    pipe = tiny_pipeline("wan")
    encoder = pipe.vae.encoder
    pipe.vae.encoder = None
    yield pipe
    pipe.vae.encoder = encoder


def test_a_vae_without_encoder(without_encoder: Any) -> None:
    with pytest.raises(
        UsageError, match=r"VAE has no encoder, so a given clip cannot be edited; got AutoencoderKLWan; in WanPipeline"
    ):
        encode_video(without_encoder, clip("wan"))


def test_an_unlisted_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ieadapt.models.video_latents.first_denoiser", lambda pipe: nn.Identity())
    with pytest.raises(
        UsageError, match=r"clips of this model family cannot be encoded; expected AnimateDiff, .*Mochi"
    ):
        latents_of(tiny_pipeline("wan"))
