"""What `intercept` hands out: rows of the chosen branches, heads of the chosen ones, and steps of the sampler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    WanVideoToVideoPipeline,
)
from PIL import Image
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from ieadapt.attention import AttentionCall, AttentionSite, find_sites, intercept
from ieadapt.attention.restore import attribute
from ieadapt.errors import FailureError, UsageError
from ieadapt.interventions import Identity, Uniform
from tests.families import PROMPTS, UNGUIDED, captured, every_family, predict, run, tiny_pipeline
from tests.tiny import build, call_arguments

OFF: dict[str, dict[str, Any]] = UNGUIDED | {"hunyuanvideo": {**UNGUIDED["hunyuanvideo"], "true_cfg_scale": 1.0}}


def self_site(family: str) -> AttentionSite:
    """A site where video tokens look at one another."""
    return next(site for site in find_sites(tiny_pipeline(family)) if site.kind in ("spatial", "joint"))


@every_family
@pytest.mark.parametrize("guidance", ["cond", "uncond", "all"])
def test_only_the_chosen_rows_are_handed_out_and_change(family: str, guidance: str) -> None:
    seen: dict[str, set[str]] = {"given": set(), "changed": set()}
    pipe, site = tiny_pipeline(family), self_site(family)

    def change(call: AttentionCall) -> Tensor:
        seen["given"].update(call.rows.guidance)
        return call.output + 1

    def watch(call: AttentionCall) -> None:
        for row, branch in enumerate(call.rows.guidance):
            own = call.restricted([row])
            if not torch.allclose(own.output, own.attention.output(), atol=1e-5):
                seen["changed"].add(branch)

    with intercept(pipe, change, [site], guidance=guidance), intercept(pipe, watch, [site], guidance="all"):
        run(family, PROMPTS)
    chosen = {"cond", "uncond"} if guidance == "all" else {guidance}
    assert seen == {"given": chosen, "changed": chosen}


@every_family
def test_rows_without_guidance_are_conditional(family: str) -> None:
    plain = run(family, **OFF[family])
    with intercept(tiny_pipeline(family), Uniform(), [self_site(family)]):
        changed = run(family, **OFF[family])
    assert (changed - plain).abs().max() > 1e-4


@every_family
def test_rows_that_never_come_are_an_error(family: str) -> None:
    with (
        pytest.raises(FailureError, match=r"1 of 1 chosen attention sites never fired; got no uncond rows"),
        intercept(tiny_pipeline(family), Uniform(), [self_site(family)], guidance="uncond"),
    ):
        run(family, **OFF[family])


@every_family
def test_only_the_chosen_heads_are_handed_out_and_change(family: str) -> None:
    denoiser, site = captured(family)[0], self_site(family)
    heads: list[int] = []

    def change(call: AttentionCall) -> Tensor:
        heads.append(call.query.shape[1])
        return call.output + 1

    def watch(call: AttentionCall) -> None:
        apart = (call.output - call.attention.output()).abs().amax((0, 2, 3))
        assert apart[1] > 0.5
        assert apart[torch.arange(site.heads) != 1].max() < 1e-5

    with intercept(denoiser, change, [site], heads=[1]), intercept(denoiser, watch, [site]):
        predict(family)
    assert set(heads) == {1}


@pytest.mark.parametrize("head", [2, -1])
def test_a_head_that_the_site_lacks(head: int) -> None:
    with (
        pytest.raises(
            UsageError, match=rf"the site has no such head; expected 0..1; got \[{head}\]; in blocks.0.attn1"
        ),
        intercept(captured("wan")[0], Identity(), "blocks.0.attn1", heads=[head]),
    ):
        predict("wan")


@every_family
def test_a_custom_intervention_is_one_line(family: str) -> None:
    def causal(call: AttentionCall) -> Tensor:
        return sdpa(call.query, call.key, call.value, is_causal=True)

    with intercept(captured(family)[0], causal, [self_site(family)]):
        changed = predict(family)
    assert (changed - predict(family)).abs().max() > 1e-4


SECOND_ORDER = [
    ("animatediff", HeunDiscreteScheduler()),
    ("modelscope", KDPM2DiscreteScheduler()),
    ("wan", FlowMatchHeunDiscreteScheduler()),
]


@pytest.mark.parametrize(("family", "scheduler"), SECOND_ORDER)
def test_samplers_with_two_calls_a_step(family: str, scheduler: Any) -> None:
    """7 calls for 4 steps: two for each of the first three, one for the last."""
    pipe, steps, windowed = tiny_pipeline(family), [], []

    def keep(call: AttentionCall) -> None:
        if not call.earlier:
            steps.append((call.step, call.steps))

    site = [self_site(family)]
    with (
        attribute(pipe, "scheduler", scheduler),
        intercept(pipe, keep, site),
        intercept(pipe, lambda call: None if call.earlier else windowed.append(call.step), site, (0.5, 1.0)),
    ):
        for _ in range(2):
            run(family, steps=4)
    assert steps == [(step, 4) for step in (0, 0, 1, 1, 2, 2, 3)] * 2
    assert windowed == [2, 2, 3] * 2


def _wan_from_video(prompts: list[str]) -> tuple[WanVideoToVideoPipeline, Any]:
    parts = build("wan").components
    names = ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")
    pipe = WanVideoToVideoPipeline(**{name: parts[name] for name in names})
    pipe.set_progress_bar_config(disable=True)
    size = {name: call_arguments("wan")[name] for name in ("height", "width")}
    video = [Image.effect_noise((size["width"], size["height"]), 60).convert("RGB") for _ in range(9)]
    generator = torch.Generator().manual_seed(0)
    call = lambda: pipe(  # noqa: E731
        video=[video] * len(prompts) if len(prompts) > 1 else video,
        prompt=prompts,
        negative_prompt=["blurry"] * len(prompts),
        num_inference_steps=4,
        strength=0.5,
        guidance_scale=3.0,
        output_type="latent",
        generator=generator,
        max_sequence_length=16,
        **size,
    )
    return pipe, call


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "two"])
def test_a_pipeline_that_names_no_calls_is_read_by_its_texts(prompts: list[str]) -> None:
    pipe, call = _wan_from_video(prompts)
    seen: list[tuple[Any, ...]] = []
    with intercept(
        pipe, lambda call: seen.append((call.step, call.steps, call.rows.guidance)), "blocks.0.attn1", guidance="all"
    ):
        call()
    n = len(prompts)
    assert seen == [(step, 2, (branch,) * n) for step in (0, 1) for branch in ("cond", "uncond")]


def test_equal_texts_tell_no_branch() -> None:
    pipe, call = _wan_from_video(["blurry"])
    with (
        pytest.raises(FailureError, match=r"does not say which rows of this call are conditional.*guidance=\"all\""),
        intercept(pipe, Uniform(), "blocks.0.attn1"),
    ):
        call()
