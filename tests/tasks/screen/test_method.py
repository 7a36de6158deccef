"""One replaced pass gives what a whole pass gives, in every family; statistics mean what they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ieadapt.attention import AttentionSite, find_sites, intercept
from ieadapt.interventions import parse_perturbation
from ieadapt.models.noise_schedule import NoiseSchedule, matching_scheduler
from ieadapt.models.scheduler_wrapper import StepFunctionWrapper
from ieadapt.models.video_latents import Latents, latents_of, own_size
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.generate import run_batch
from ieadapt.tasks.screen.method import follow, screen_step, statistics
from ieadapt.tasks.study.grid import Condition
from tests.families import every_family, tiny_pipeline
from tests.tiny import call_arguments

PROMPTS = ["a red ball", "a blue star over hills"]
STEPS = (1, 2)


def _generation(family: str) -> GenerationConfig:
    size = {name: value for name, value in call_arguments(family).items() if name in ("num_frames", "height", "width")}
    return GenerationConfig(3, guidance_scale=4.0, batch_size=2, **size)


def _whole_pass(family: str, latents: Latents, step: int, site: AttentionSite | None, replaced: str) -> Tensor:
    """Guided x0 of a step made by the pipeline itself, with the site's map replaced in every row."""
    pipe, generation, clean = tiny_pipeline(family), _generation(family), list[Tensor]()

    def keep(schedule: NoiseSchedule, number: int, at_hand: Latents, prediction: Latents) -> Latents:
        clean.append(schedule.clean(number, at_hand, prediction))
        return at_hand

    wrapper = StepFunctionWrapper(matching_scheduler(pipe.scheduler)[0], latents, [step], keep)
    sites = find_sites(pipe)[:1] if site is None else [site]
    change = (lambda call: None) if site is None else parse_perturbation(replaced)
    with torch.no_grad(), wrapper.installed(pipe), intercept(pipe, change, sites, guidance="all"):
        run_batch(pipe, PROMPTS, generation, [0, 0], output_type="latent")
    size = tuple(getattr(generation, name) or own_size(pipe, name) for name in ("num_frames", "height", "width"))
    return latents_of(pipe).grid(pipe, clean[0], size)


@every_family
def test_a_replaced_pass_is_the_whole_pass_with_the_map_replaced(family: str) -> None:
    pipe, generation = tiny_pipeline(family), _generation(family)
    sites = find_sites(pipe)
    own = [site for site in sites if site.kind not in ("cross", "text")]
    chosen = [own[0], own[-1]]
    conditions = [Condition((site.name,), site.kind, name) for site in chosen for name in ("identity", "uniform")]
    latents, profile = follow(pipe, PROMPTS, generation, STEPS)
    assert latents.keys() == set(STEPS)
    assert set(profile.table["step"]) == set(STEPS)
    found = screen_step(pipe, PROMPTS, latents[2], 2, conditions, sites, generation)
    plain = _whole_pass(family, latents[2], 2, None, "")
    for condition, site, values in zip(conditions, [chosen[0]] * 2 + [chosen[1]] * 2, found, strict=True):
        slow = statistics(plain, _whole_pass(family, latents[2], 2, site, condition.perturbation))
        assert values["change"] == pytest.approx(slow["change"], rel=1e-3)
        assert min(values["change"]) > 1e-4
        assert values["rise"] == pytest.approx(slow["rise"], rel=1e-2, abs=1e-5)
        assert values["lost"] == pytest.approx(slow["lost"], rel=1e-2, abs=1e-5)


def test_a_head_alone_moves_the_video_less_than_its_site_and_leaves_the_model_as_it_was() -> None:
    pipe, generation = tiny_pipeline("cogvideox"), _generation("cogvideox")
    sites, before = find_sites(pipe), dict(vars(pipe))
    latents = follow(pipe, PROMPTS, generation, [1])[0][1]
    heads = [Condition((sites[0].name,), "joint", "uniform", head) for head in (0, 1)]
    conditions = [*heads, Condition((sites[0].name,), "joint", "uniform")]
    first, second, whole = screen_step(pipe, PROMPTS, latents, 1, conditions, sites, generation)
    assert first["change"] != second["change"]
    assert 0 < first["change"][0] < whole["change"][0]
    assert vars(pipe) == before
    again = follow(pipe, PROMPTS, generation, [1])[0][1]
    assert torch.equal(latents, again)


def test_statistics_tell_change_rise_and_loss_apart() -> None:
    torch.manual_seed(0)
    plain = torch.zeros(2, 1, 4, 4, 4)
    plain[..., :1] = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 4, 1, 1)  # a quarter moves, the rest is still
    flickering, frozen = plain.clone(), plain.clone()
    flickering[..., 1:] += torch.tensor([0.0, 0.5, 0.0, 0.5]).view(1, 1, 4, 1, 1)
    frozen[:] = plain[:, :, :1]
    scale = float(plain[0].std())
    assert statistics(plain, plain) == {name: [0.0, 0.0] for name in ("change", "rise", "lost")}
    assert statistics(plain, flickering)["rise"] == pytest.approx([0.5 / scale] * 2)
    assert statistics(plain, flickering)["lost"] == pytest.approx([-0.5 * 0.75 / scale] * 2)
    assert statistics(plain, frozen)["lost"] == pytest.approx([0.25 / scale] * 2)
    assert statistics(plain, frozen)["rise"] == pytest.approx([0.0] * 2)
    assert statistics(plain, plain + scale)["change"] == pytest.approx([1.0] * 2)
