"""Rows of families whose whole pipelines are not built here: a tiny denoiser, called by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from ieadapt.attention import denoisers_of, family_of, find_sites, intercept, wrap_denoiser
from ieadapt.attention.denoiser_calls import DenoiserCall
from ieadapt.errors import FailureError
from ieadapt.interventions import Record, Uniform
from tests.tiny.modelscope import UNET
from tests.tiny.wan import FACES
from tests.tiny.weights import randomise

FRAMES, HEIGHT, WIDTH, TEXT = 3, 4, 6, 5


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@dataclass(frozen=True)
class Bare:
    """A denoiser, how it is made, how it is called for two rows, and the kinds of its sites."""

    name: str
    config: Mapping[str, Any]
    arguments: Callable[[], dict[str, Any]]
    kinds: Mapping[str, int]


def _video(channels: int, patch: int = 2) -> dict[str, Any]:
    return {
        "hidden_states": _noise(2, channels, FRAMES, patch * HEIGHT, patch * WIDTH),
        "timestep": torch.tensor([5, 5]),
    }


def _text(width: int = 16) -> dict[str, Tensor]:
    return {"encoder_hidden_states": _noise(2, TEXT, width)}


_HEADS = {"num_attention_heads": 2, "attention_head_dim": 12}
_WAN = {**_HEADS, "in_channels": 4, "out_channels": 4, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2}
_I2VGENXL_KINDS = {"temporal": 11, "spatial": 4, "cross": 4}
_ONES = {"encoder_attention_mask": torch.ones(2, TEXT)}

BARE = {
    "Wan": Bare("WanTransformer3DModel", _WAN, lambda: {**_video(4), **_text()}, {"joint": 2, "cross": 2}),
    "Wan VACE": Bare(
        "WanVACETransformer3DModel",
        {**_WAN, "vace_layers": [0], "vace_in_channels": 8},
        lambda: {**_video(4), **_text(), "control_hidden_states": _noise(2, 8, FRAMES, 2 * HEIGHT, 2 * WIDTH)},
        {"joint": 3, "cross": 3},
    ),
    "ChronoEdit": Bare(
        "ChronoEditTransformer3DModel", _WAN, lambda: {**_video(4), **_text()}, {"joint": 2, "cross": 2}
    ),
    "SkyReels V2": Bare(
        "SkyReelsV2Transformer3DModel", _WAN, lambda: {**_video(4), **_text()}, {"joint": 2, "cross": 2}
    ),
    "ConsisID": Bare(
        "ConsisIDTransformer3DModel",
        {
            **_HEADS,
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 16,
            "text_embed_dim": 16,
        }
        | {"num_layers": 2, "sample_width": 12, "sample_height": 8, "sample_frames": 9, "max_text_seq_length": TEXT},
        lambda: {**_video(4), **_text(), "hidden_states": _noise(2, FRAMES, 4, 2 * HEIGHT, 2 * WIDTH)},
        {"joint": 2},
    ),
    "EasyAnimate": Bare(
        "EasyAnimateTransformer3DModel",
        {**_HEADS, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "patch_size": 2, "num_layers": 2}
        | {"mmdit_layers": 2, "text_embed_dim": 16, "time_embed_dim": 16},
        lambda: {**_video(4), **_text()},
        {"joint": 2},
    ),
    "HunyuanVideo 1.5": Bare(
        "HunyuanVideo15Transformer3DModel",
        {
            **_HEADS,
            "attention_head_dim": 8,
            "in_channels": 9,
            "out_channels": 4,
            "num_layers": 2,
            "num_refiner_layers": 1,
        }
        | {"text_embed_dim": 16, "text_embed_2_dim": 16, "image_embed_dim": 12, "rope_axes_dim": (2, 2, 4)},
        lambda: {
            **_video(9, 1),
            "timestep": torch.tensor([5.0, 5.0]),
            **_text(),
            **_ONES,
            "encoder_hidden_states_2": _noise(2, 4, 16),
            "encoder_attention_mask_2": torch.ones(2, 4),
            "image_embeds": torch.zeros(2, 3, 12),
        },
        {"text": 1, "joint": 2},
    ),
    "Allegro": Bare(
        "AllegroTransformer3DModel",
        {**_HEADS, "attention_head_dim": 24, "num_layers": 2, "cross_attention_dim": 48, "caption_channels": 16}
        | {"sample_height": 8, "sample_width": 12, "sample_frames": 3},
        lambda: {**_video(4), **_text(), **_ONES, "image_rotary_emb": _allegro_positions()},
        {"joint": 2, "cross": 2},
    ),
    "Latte": Bare(
        "LatteTransformer3DModel",
        {**_HEADS, "in_channels": 4, "out_channels": 4, "num_layers": 2, "cross_attention_dim": 24, "sample_size": 8}
        | {"patch_size": 2, "norm_type": "ada_norm_single", "caption_channels": 16, "video_length": FRAMES}
        | {"norm_elementwise_affine": False},
        lambda: {**_video(4), **_text(), "hidden_states": _noise(2, 4, FRAMES, 8, 8)},
        {"spatial": 2, "cross": 2, "temporal": 2},
    ),
    "Cosmos": Bare(
        "CosmosTransformer3DModel",
        {**_HEADS, "in_channels": 4, "out_channels": 4, "num_layers": 2, "text_embed_dim": 16, "adaln_lora_dim": 8}
        | {"concat_padding_mask": False, "max_size": (8, 16, 16), "extra_pos_embed_type": None},
        lambda: {**_video(4), **_text()},
        {"joint": 2, "cross": 2},
    ),
    "I2VGenXL": Bare(
        "I2VGenXLUNet",
        {**UNET, "num_attention_heads": 2},
        lambda: {
            "sample": _noise(2, 4, FRAMES, 8, 8),
            "timestep": torch.tensor([5, 5]),
            "fps": torch.tensor([8, 8]),
            "image_latents": _noise(2, 4, FRAMES, 8, 8),
            "image_embeddings": _noise(2, UNET["cross_attention_dim"]),
            **_text(UNET["cross_attention_dim"]),
        },
        _I2VGENXL_KINDS,
    ),
    "Wan Animate": Bare(
        "WanAnimateTransformer3DModel",
        {**_WAN, "in_channels": 12, "latent_channels": 4, "image_dim": 8, "added_kv_proj_dim": 24, **FACES},
        lambda: {
            **_video(12),
            "encoder_hidden_states": _noise(2, 512, 16),  # its processor counts on 512 tokens of text
            "encoder_hidden_states_image": _noise(2, 4, 8),
            "pose_hidden_states": _noise(2, 4, FRAMES - 1, 2 * HEIGHT, 2 * WIDTH),
            "face_pixel_values": _noise(2, 3, 4 * (FRAMES - 1), 16, 16),
        },
        {"joint": 2, "cross": 3},
    ),
    "Kandinsky 5": Bare(
        "Kandinsky5Transformer3DModel",
        {"in_visual_dim": 4, "out_visual_dim": 4, "in_text_dim": 16, "in_text_dim2": 8, "time_dim": 16}
        | {"model_dim": 32, "ff_dim": 32, "num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (4, 6, 6)},
        lambda: {
            **_video(4),
            **_text(),
            "hidden_states": _noise(2, FRAMES, 2 * HEIGHT, 2 * WIDTH, 4),
            "timestep": torch.tensor([5.0, 5.0]),
            "pooled_projections": _noise(2, 8),
            "visual_rope_pos": [torch.arange(size) for size in (FRAMES, HEIGHT, WIDTH)],
            "text_rope_pos": torch.arange(TEXT),
        },
        {"text": 1, "joint": 2, "cross": 2},
    ),
    "LTX-2": Bare(
        "LTX2VideoTransformer3DModel",
        {
            **_HEADS,
            "attention_head_dim": 16,
            "in_channels": 8,
            "out_channels": 8,
            "cross_attention_dim": 32,
            "num_layers": 2,
        }
        | {
            "audio_in_channels": 8,
            "audio_out_channels": 8,
            "audio_num_attention_heads": 2,
            "audio_attention_head_dim": 8,
        }
        | {"audio_cross_attention_dim": 16, "caption_channels": 16},
        lambda: {
            "hidden_states": _noise(2, FRAMES * HEIGHT * WIDTH, 8),
            "audio_hidden_states": _noise(2, 7, 8),
            "encoder_hidden_states": _noise(2, TEXT, 16),
            "audio_encoder_hidden_states": _noise(2, TEXT, 16),
            "timestep": torch.tensor([5, 5]),
            **{"num_frames": FRAMES, "height": HEIGHT, "width": WIDTH, "audio_num_frames": 7, "fps": 24.0},
        },
        {"joint": 2, "cross": 2, "unknown": 8},
    ),
}


def _allegro_positions() -> Any:
    steps = [torch.arange(size).repeat_interleave(1) for size in (FRAMES, HEIGHT, WIDTH)]
    grid = torch.cartesian_prod(*steps).T[:, None]
    rotary = [(torch.ones(size, 8), torch.zeros(size, 8)) for size in (FRAMES, HEIGHT, WIDTH)]
    return rotary, tuple(grid)


def _denoiser(name: str) -> nn.Module:
    case = BARE[name]
    if not hasattr(diffusers, case.name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {case.name}")
    model = getattr(diffusers, case.name)(**case.config)
    randomise(model, 0)
    return model


@pytest.mark.parametrize("name", BARE)
def test_sites_are_of_their_kinds_and_measured(name: str) -> None:
    model, case = _denoiser(name), BARE[name]
    sites = find_sites(model)
    assert family_of(model).name == name
    assert Counter(site.kind for site in sites) == case.kinds
    calls: list[DenoiserCall] = []
    with (
        intercept(model, Record()) as record,
        wrap_denoiser(model, lambda call, _: calls.append(call)),
        torch.no_grad(),
    ):
        model(**case.arguments())
    assert calls[0].grid is not None
    assert (calls[0].grid.frames, len(calls[0].rows)) == (FRAMES, 2)
    measured = {row["site"]: row for row in record.records()}
    assert set(measured) == {site.name for site in sites}
    joint = [measured[site.name] for site in sites if site.kind == "joint"]
    assert all(row["temporal_ep"] is not None and row["spatial_ep"] is not None for row in joint)


@pytest.mark.parametrize("name", BARE)
def test_a_weak_pass_of_one_row_is_that_row(name: str) -> None:
    """The row of the table says which arguments are per row: a pass over one row alone gives what both gave."""
    model, case = _denoiser(name), BARE[name]
    differences = []

    def compare(call: DenoiserCall, prediction: Tensor) -> None:
        differences.append((call.forward_rows([1]) - prediction[1:]).abs().max() / prediction.abs().max())

    with wrap_denoiser(model, compare), torch.no_grad():
        model(**case.arguments())
    assert max(differences) < 1e-4


@pytest.mark.parametrize("name", BARE)
def test_a_changed_site_changes_the_prediction(name: str) -> None:
    model, case = _denoiser(name), BARE[name]
    first = next(site for site in find_sites(model) if site.kind in ("joint", "spatial"))
    with torch.no_grad():
        plain = model(**case.arguments())[0]
        with intercept(model, Uniform(), first):
            changed = model(**case.arguments())[0]
    assert (plain - changed).abs().max() > 1e-6
    assert denoisers_of(model) == {"": model}


def test_linear_attention_is_refused_and_cross_attention_beside_it_measured() -> None:
    small = {"num_cross_attention_heads": 2, "cross_attention_head_dim": 12, "cross_attention_dim": 24}
    model = diffusers.SanaVideoTransformer3DModel(
        **_HEADS, **small, in_channels=4, out_channels=4, num_layers=2, caption_channels=16
    )
    call = {**_video(4, 1), **_text()}
    message = r"SanaLinearAttnProcessor.*linear attention has no map, so choose other"
    with pytest.raises(FailureError, match=message), intercept(model, Record()), torch.no_grad():
        model(**call)
    cross = [site for site in find_sites(model) if site.kind == "cross"]
    with intercept(model, Record(), cross) as record, torch.no_grad():
        model(**call)
    assert len(list(record.records())) == 4
