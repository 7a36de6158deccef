"""`scenes-dit`: what is trained is what the pipeline of diffusers runs."""

import pytest
import torch
from diffusers import CogVideoXPipeline

from benchmarks.training.cogvideox import (
    PLAIN_CALL_TOKENS,
    SCENES_DIT,
    STANDARD,
    build_scheduler,
    build_tokenizer,
    rotary_positions,
    velocity,
)
from benchmarks.training.stages import single_frames
from benchmarks.training.world import TOKENS

PROMPT = "a big red star moving left in front of a small blue ring growing over bricks"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def modules() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    built = SCENES_DIT.build(SCENES_DIT.widths["tiny"])
    for parameter in built["transformer"].parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return {name: module.eval() for name, module in built.items()}


@pytest.fixture(scope="module")
def pipeline(modules: dict[str, torch.nn.Module]) -> CogVideoXPipeline:
    made = SCENES_DIT.assemble(modules)
    made.set_progress_bar_config(disable=True)
    return made


def test_standard_size_is_within_the_limit() -> None:
    with torch.device("meta"):
        built = SCENES_DIT.build(STANDARD)
    assert sum(value.numel() for module in built.values() for value in module.parameters()) <= 10e6


@pytest.mark.parametrize("frames", [1, 8])
def test_positions_are_the_pipeline_s(pipeline: CogVideoXPipeline, frames: int) -> None:
    wanted = pipeline._prepare_rotary_positional_embeddings(128, 128, frames, CPU)
    for mine, other in zip(rotary_positions(frames, CPU), wanted, strict=True):
        assert torch.equal(mine, other)


def test_velocity_is_what_the_pipeline_asks_of_the_transformer(
    pipeline: CogVideoXPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = pipeline.transformer.forward

    def watched(**arguments: object) -> object:
        seen.append((arguments, forward(**arguments)))
        return seen[-1][1]

    monkeypatch.setattr(pipeline.transformer, "forward", watched)
    pipeline(PROMPT, num_inference_steps=1, output_type="latent", **SCENES_DIT.call)
    monkeypatch.undo()
    arguments, said = seen[0]
    assert arguments["hidden_states"].shape == (2, 8, 16, 16, 16)
    assert arguments["encoder_hidden_states"].shape[1] == TOKENS
    with torch.no_grad():
        mine = velocity(
            pipeline.transformer,
            arguments["hidden_states"],
            arguments["timestep"],
            arguments["encoder_hidden_states"],
        )
    assert torch.allclose(mine, said[0], atol=1e-6)


def test_a_plain_call_gives_the_scenes_16_frames(pipeline: CogVideoXPipeline) -> None:
    frames = pipeline(PROMPT, num_inference_steps=1, output_type="pt").frames
    assert frames.shape == (1, 16, 3, 128, 128)
    assert PLAIN_CALL_TOKENS in SCENES_DIT.text_lengths


def test_every_word_is_one_token() -> None:
    tokenizer = build_tokenizer()
    row = tokenizer(PROMPT).input_ids
    assert len(row) == len(PROMPT.split()) + 1
    assert tokenizer.decode(row, skip_special_tokens=True) == PROMPT
    assert tokenizer.unk_token_id not in tokenizer("a rhinoceros, 12 %").input_ids


def test_schedule_ends_in_pure_noise() -> None:
    scheduler = build_scheduler()
    assert scheduler.alphas_cumprod[-1] == 0
    scheduler.set_timesteps(5)
    assert scheduler.timesteps[0] == 999


def test_single_frames_come_from_every_place_in_the_clip() -> None:
    clips = torch.arange(8).float().expand(64, 8)[..., None]
    chosen = single_frames(clips)
    assert chosen.shape == (64, 1, 1)
    assert len(chosen.unique()) == 8
