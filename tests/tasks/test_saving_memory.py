"""What diffusers offers for saving memory works under measuring and enhancing: the same figures, the same videos."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.hooks import apply_group_offloading
from torch import Tensor

from ieadapt.attention import denoisers_of
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhance, enhancement
from ieadapt.tasks.generate import generate
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.measure.profile import EntropyProfile
from tests.families import PROMPTS, tiny_pipeline
from tests.tasks.test_generate import config_for
from tests.tiny import FAMILIES, build

CPU = torch.device("cpu")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device to offload from")
Saver = Callable[[Any, Path], None]


def whole_model(pipe: DiffusionPipeline, folder: Path) -> None:
    """As `enable_model_cpu_offload` hooks it, which itself refuses to run without an accelerator."""
    for denoiser in denoisers_of(pipe).values():
        accelerate.cpu_offload_with_hook(denoiser, CPU)


def layer_by_layer(pipe: DiffusionPipeline, folder: Path) -> None:
    """As `enable_sequential_cpu_offload` does it: weights are meta tensors between the calls of their layer."""
    for denoiser in denoisers_of(pipe).values():
        accelerate.cpu_offload(denoiser, CPU, offload_buffers=True)
        assert all(parameter.is_meta for parameter in denoiser.parameters())


def from_disk(pipe: DiffusionPipeline, folder: Path) -> None:
    for number, denoiser in enumerate(denoisers_of(pipe).values()):
        accelerate.disk_offload(denoiser, folder / str(number), CPU)


def groups_of_blocks(pipe: DiffusionPipeline, folder: Path) -> None:
    for denoiser in denoisers_of(pipe).values():
        apply_group_offloading(denoiser, CPU, CPU, offload_type="block_level", num_blocks_per_group=1)


def groups_of_leaves(pipe: DiffusionPipeline, folder: Path) -> None:
    for denoiser in denoisers_of(pipe).values():
        apply_group_offloading(denoiser, CPU, CPU, offload_type="leaf_level")


def sliced_vae(pipe: Any, folder: Path) -> None:
    pipe.vae.enable_slicing()


OFFLOADING: dict[str, Saver] = {
    saver.__name__: saver
    for saver in (whole_model, layer_by_layer, from_disk, groups_of_blocks, groups_of_leaves, sliced_vae)
}
CONFIG = EnhanceConfig(start=0, sites="temporal/joint:top=1")


def results(pipe: DiffusionPipeline, family: str) -> tuple[EntropyProfile, Tensor]:
    """A profile and an enhanced video."""
    profile = measure(pipe, PROMPTS[0], config_for(family))
    return profile, enhance(pipe, PROMPTS[0], profile=profile, config=CONFIG, generation=config_for(family))


KINDS = ("wan", "cogvideox", "animatediff")
"""A family with attention to text apart, one with joint attention, and a U-Net."""


@pytest.mark.slow
@pytest.mark.parametrize("saver", OFFLOADING)
@pytest.mark.parametrize("family", KINDS)
def test_offloading_changes_nothing(family: str, saver: str, tmp_path: Path) -> None:
    if saver == "sliced_vae" and not hasattr(tiny_pipeline(family).vae, "enable_slicing"):
        pytest.skip(f"the VAE of {family} has no slicing")
    expected, video = results(tiny_pipeline(family), family)
    pipe = build(family)
    OFFLOADING[saver](pipe, tmp_path)
    found, changed = results(pipe, family)
    assert found.table["ep"].to_list() == expected.table["ep"].to_list()
    assert torch.allclose(changed, video, atol=1e-5)
    assert not torch.allclose(changed, generate(pipe, PROMPTS[0], config_for(family)), atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_profile_of_the_whole_model_holds_for_the_offloaded_one(family: str, tmp_path: Path) -> None:
    profile = measure(tiny_pipeline(family), PROMPTS[0], config_for(family))
    pipe = build(family)
    layer_by_layer(pipe, tmp_path)
    with enhancement(pipe, CONFIG, profile):
        generate(pipe, PROMPTS[0], config_for(family))


TILES = {
    "animatediff": {"tile_sample_min_size": 16, "tile_latent_min_size": 4},
    "cogvideox": {"tile_overlap_factor_height": 0.0, "tile_overlap_factor_width": 0.0},
    "wan": {
        **{f"tile_sample_min_{axis}": 16 for axis in ("height", "width")},
        **{f"tile_sample_stride_{axis}": 12 for axis in ("height", "width")},
    },
}
"""Attributes by which the VAE of a tiny pipeline cuts its small videos."""


@pytest.mark.parametrize("family", TILES)
def test_a_vae_that_decodes_tile_by_tile(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = build(family)
    pipe.vae.enable_tiling()
    for name, value in TILES[family].items():
        assert hasattr(pipe.vae, name)
        setattr(pipe.vae, name, value)
    name = "tiled_decode" if hasattr(pipe.vae, "tiled_decode") else "_tiled_decode"
    decode, decoded = getattr(pipe.vae, name), []
    monkeypatch.setattr(pipe.vae, name, lambda *given, **named: decoded.append(given) or decode(*given, **named))
    found, video = results(pipe, family)
    expected, whole = results(tiny_pipeline(family), family)
    assert found.table["ep"].to_list() == expected.table["ep"].to_list()
    assert decoded
    assert video.shape == whole.shape


@pytest.mark.parametrize("family", KINDS)
def test_weights_in_bfloat16(family: str) -> None:
    expected, _ = results(tiny_pipeline(family), family)
    found, video = results(build(family).to(torch.bfloat16), family)
    assert video.dtype == torch.float32
    assert torch.isfinite(video).all()
    difference = (found.by_site()["ep"] - expected.by_site()["ep"]).abs()
    assert difference.median() < 1.0


@pytest.mark.parametrize("family", ["wan", "cogvideox"])
def test_weights_kept_in_8_bits(family: str) -> None:
    expected, _ = results(tiny_pipeline(family), family)
    pipe = build(family)
    for denoiser in denoisers_of(pipe).values():
        denoiser.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    found, _ = results(pipe, family)
    assert found.metadata["weights_sample"] is None
    assert (found.by_site()["ep"] - expected.by_site()["ep"]).abs().max() < 1.0
    with enhancement(pipe, CONFIG, expected):  # rounded weights are not another model's
        generate(pipe, PROMPTS[0], config_for(family))


@pytest.mark.parametrize("family", ["wan", "cogvideox"])
def test_linear_layers_quantised_by_torchao(family: str) -> None:
    if find_spec("torchao") is None:
        pytest.skip("torchao is not installed; it is no dependency")
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    expected, _ = results(tiny_pipeline(family), family)
    pipe = build(family)
    for denoiser in denoisers_of(pipe).values():
        quantize_(denoiser, Int8WeightOnlyConfig())
    found, _ = results(pipe, family)
    assert found.metadata["weights_sample"] is None
    assert (found.by_site()["ep"] - expected.by_site()["ep"]).abs().max() < 1.0
    with enhancement(pipe, CONFIG, expected):
        generate(pipe, PROMPTS[0], config_for(family))


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("how", ["enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload"])
@pytest.mark.parametrize("family", KINDS)
def test_offloading_from_a_gpu(family: str, how: str) -> None:
    expected, video = results(build(family).to("cuda"), family)
    pipe: Any = build(family)
    given = {"onload_device": torch.device("cuda"), "offload_type": "leaf_level", "use_stream": True}
    getattr(pipe, how)(**(given if how == "enable_group_offload" else {}))
    found, changed = results(pipe, family)
    assert (found.by_site()["ep"] - expected.by_site()["ep"]).abs().max() < 0.1
    assert torch.allclose(changed, video, atol=2e-2)
