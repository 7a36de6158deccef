"""Every tiny pipeline runs, is not degenerate, and survives saving."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import Tensor

from tests.tiny import FAMILIES, build, call_arguments

PROMPTS = ["a red ball rolls left", "a cube"]

ONE_VIDEO = {
    "animatediff",
    "cogvideox",
    "modelscope",
}  # these pipelines force one video per prompt, or have no argument


def run(pipe: DiffusionPipeline, family: str, prompts: list[str], **changes: Any) -> Tensor:
    """Return what two steps from a fixed seed give."""
    arguments = {"num_inference_steps": 2, "output_type": "latent", **call_arguments(family), **changes}
    return pipe(prompts, generator=torch.Generator().manual_seed(7), **arguments).frames


def guidance(family: str, prompts: list[str], scale: float) -> dict[str, Any]:
    """Return the arguments that set classifier-free guidance in a family."""
    if family == "hunyuanvideo":
        return {"true_cfg_scale": scale, "negative_prompt": ["blurry"] * len(prompts)}
    return {"guidance_scale": scale, "negative_prompt": ["blurry"] * len(prompts)}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pipe(family: str) -> DiffusionPipeline:
    return build(family)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_two_prompts_with_and_without_guidance(pipe: DiffusionPipeline, family: str, scale: float) -> None:
    start = perf_counter()
    latents = run(pipe, family, PROMPTS, **guidance(family, PROMPTS, scale))
    assert perf_counter() - start < 10  # well under a second on an idle machine
    assert len(latents) == 2
    assert latents.dtype == torch.float32
    assert torch.isfinite(latents).all()
    assert latents.std() > 0.1


def test_guidance_and_prompt_matter(pipe: DiffusionPipeline, family: str) -> None:
    plain, guided = (run(pipe, family, PROMPTS, **guidance(family, PROMPTS, scale)) for scale in (1.0, 3.0))
    other = run(pipe, family, ["a green ring grows", "a cube"], **guidance(family, PROMPTS, 3.0))
    assert (plain - guided).abs().max() > 1e-3
    assert (guided[0] - other[0]).abs().max() > 1e-3


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ONE_VIDEO], scope="module")
def test_several_videos_per_prompt(pipe: DiffusionPipeline, family: str) -> None:
    latents = run(pipe, family, PROMPTS, num_videos_per_prompt=2, **guidance(family, PROMPTS, 3.0))
    assert len(latents) == 4
    assert len({tuple(row.flatten()[:4].tolist()) for row in latents}) == 4


def test_pixels(pipe: DiffusionPipeline, family: str) -> None:
    frames = run(pipe, family, PROMPTS[:1], output_type="pt")
    sizes = call_arguments(family)
    assert frames.shape == (1, sizes["num_frames"], 3, sizes["height"], sizes["width"])
    assert 0 <= frames.min() < frames.max() <= 1
    assert frames.std() > 0.02


def test_same_seed_same_weights_and_another_seed_others(pipe: DiffusionPipeline, family: str) -> None:
    first = run(pipe, family, PROMPTS)
    assert torch.equal(first, run(build(family), family, PROMPTS))
    assert not torch.equal(first, run(build(family, seed=1), family, PROMPTS))


def test_saved_folder_gives_the_same_output(pipe: DiffusionPipeline, family: str, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded) is type(pipe)
    kinds = {name: type(part) for name, part in pipe.components.items()}
    assert {name: type(part) for name, part in loaded.components.items()} == kinds
    arguments = guidance(family, PROMPTS, 3.0)
    assert torch.equal(run(loaded, family, PROMPTS, **arguments), run(pipe, family, PROMPTS, **arguments))


def test_no_weight_is_zero_and_every_attention_matters(pipe: DiffusionPipeline, family: str) -> None:
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    assert all(parameter.abs().max() > 0 for parameter in denoiser.parameters())
    before = run(pipe, family, PROMPTS[:1])
    for name, module in denoiser.named_modules():
        if not hasattr(module, "processor") or not hasattr(module, "to_q"):
            continue
        kept = module.to_q.weight.detach().clone()
        with torch.no_grad():
            module.to_q.weight.mul_(-1)
            after = run(pipe, family, PROMPTS[:1])
            module.to_q.weight.copy_(kept)
        assert not torch.equal(before, after), name


def test_hunyuan_template_is_cropped_to_the_prompt() -> None:
    pipe = build("hunyuanvideo")
    prefix = DEFAULT_PROMPT_TEMPLATE["template"].split("{}")[0]
    assert len(pipe.tokenizer(prefix)["input_ids"]) == DEFAULT_PROMPT_TEMPLATE["crop_start"]
    _, _, mask = pipe.encode_prompt(["a cube", "a red cube"], max_sequence_length=32, device=torch.device("cpu"))
    assert mask.shape == (2, 32)
    assert mask.sum(dim=1).diff() == len("red ")
