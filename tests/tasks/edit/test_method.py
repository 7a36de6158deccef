"""Editing in every family: what ties the target to the source, and that nothing else does."""

from __future__ import annotations

import dataclasses
import weakref
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from torch import Tensor

from ieadapt.attention import find_sites
from ieadapt.errors import UsageError
from ieadapt.interventions import Inject
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.edit.config import EDIT_PRESETS, EditConfig
from ieadapt.tasks.edit.inversion import Inversion, invert
from ieadapt.tasks.edit.method import SELF_ATTENTION, Editor, EditResult, coarse_sites, edit
from ieadapt.tasks.edit.pipeline_run import PipelineRunner
from tests.families import every_family, tiny_pipeline
from tests.tasks.edit.fixture import INVERTED, SOURCE, STEPS, TARGET, clip, run_from
from tests.tiny import build

QUICK = dataclasses.replace(INVERTED, start=0.5, iterations=0)
FREE = dataclasses.replace(QUICK, residual=0.0)


@cache
def inverted(family: str, method: str = "inversion") -> Inversion:
    """The family's clip, quickly inverted."""
    config = dataclasses.replace(QUICK, method=method)
    return invert(tiny_pipeline(family), clip(family), SOURCE, config, STEPS)


def made(family: str, prompts: list[str], config: EditConfig) -> EditResult:
    """An edit whose target prompts may be the source prompt, which `edit` refuses."""
    inversion = inverted(family, config.method)
    return Editor(tiny_pipeline(family), SOURCE, config, STEPS, inversion).edit(prompts)


def on_its_own_run(family: str) -> Inversion:
    """The inversion with the trajectory of a free run from its first latents, which has no error to be corrected."""
    inversion, kept = inverted(family), []
    assert inversion.trajectory is not None
    begin = inversion.trajectory[:1]

    def keeping(schedule: Any, step: int, latents: Tensor, prediction: Tensor) -> Tensor:
        kept.append(schedule.forward(step, latents, prediction))
        return kept[-1]

    runner = PipelineRunner(tiny_pipeline(family), clip(family), 4)
    free = run_from(runner, begin, [SOURCE], inversion.first, step_function=keeping)
    return dataclasses.replace(inversion, trajectory=torch.cat([begin, *kept]), reconstruction=runner.decode(free)[0])


@every_family
def test_without_injection_the_target_is_a_plain_run(family: str) -> None:
    """The prompt alone, from the same latents, as the pipeline samples it."""
    found = made(family, [TARGET], FREE)
    trajectory = found.inversion.trajectory
    assert trajectory is not None
    runner = PipelineRunner(tiny_pipeline(family), clip(family), 4)
    plain = run_from(runner, trajectory[:1], [TARGET], found.inversion.first, guidance_scale=3.0)
    torch.testing.assert_close(found.edited, runner.decode(plain), rtol=1e-3, atol=2e-3)


@every_family
def test_equal_prompts_with_all_maps_injected_give_the_reconstruction(family: str) -> None:
    config, inversion = dataclasses.replace(FREE, inject="all", guidance_scale=1.0), on_its_own_run(family)
    found = Editor(tiny_pipeline(family), SOURCE, config, STEPS, inversion).edit([SOURCE])
    assert {site.kind for site in found.sites} <= set(SELF_ATTENTION)
    torch.testing.assert_close(found.edited[0], inversion.reconstruction, rtol=1e-3, atol=2e-3)


@every_family
def test_equal_prompts_with_the_sources_correction_give_the_clip_again(family: str) -> None:
    """However rough the inversion: what puts the source back puts the target back."""
    found = made(family, [SOURCE], dataclasses.replace(QUICK, guidance_scale=1.0))
    torch.testing.assert_close(found.edited[0], found.inversion.decoded, rtol=1e-3, atol=2e-3)


@every_family
@pytest.mark.parametrize("method", ["noise-path", "flowedit"])
def test_equal_prompts_and_weights_without_inversion_give_the_clip_again(family: str, method: str) -> None:
    config = dataclasses.replace(QUICK, method=method, guidance_scale=2.0, source_guidance=2.0)
    found = made(family, [SOURCE], config)
    torch.testing.assert_close(found.edited[0], found.inversion.decoded, rtol=1e-3, atol=2e-3)


@every_family
def test_injection_changes_the_target(family: str) -> None:
    plain, injected = (made(family, [TARGET], dataclasses.replace(QUICK, inject=sites)) for sites in ("none", "all"))
    assert (plain.edited - injected.edited).abs().max() > 1e-3
    assert plain.sites == ()
    assert len(injected.sites) == sum(site.kind in SELF_ATTENTION for site in find_sites(tiny_pipeline(family)))


@every_family
def test_several_prompts_share_an_inversion(family: str) -> None:
    pipe = tiny_pipeline(family)
    config = dataclasses.replace(QUICK, inject="all")
    inversion, prompts = inverted(family), [TARGET, "a green cube"]
    together = edit(
        pipe, clip(family), prompts, source_prompt=SOURCE, config=config, generation=STEPS, inversion=inversion
    )
    one_by_one = GenerationConfig(num_inference_steps=4, batch_size=1)
    apart = edit(
        pipe, clip(family), prompts, source_prompt=SOURCE, config=config, generation=one_by_one, inversion=inversion
    )
    assert together.edited.shape == (2, *clip(family).shape)
    torch.testing.assert_close(together.edited, apart.edited, rtol=1e-3, atol=2e-3)
    assert (together.edited[0] - together.edited[1]).abs().max() > 1e-3


@every_family
def test_the_pipeline_is_as_before(family: str) -> None:
    pipe = tiny_pipeline(family)
    before = dict(vars(pipe))
    edit(
        pipe,
        clip(family),
        TARGET,
        source_prompt=SOURCE,
        config=dataclasses.replace(QUICK, inject="all"),
        generation=STEPS,
    )
    assert set(vars(pipe)) == set(before)
    assert vars(pipe)["scheduler"] is before["scheduler"]


@every_family
@pytest.mark.parametrize("mask", ["difference", "cross:ball"])
def test_a_mask_keeps_the_rest_of_the_clip(family: str, mask: str) -> None:
    config = dataclasses.replace(QUICK, mask=mask, mask_threshold=0.6)
    prompts = [TARGET + " ball"]
    found, free = made(family, prompts, config), made(family, prompts, QUICK)
    assert found.mask is not None
    assert found.mask.shape == (1, *clip(family).shape[:1], *clip(family).shape[2:])
    assert 0 < found.mask.mean() < 0.9
    moved, moved_freely = ((each.edited[0] - each.inversion.decoded).square().mean() for each in (found, free))
    assert moved < moved_freely


def test_guidance_pushes_away_from_the_negative() -> None:
    empty, source = (made("wan", [TARGET], dataclasses.replace(QUICK, negative=name)) for name in ("empty", "source"))
    assert (empty.edited - source.edited).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["animatediff", "wan"])
def test_outside_its_window_guidance_has_weight_1(family: str) -> None:
    unguided = made(family, [TARGET], dataclasses.replace(QUICK, guidance_scale=1.0))
    never = made(family, [TARGET], dataclasses.replace(QUICK, guidance_window="0:0.4"))  # the edit begins at 0.5
    half = made(family, [TARGET], dataclasses.replace(QUICK, guidance_window="0:0.6"))
    whole = made(family, [TARGET], QUICK)
    torch.testing.assert_close(never.edited, unguided.edited, rtol=1e-3, atol=2e-3)
    assert (half.edited - unguided.edited).abs().max() > 1e-3
    assert (half.edited - whole.edited).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["animatediff", "wan"])
def test_the_source_branch_has_its_own_weight(family: str) -> None:
    """A pipeline's weight of 3 with rows at 2 is a pipeline's weight of 2."""
    low = made(family, [TARGET], dataclasses.replace(QUICK, guidance_scale=2.0, source_guidance=2.0))
    mixed = made(family, [TARGET], dataclasses.replace(QUICK, guidance_scale=2.0, source_guidance=3.0, residual=0.0))
    alone = made(family, [TARGET], dataclasses.replace(QUICK, guidance_scale=2.0, residual=0.0))
    torch.testing.assert_close(mixed.edited, alone.edited, rtol=1e-3, atol=2e-3)
    assert (low.edited - alone.edited).abs().max() > 1e-3


def test_sdedit_is_the_target_alone_from_the_noised_clip() -> None:
    found = made("wan", [TARGET], EditConfig(method="sdedit", start=0.5, seed=3))
    runner, clean = PipelineRunner(tiny_pipeline("wan"), clip("wan"), 4), found.inversion.clean
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    noised = runner.schedule_for(clean).levels[2].mix(clean, noise)
    expected = runner.decode(run_from(runner, noised, [TARGET], 2, guidance_scale=3.0))
    torch.testing.assert_close(found.edited, expected, rtol=1e-3, atol=1e-4)


def test_flowedit_follows_the_difference_of_two_velocities() -> None:
    """Against FlowEdit as it is written: an edited clip z that moves by (velocity target - velocity source)."""
    config = EditConfig(start=0.5, guidance_scale=1.0, seed=5, inject="none", words="none")
    found = made("wan", [TARGET], config)
    runner, clean = PipelineRunner(tiny_pipeline("wan"), clip("wan"), 4), found.inversion.clean
    schedule, velocities = runner.schedule_for(clean), {}

    def velocity(latents: Tensor, prompt: str, step: int) -> Tensor:
        def keep(schedule: Any, at: int, latents: Tensor, prediction: Tensor) -> Tensor:
            velocities.setdefault((prompt, step, at), prediction)
            return latents

        run_from(runner, latents, [prompt], step, step_function=keep)
        return velocities[prompt, step, step]

    edited = clean.clone()
    for step in (2, 3):
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5000 + step))
        source = schedule.levels[step].mix(clean, noise)
        target = edited + source - clean
        width = schedule.ends[step].noise - schedule.levels[step].noise
        edited = edited + width * (velocity(target, TARGET, step) - velocity(source, SOURCE, step))
    torch.testing.assert_close(found.edited, runner.decode(edited), rtol=1e-3, atol=2e-3)


def test_sites_by_entropy_are_measured_on_the_source() -> None:
    found = made("animatediff", [TARGET], dataclasses.replace(QUICK, inject="bottom=1"))
    assert found.profile is not None
    ep = found.profile.ep
    lowest = min((site for site in found.profile.sites if site.kind == "spatial"), key=lambda site: ep[site.name])
    assert lowest.name in {site.name for site in found.sites}
    later = made("wan", [TARGET], EditConfig(method="noise-path", start=0.5, inject="bottom=1", inject_window="0:1"))
    assert later.profile is not None
    assert len(later.sites) == 1


@pytest.mark.parametrize(
    ("family", "injected", "replaced"),
    [("animatediff", "temporal", True), ("wan", None, True), ("cogvideox", None, False)],
)
def test_the_default_does_what_the_model_has_sites_for(family: str, injected: str | None, replaced: bool) -> None:
    found = made(family, [TARGET], EditConfig())
    assert {site.kind for site in found.sites} == ({injected} if injected else set())
    assert any("keep the source's cross-attention maps" in note for note in found.notes) == replaced
    late = made(family, [TARGET], EditConfig(start=0.9))  # past the windows
    assert not late.sites


def test_without_a_source_prompt_there_are_no_shared_words() -> None:
    pipe, frames = tiny_pipeline("wan"), clip("wan")
    found = edit(pipe, frames, TARGET, generation=STEPS)
    assert not any("cross-attention" in note for note in found.notes)


def test_coarse_sites_are_those_below_the_finest_resolution() -> None:
    names = {site.name for site in coarse_sites(tiny_pipeline("animatediff"), find_sites(tiny_pipeline("animatediff")))}
    assert names == {
        site.name
        for site in find_sites(tiny_pipeline("animatediff"))
        if "mid_block.attentions" in site.name and site.kind == "spatial"
    }
    with pytest.raises(UsageError, match="this model has one resolution, so no coarse sites; got Wan"):
        coarse_sites(tiny_pipeline("wan"), [])


def test_nothing_is_stored_per_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one site is running no other site's queries, keys or values are alive."""
    alive: list[weakref.ref[Tensor]] = []
    most: list[int] = []
    plain = Inject.__call__

    def watching(self: Inject, call: Any) -> Any:
        most.append(sum(each() is not None for each in alive))
        alive.append(weakref.ref(call.query))
        return plain(self, call)

    monkeypatch.setattr(Inject, "__call__", watching)
    made("animatediff", [TARGET], dataclasses.replace(QUICK, inject="all"))
    assert len(most) > 20
    assert max(most) <= 1


@pytest.mark.parametrize(
    ("prompts", "source", "message"),
    [
        ("", SOURCE, "an edit needs a prompt; expected at least one target prompt with text in it"),
        ([], SOURCE, "an edit needs a prompt"),
        (
            "A red  ball",
            SOURCE,
            r"source and target prompt are the same, so nothing would change; got 'A red  ball'",
        ),
        ("a red ball " * 40, SOURCE, r"the prompt is too long for the text encoder.*these words would be dropped"),
        (TARGET, "a red ball " * 40, r"the prompt is too long for the text encoder.*these words would be dropped"),
    ],
)
def test_prompts_that_cannot_be(prompts: Any, source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        edit(tiny_pipeline("animatediff"), clip("animatediff"), prompts, source_prompt=source, generation=STEPS)


def test_an_inversion_of_another_clip_start_or_method() -> None:
    pipe, frames = tiny_pipeline("wan"), clip("wan")
    inversion = inverted("wan")

    def again(frames: Tensor, config: EditConfig, generation: GenerationConfig = STEPS) -> None:
        edit(pipe, frames, TARGET, source_prompt=SOURCE, config=config, generation=generation, inversion=inversion)

    with pytest.raises(
        UsageError, match=r"another clip or number of steps; expected this clip in 4 steps; got another"
    ):
        again(1 - frames, QUICK)
    with pytest.raises(UsageError, match=r"expected this clip in 5 steps; got this clip in 4 steps"):
        again(frames, QUICK, GenerationConfig(num_inference_steps=5))
    with pytest.raises(UsageError, match=r"the inversion begins later than the edit.*got step 0"):
        again(frames, dataclasses.replace(QUICK, start=0.0))
    without = dataclasses.replace(inversion, trajectory=None)
    with pytest.raises(UsageError, match="this inversion has no trajectory"):
        edit(pipe, frames, TARGET, config=QUICK, generation=STEPS, inversion=without)


def test_a_window_before_the_start_is_refused() -> None:
    with pytest.raises(
        UsageError,
        match=r"no denoising step begins inside the window; got window 0:0.3 of .*; in inject_window",
    ):
        made("wan", [TARGET], dataclasses.replace(QUICK, inject="all", inject_window="0:0.3"))


def test_a_mask_of_an_unknown_word_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the mask's word is in no prompt; expected one of \['a', 'ball'.*got moon"):
        made("wan", [TARGET], dataclasses.replace(QUICK, mask="cross:moon"))


def test_progress_counts_the_steps_of_all_batches() -> None:
    seen: list[tuple[int, int]] = []
    edit(
        tiny_pipeline("wan"),
        clip("wan"),
        [TARGET, "a cube"],
        source_prompt=SOURCE,
        config=QUICK,
        generation=GenerationConfig(num_inference_steps=4, batch_size=1),
        inversion=inverted("wan"),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("inject", ["all", "bottom=1"])
def test_of_two_denoisers_only_the_one_that_the_edit_reaches_counts(inject: str) -> None:
    """Wan 2.2: a late start never comes to the denoiser for much noise."""
    parts = dict(tiny_pipeline("wan").components) | {"transformer_2": build("wan", seed=3).transformer}
    pipe = WanPipeline(**parts, boundary_ratio=0.9)
    config, frames = dataclasses.replace(QUICK, inject=inject), clip("wan")
    found = edit(pipe, frames, TARGET, source_prompt=SOURCE, config=config, generation=STEPS)
    assert {site.name.split(".")[0] for site in found.sites} == {"transformer_2"}
    whole = edit(
        pipe,
        frames,
        TARGET,
        source_prompt=SOURCE,
        config=dataclasses.replace(config, start=0.0),
        generation=STEPS,
    )
    assert len(whole.sites) == {"all": 4, "bottom=1": 1}[inject]


@pytest.mark.parametrize("name", EDIT_PRESETS)
def test_every_preset_runs(name: str) -> None:
    config = dataclasses.replace(EDIT_PRESETS[name], iterations=0)
    found = edit(
        tiny_pipeline("animatediff"),
        clip("animatediff"),
        TARGET,
        source_prompt=SOURCE,
        config=config,
        generation=STEPS,
    )
    assert (found.edited[0] - found.inversion.decoded).abs().max() > 1e-3
    assert bool(found.sites) == (config.inject != "none" and config.method != "sdedit")


def test_injection_keeps_to_its_window_counted_over_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: set[int] = set()
    plain = Inject.__call__

    def watching(self: Inject, call: Any) -> Any:
        steps.add(call.step)
        return plain(self, call)

    monkeypatch.setattr(Inject, "__call__", watching)
    made("wan", [TARGET], dataclasses.replace(QUICK, inject="all", inject_window="0.75:1"))
    assert steps == {1}  # the second step that runs, the fourth of the whole
