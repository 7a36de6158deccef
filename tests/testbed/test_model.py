import json

import pytest
import torch
from diffusers import AnimateDiffPipeline, UNetMotionModel
from safetensors import safe_open

from benchmarks.training.animatediff import SCENES, split_unet
from benchmarks.training.evaluate import generate, held_out_captions
from benchmarks.training.world import TOKENS
from ieadapt.models import load, model_folder
from ieadapt.testbed import render, sample_scenes, score_scene


@pytest.fixture(scope="module")
def pipeline() -> AnimateDiffPipeline:
    return load("scenes")


@pytest.mark.parametrize("name", ["scenes", "scenes-dit"])
def test_folder_is_small_and_has_no_pickle(name: str) -> None:
    files = [path for path in model_folder(name).rglob("*") if path.is_file()]
    sizes = [path.stat().st_size for path in files]
    assert max(sizes) <= 15e6
    assert sum(sizes) <= 21e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}


def test_weights_are_half_precision_and_stored_once() -> None:
    tensors = {}
    for path in model_folder("scenes").rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                value = file.get_tensor(name)
                assert value.dtype == torch.float16
                assert value.isfinite().all()
                tensors[path.parent.name, name] = value
    assert not [name for part, name in tensors if part == "unet" and "motion_modules" in name]
    assert all("motion_modules" in name for part, name in tensors if part == "motion_adapter")


def test_folder_is_standard() -> None:
    index = json.loads((model_folder("scenes") / "model_index.json").read_text())
    assert index["_class_name"] == "AnimateDiffPipeline"
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert index["image_encoder"] == index["feature_extractor"] == [None, None]


def test_plain_diffusers_loads_it_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = AnimateDiffPipeline.from_pretrained(model_folder("scenes"))
    parts = (loaded.unet, loaded.vae, loaded.text_encoder)
    assert {part.dtype for part in parts} == {torch.float32}


def test_size_and_sites(pipeline: AnimateDiffPipeline) -> None:
    unet = pipeline.unet
    assert isinstance(unet, UNetMotionModel)
    assert sum(parameter.numel() for parameter in unet.parameters()) <= 10e6
    names = list(unet.attn_processors)
    temporal = [name for name in names if "motion_modules" in name]
    spatial = [name for name in names if "attn1" in name and name not in temporal]
    assert (len(spatial), len(temporal), len(names) - len(spatial) - len(temporal)) == (10, 20, 10)


def test_schedule_ends_in_pure_noise(pipeline: AnimateDiffPipeline) -> None:
    scheduler = pipeline.scheduler
    assert scheduler.alphas_cumprod[-1] == 0
    assert scheduler.config.prediction_type == "v_prediction"
    scheduler.set_timesteps(5)
    assert scheduler.timesteps[0] == 999


def test_tokenizer_is_the_one_that_the_grammar_builds(pipeline: AnimateDiffPipeline) -> None:
    text = "a small purple cross shrinking over a starry sky"
    assert pipeline.tokenizer(text).input_ids == SCENES.tokenizer()(text).input_ids
    assert pipeline.tokenizer.model_max_length == TOKENS


def test_unet_splits_into_what_is_stored(pipeline: AnimateDiffPipeline) -> None:
    spatial, adapter = split_unet(pipeline.unet)
    joined = UNetMotionModel.from_unet2d(spatial, adapter)
    for name, value in joined.state_dict().items():
        assert torch.equal(value, pipeline.unet.state_dict()[name]), name


@pytest.mark.slow
def test_vae_keeps_scenes(pipeline: AnimateDiffPipeline) -> None:
    scenes = sample_scenes(2, 12, "heldout")
    frames = torch.stack([render(scene) for scene in scenes])
    with torch.no_grad():
        latents = pipeline.vae.encode(frames.flatten(0, 1) * 2 - 1).latent_dist.mean
        rebuilt = (pipeline.vae.decode(latents).sample / 2 + 0.5).unflatten(0, (2, 16)).clamp(0, 1)
    assert latents.shape[1:] == (8, 16, 16)
    assert latents.std() == pytest.approx(1, abs=0.15)
    assert -10 * (rebuilt - frames).square().mean().log10() > 33
    assert all(score_scene(clip, scene, 0).accuracy.mean > 0.93 for clip, scene in zip(rebuilt, scenes, strict=True))


@pytest.mark.slow
def test_captions_come_true_in_part_and_guidance_helps(pipeline: AnimateDiffPipeline) -> None:
    prompts = held_out_captions(6)
    plain, guided = (
        [
            score_scene(clip, prompt, 0).accuracy.mean
            for clip, prompt in zip(generate(pipeline, prompts, guidance, steps=8), prompts, strict=True)
        ]
        for guidance in (1.0, 3.0)
    )
    assert 0.4 < sum(plain) / 6 < sum(guided) / 6 < 0.95


@pytest.mark.slow
def test_same_noise_gives_the_same_clip_whatever_the_batch(pipeline: AnimateDiffPipeline) -> None:
    prompts = held_out_captions(2)
    together = generate(pipeline, prompts, 3.0, steps=1)
    alone = generate(pipeline, prompts, 3.0, steps=1, batch=1)
    assert torch.allclose(together, alone, atol=1e-3)
