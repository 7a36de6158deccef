"""Guidance mode beyond the sum: schedules, block skip, rescale, heads, several videos per prompt, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from diffusers import AnimateDiffVideoToVideoPipeline, LTXImageToVideoPipeline, WanPipeline
from torch import Tensor, nn

from ieadapt.attention import AttentionCall, DenoiserCall, Prefix, find_sites, intercept, wrap_denoiser
from ieadapt.attention.restore import attribute
from ieadapt.errors import FailureError, UsageError
from ieadapt.interventions import BlurQueries, Identity
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.measure.method import measure
from tests.families import GUIDED, PROMPTS, SEVERAL_VIDEOS, UNGUIDED, every_family, run, tiny_pipeline
from tests.tasks.test_generate import config_for
from tests.tiny import build, call_arguments

EVERY = ("cond", "uncond", "weak")
SITES = {"animatediff": "mid_block.motion_modules.*", "modelscope": "mid_block.temp_attentions.*"}
LAST = {"hunyuanvideo": "single_transformer_blocks.1.attn", "wan": "blocks.1.attn1"}


def one_site(family: str) -> str:
    """A late block's attention."""
    return SITES.get(family) or LAST.get(family) or "transformer_blocks.1.attn1"


class Predictions:
    """Every prediction of the first step, with the call that made it."""

    def __init__(self) -> None:
        self.first: list[tuple[DenoiserCall, Tensor]] = []

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> None:
        if call.step == 0:
            self.first.append((call, prediction.clone()))


def first_step(
    family: str, config: EnhanceConfig | None, seeds: Sequence[int] = (), **arguments: Any
) -> list[tuple[DenoiserCall, Tensor]]:
    kept, pipe = Predictions(), tiny_pipeline(family)
    if seeds:
        arguments["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
    with ExitStack() as stack:
        if config is not None:
            stack.enter_context(enhancement(pipe, config))
        stack.enter_context(wrap_denoiser(pipe, kept))
        run(family, PROMPTS, **arguments)
    return kept.first


def added(family: str, config: EnhanceConfig, **arguments: Any) -> tuple[DenoiserCall, Tensor, Tensor]:
    """The plain call that holds the conditional rows, its prediction, and what the enhancement added to those rows."""
    plain, enhanced = first_step(family, None, **arguments), first_step(family, config, **arguments)
    for (call, before), (_, after) in zip(plain, enhanced, strict=True):
        rows = call.rows.denoiser_rows(("cond",))
        if rows:
            return call, before[rows], (after - before)[rows]
    raise AssertionError("no conditional rows")


def _blocks(denoiser: nn.Module, site: str) -> list[nn.Module]:
    """The transformer blocks around a pattern's sites, written by hand."""
    paths = {site.rsplit(".", 1)[0]} if "*" not in site else {site.replace("*", "0.transformer_blocks.0")}
    return [denoiser.get_submodule(path) for path in paths]


@every_family
def test_block_skip_equals_a_pass_whose_block_returns_its_input(family: str) -> None:
    config = EnhanceConfig(start=0, perturbation="skip-block", sites=one_site(family), scale=1.3)
    call, plain, delta = added(family, config)

    def passing_by(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        other = kwargs.get("encoder_hidden_states", args[0] if args else None)
        return (hidden_states, other) if family in ("cogvideox", "hunyuanvideo", "mochi") else hidden_states

    with ExitStack() as stack, torch.no_grad():
        for block in _blocks(call.module, one_site(family)):
            stack.enter_context(attribute(block, "forward", passing_by))
        weak = call.module(**call.arguments)[0][call.rows.denoiser_rows(("cond",))]
    assert delta.abs().max() > 1e-4
    torch.testing.assert_close(delta, 1.3 * (plain - weak), rtol=1e-3, atol=1e-4)


@every_family
def test_smoothed_energy_guidance_is_the_blurred_pass(family: str) -> None:
    config = EnhanceConfig(start=0, perturbation="blur:0.5", sites=one_site(family), scope="all", scale=2)
    call, plain, delta = added(family, config)
    with intercept(call.module, BlurQueries(0.5, scope="all"), one_site(family)), torch.no_grad():
        weak = call.module(**call.arguments)[0][call.rows.denoiser_rows(("cond",))]
    torch.testing.assert_close(delta, 2 * (plain - weak), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", SEVERAL_VIDEOS)
def test_several_videos_per_prompt(family: str) -> None:
    config = EnhanceConfig(start=0, sites=one_site(family), scale=1.5)
    call, plain, delta = added(family, config, num_videos_per_prompt=2, seeds=range(4))
    assert len(plain) == 4
    with intercept(call.module, Identity(), one_site(family)), torch.no_grad():
        weak = call.module(**call.arguments)[0][call.rows.denoiser_rows(("cond",))]
    torch.testing.assert_close(delta, 1.5 * (plain - weak), rtol=1e-3, atol=1e-4)


class _Scheduled:
    """What the scheduler is given, step by step."""

    def __init__(self, pipe: Any) -> None:
        self.given: list[Tensor] = []
        self._step = pipe.scheduler.step

    def __call__(self, model_output: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.given.append(model_output.clone())
        return self._step(model_output, *args, **kwargs)


def _first_scheduled(family: str, config: EnhanceConfig | None, **arguments: Any) -> Tensor:
    pipe = tiny_pipeline(family)
    scheduled = _Scheduled(pipe)
    with attribute(pipe.scheduler, "step", scheduled), ExitStack() as stack:
        if config is not None:
            stack.enter_context(enhancement(pipe, config))
        run(family, PROMPTS, **arguments)
    return scheduled.given[0]


@every_family
@pytest.mark.parametrize("guided", [True, False], ids=["guided", "no guidance"])
def test_rescale_gives_every_video_the_spread_of_the_unshifted_prediction(family: str, guided: bool) -> None:
    unguided = UNGUIDED | {"hunyuanvideo": {"true_cfg_scale": 1.0}}
    arguments = GUIDED[family] if guided else unguided[family]
    shift, half = (EnhanceConfig(start=0, sites=one_site(family), scale=3, rescale=share) for share in (0, 0.5))
    plain, shifted, rescaled = (_first_scheduled(family, config, **arguments) for config in (None, shift, half))
    assert (shifted - plain).abs().max() > 1e-3
    for video in range(2):
        before, between, after = (tensor.unflatten(0, (2, -1))[video] for tensor in (plain, shifted, rescaled))
        factor = 0.5 + 0.5 * before.std() / between.std()
        torch.testing.assert_close(after, factor * between, rtol=1e-4, atol=1e-5)


@every_family
def test_the_schedule_scales_every_step(family: str) -> None:
    """Factor 0 in step 0 and 1 in step 1: the run starts plain, and ends otherwise."""
    weak_steps: list[int] = []

    def kept(call: AttentionCall) -> None:
        weak_steps.append(call.step) if "weak" in call.rows.guidance else None

    pipe, config = tiny_pipeline(family), EnhanceConfig(start=0, sites=one_site(family), schedule="0,1,0")
    with enhancement(pipe, config) as told, intercept(pipe, kept, one_site(family), guidance=EVERY):
        run(family, steps=3)
    assert set(weak_steps) == {1}
    assert told.weak_passes == 1


def test_half_the_schedule_is_half_the_term() -> None:
    site = one_site("wan")
    _, _, whole = added("wan", EnhanceConfig(start=0, sites=site, scale=2, schedule="linear:1:0"))
    _, _, half = added("wan", EnhanceConfig(start=0, sites=site, scale=2, schedule="0.5,9"))
    torch.testing.assert_close(half, 0.5 * whole)


def test_a_schedule_of_another_length_stops_the_run() -> None:
    with (
        pytest.raises(UsageError, match="another length than the run; expected 2 factors, one per step; got 3"),
        enhancement(tiny_pipeline("wan"), EnhanceConfig(start=0, sites="joint", schedule="1,1,1")),
    ):
        run("wan", steps=2)


@every_family
def test_heads_change_alone(family: str) -> None:
    """One head of all sites changes; the others keep the model's own output."""
    pipe = tiny_pipeline(family)
    profile = measure(pipe, PROMPTS[0], config_for(family))
    kind = SITES.get(family, "joint").split(".")[0]
    config = EnhanceConfig(start=0, sites="temporal/joint", heads="top=1")
    seen: dict[str, set[int]] = {}

    def kept(call: AttentionCall) -> None:
        if "weak" in call.rows.guidance:
            plain = torch.nn.functional.scaled_dot_product_attention(
                call.query, call.key, call.value, attn_mask=call.mask, scale=call.scale
            )
            differs = (call.output - plain).abs().amax((0, 2, 3)) > 1e-4
            seen.setdefault(call.site.name, set()).update(differs.nonzero().flatten().tolist())

    with (
        enhancement(pipe, config, profile) as told,
        intercept(pipe, kept, "temporal" if "block" in kind else "joint", guidance=EVERY),
    ):
        run(family)
    highest = max(
        ((ep, key) for key, ep in profile.head_ep.items() if any(site.name == key[0] for site in told.sites))
    )[1]
    assert told.heads == {highest[0]: (highest[1],)}
    assert {name: heads for name, heads in seen.items() if heads} == {highest[0]: {highest[1]}}


@every_family
def test_heads_by_number_are_those_heads(family: str) -> None:
    """SoftPAG at one head: the others keep the model's own output."""
    config = EnhanceConfig.preset("softpag", sites=one_site(family), heads="1", scale=2)
    call, plain, delta = added(family, config)
    half = Identity(0.5, scope="video-renormalised")
    with intercept(call.module, half, one_site(family), heads=[1]), torch.no_grad():
        weak = call.module(**call.arguments)[0][call.rows.denoiser_rows(("cond",))]
    assert delta.abs().max() > 1e-5
    torch.testing.assert_close(delta, 2 * (plain - weak), rtol=1e-3, atol=1e-4)


def test_a_head_that_a_site_has_not_is_refused() -> None:
    message = r"the site has no such head; expected 0\.\.1; got 7; in blocks\.1\.attn1$"
    with pytest.raises(UsageError, match=message):
        enhancement(tiny_pipeline("wan"), EnhanceConfig(start=0, sites="blocks.1.attn1", heads="7")).__enter__()


def test_weighting_by_entropy_changes_the_map_by_its_share() -> None:
    """(1 - EP/100) A + EP/100 I in the weak pass."""
    site, pipe = one_site("wan"), tiny_pipeline("wan")
    profile = measure(pipe, PROMPTS[0], config_for("wan"))
    share = profile.ep[site] / 100
    plain = Predictions()
    with wrap_denoiser(pipe, plain):
        run("wan", PROMPTS)
    after = Predictions()
    with enhancement(pipe, EnhanceConfig(start=0, sites=site, weighting="ep"), profile), wrap_denoiser(pipe, after):
        run("wan", PROMPTS)
    call, prediction = plain.first[0]

    def mixed(inner: AttentionCall) -> Tensor:
        return (1 - share) * inner.output + share * inner.value

    with intercept(call.module, mixed, site), torch.no_grad():
        weak = call.module(**call.arguments)[0]
    torch.testing.assert_close(after.first[0][1], prediction + (prediction - weak), rtol=1e-3, atol=1e-4)


@every_family
def test_what_it_cost_is_told(family: str) -> None:
    pipe = tiny_pipeline(family)
    with enhancement(pipe, EnhanceConfig(sites=one_site(family), start=0.4)) as told:
        run(family, steps=4)
    assert [site.name for site in told.sites] == [site.name for site in find_sites(pipe) if site in told.sites]
    split = family in ("wan", "hunyuanvideo")
    assert (told.passes, told.weak_passes) == (8 if split else 4, 2)
    assert told.cost.blocks_replayed > 0
    assert told.cost.blocks_computed > 0
    assert told.cost.weak_seconds > 0
    assert told.cost.seconds_saved > 0


@pytest.mark.parametrize("family", ["animatediff", "wan"])
def test_what_is_not_finite_stops_with_step_and_site(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Identity, call: AttentionCall) -> Tensor:
        return call.output + (float("nan") if call.step == 1 else 0.0)

    monkeypatch.setattr(Identity, "__call__", broken)
    name = next(site.name for site in find_sites(tiny_pipeline(family)) if site.kind in ("temporal", "joint"))
    with (
        pytest.raises(FailureError, match=f"not finite; in step 1, first at {name}; remedy: lower the scale"),
        enhancement(tiny_pipeline(family), EnhanceConfig(start=0, sites="temporal/joint")),
    ):
        run(family)


def test_a_model_that_is_not_finite_itself_is_told_apart() -> None:
    pipe = tiny_pipeline("wan")
    bias = pipe.transformer.proj_out.bias
    with torch.no_grad():
        kept = bias.clone()
        bias.fill_(float("nan"))
    try:
        with (
            pytest.raises(FailureError, match="not finite; in step 0, before anything was changed"),
            enhancement(pipe, EnhanceConfig(start=0, sites="joint")),
        ):
            run("wan")
    finally:
        with torch.no_grad():
            bias.copy_(kept)


def test_image_to_video() -> None:
    """The image's latents ride in the same rows; the timestep is per token."""
    text = tiny_pipeline("ltx")
    pipe = LTXImageToVideoPipeline(**text.components)
    pipe.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    kept = Predictions()

    def made(config: EnhanceConfig | None) -> Tensor:
        with ExitStack() as stack:
            if config is not None:
                stack.enter_context(enhancement(pipe, config))
            kept.first.clear()
            stack.enter_context(wrap_denoiser(pipe, kept))
            settings = {**call_arguments("ltx"), "num_inference_steps": 2, "output_type": "latent", "guidance_scale": 4}
            return pipe(image, PROMPTS[0], generator=torch.Generator().manual_seed(0), **settings).frames

    plain = made(None)
    (call, prediction), *_ = kept.first
    assert torch.equal(plain, made(EnhanceConfig(start=0, sites=one_site("ltx"), scale=0)))
    enhanced = made(EnhanceConfig(start=0, sites=one_site("ltx"), scale=1.7))
    delta = kept.first[0][1] - prediction
    with intercept(call.module, Identity(), one_site("ltx")), torch.no_grad():
        weak = call.module(**call.arguments)[0]
    torch.testing.assert_close(delta[1:], 1.7 * (prediction[1:] - weak[1:]), rtol=1e-3, atol=1e-4)
    assert (enhanced - plain).abs().max() > 1e-3
    with pytest.raises(UsageError, match="cannot be replaced there"):
        made(EnhanceConfig(start=0, sites=one_site("ltx"), rescale=0.5))


def test_video_to_video() -> None:
    """A pipeline that starts late: the window and the schedule count its own steps."""
    pipe = AnimateDiffVideoToVideoPipeline(**_video_to_video_parts())
    pipe.set_progress_bar_config(disable=True)
    frames = [torch.rand(16, 24, 3, generator=torch.Generator().manual_seed(i)).numpy() for i in range(5)]

    def made() -> Tensor:
        return pipe(
            frames, PROMPTS[0], height=16, width=24, num_inference_steps=4, strength=0.5, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).frames  # fmt: skip

    plain = made()
    with enhancement(pipe, EnhanceConfig(start=0, sites="mid_block.motion_modules.*", schedule="1,0.5")) as told:
        enhanced = made()
    assert told.weak_passes == 2
    assert (enhanced - plain).abs().max() > 1e-3


def _video_to_video_parts() -> dict[str, Any]:
    parts = tiny_pipeline("animatediff").components
    return {name: part for name, part in parts.items() if name not in ("feature_extractor", "image_encoder")}


def test_a_plan_made_online_moves_the_prefix() -> None:
    """Candidates begin at the first block; the chosen site is in a later one, so the passes to come replay more."""
    pipe = tiny_pipeline("wan")
    config = EnhanceConfig(start=0, sites="joint:top=1", entropy="online:1")
    with enhancement(pipe, config) as told:
        run("wan", steps=4)
        (prefix,) = told.replays
        assert isinstance(prefix, Prefix)
        stages = len(prefix.stages)
    later = told.sites[0].name == "blocks.1.attn1"
    assert stages == (1 if later else 0)
    assert told.cost.blocks_replayed == (2 if later else 0)


def test_of_two_denoisers_only_the_changed_one_costs_weak_passes() -> None:
    """Wan 2.2 runs its first steps on one transformer and the others on the second."""
    parts = dict(tiny_pipeline("wan").components) | {"transformer_2": build("wan", seed=3).transformer}
    pipe = WanPipeline(**parts, boundary_ratio=0.8)
    pipe.set_progress_bar_config(disable=True)
    steps: dict[str, set[int]] = {"weak": set(), "full": set()}

    def kept(call: AttentionCall) -> None:
        if call.site.name.startswith("transformer_2."):
            steps["weak" if "weak" in call.rows.guidance else "full"].add(call.step)

    settings = {**call_arguments("wan"), "num_inference_steps": 4, "output_type": "latent", "guidance_scale": 4}
    with (
        enhancement(pipe, EnhanceConfig(start=0, sites="transformer_2.blocks.1.attn1", entropy="profile")) as told,
        intercept(pipe, kept, "transformer_2.blocks.1.attn1", guidance=EVERY),
    ):
        pipe(PROMPTS[0], generator=torch.Generator().manual_seed(0), **settings)
    assert steps["weak"] == steps["full"]
    assert 0 < told.weak_passes == len(steps["full"]) < 4
