"""Enhancement in every family: the sum equals the formula from separate passes, whatever way guidance runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ieadapt.attention import DenoiserCall, find_sites, intercept, wrap_denoiser
from ieadapt.errors import FailureError, UsageError
from ieadapt.interventions import Identity
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhance, enhancement
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.measure.profile import EntropyProfile
from tests.families import GUIDED, PROMPTS, UNGUIDED, every_family, run, tiny_pipeline
from tests.tasks.test_generate import config_for

NAMED = {"animatediff": "temporal", "modelscope": "temporal"}
NO_GUIDANCE = UNGUIDED | {"hunyuanvideo": {"true_cfg_scale": 1.0}}


class _Predictions:
    """Keeps every prediction by guidance branch, with the call that made it."""

    def __init__(self) -> None:
        self.calls: list[tuple[DenoiserCall, Tensor]] = []

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> None:
        self.calls.append((call, prediction.clone()))


def _first_step(family: str, config: EnhanceConfig | None, **arguments: Any) -> list[tuple[DenoiserCall, Tensor]]:
    pipe, kept = tiny_pipeline(family), _Predictions()
    if config is None:
        with wrap_denoiser(pipe, kept):
            run(family, PROMPTS, **arguments)
    else:
        with enhancement(pipe, config), wrap_denoiser(pipe, kept):
            run(family, PROMPTS, **arguments)
    return [(call, prediction) for call, prediction in kept.calls if call.step == 0]


@every_family
@pytest.mark.parametrize("guided", [True, False], ids=["guided", "no guidance"])
def test_the_sum_equals_the_formula_from_separate_passes(family: str, guided: bool) -> None:
    """Pass 1: plain. Pass 2: the same call by hand, all maps identity. Then eps + s (eps_cond - eps_weak)."""
    arguments = GUIDED[family] if guided else NO_GUIDANCE[family]
    sites, scale = NAMED.get(family, "joint"), 1.7
    plain = _first_step(family, None, **arguments)
    enhanced = _first_step(family, EnhanceConfig(start=0, scale=scale, sites=sites), **arguments)
    branch = "cond"
    call, prediction = next(pair for pair in plain if branch in pair[0].rows.guidance)
    with intercept(call.module, Identity(), sites), torch.no_grad():
        weak = call.module(**call.arguments)[0]
    rows = call.rows.denoiser_rows((branch,))
    delta = scale * (prediction[rows] - weak[rows])
    assert delta.abs().max() > 1e-4
    for (plain_call, before), (_, after) in zip(plain, enhanced, strict=True):
        halves = len(plain_call.rows.guidance) // len(rows)
        torch.testing.assert_close(after, before + torch.cat([delta] * halves), rtol=1e-3, atol=1e-4)


@every_family
def test_scale_0_is_bit_equal(family: str) -> None:
    plain = run(family, PROMPTS)
    with enhancement(tiny_pipeline(family), EnhanceConfig(start=0, scale=0, sites=NAMED.get(family, "joint"))):
        assert torch.equal(plain, run(family, PROMPTS))


@every_family
def test_the_pipeline_is_as_before_afterwards(family: str) -> None:
    plain = run(family, PROMPTS)
    with enhancement(tiny_pipeline(family), EnhanceConfig(start=0, sites=NAMED.get(family, "joint"))):
        assert not torch.equal(plain, run(family, PROMPTS))
    assert torch.equal(plain, run(family, PROMPTS))


@every_family
def test_a_window_enhances_its_steps_only(family: str) -> None:
    config = EnhanceConfig(sites=NAMED.get(family, "joint"), start=0.5)
    weak_steps: set[int] = set()
    kept = lambda call: weak_steps.add(call.step) if "weak" in call.rows.guidance else None  # noqa: E731
    with (
        enhancement(tiny_pipeline(family), config),
        intercept(tiny_pipeline(family), kept, guidance=("cond", "uncond", "weak")),
    ):
        run(family, steps=4)
    assert weak_steps == {2, 3}


def test_weak_passes_do_not_count_as_steps() -> None:
    seen: list[tuple[int, str]] = []
    pipe = tiny_pipeline("wan")
    with (
        enhancement(pipe, EnhanceConfig(start=0, sites="joint")),
        intercept(
            pipe,
            lambda call: seen.append((call.step, call.rows.guidance[0])),
            "blocks.0.attn1",
            guidance=("cond", "uncond", "weak"),
        ),
    ):
        run("wan", steps=2)
    assert seen == [(step, branch) for step in (0, 1) for branch in ("cond", "weak", "uncond")]


def test_dynamic_guidance() -> None:
    with enhancement(tiny_pipeline("cogvideox"), EnhanceConfig(start=0, sites="joint")):
        enhanced = run("cogvideox", use_dynamic_cfg=True)
    assert (enhanced - run("cogvideox", use_dynamic_cfg=True)).abs().max() > 1e-3


@every_family
def test_enhance_measures_for_itself_what_it_needs(family: str) -> None:
    frames = enhance(tiny_pipeline(family), PROMPTS[0], config=EnhanceConfig(), generation=config_for(family))
    assert frames.shape[0] == 1
    assert 0 <= frames.min() < frames.max() <= 1


def test_sites_are_chosen_by_entropy_from_a_profile() -> None:
    pipe = tiny_pipeline("animatediff")
    profile = measure(pipe, PROMPTS[0], config_for("animatediff"))
    with enhancement(pipe, EnhanceConfig(start=0, sites="temporal:top=3"), profile) as told:
        run("animatediff")
    temporal = {site.name: profile.ep[site.name] for site in find_sites(pipe) if site.kind == "temporal"}
    assert sorted(site.name for site in told.sites) == sorted(sorted(temporal, key=temporal.__getitem__)[-3:])


def test_entropy_choice_without_a_profile_is_refused() -> None:
    with pytest.raises(UsageError, match="needs their entropy; got no profile"):
        enhancement(tiny_pipeline("wan"), EnhanceConfig()).__enter__()


def test_a_profile_of_another_model_is_refused() -> None:
    profile = measure(tiny_pipeline("cogvideox"), PROMPTS[0], config_for("cogvideox"))
    assert isinstance(profile, EntropyProfile)
    with pytest.raises(
        UsageError, match=r"the profile was measured on another model; expected .*WanTransformer3DModel"
    ):
        enhancement(tiny_pipeline("wan"), EnhanceConfig(), profile).__enter__()


def test_a_pipelines_own_rescale_is_refused() -> None:
    with (
        pytest.raises(
            UsageError, match="guidance_rescale would take its standard deviation from the shifted prediction"
        ),
        enhancement(tiny_pipeline("ltx"), EnhanceConfig(start=0, sites="joint")),
    ):
        run("ltx", guidance_rescale=0.7)


def test_a_block_without_a_run_is_an_error() -> None:
    with (
        pytest.raises(FailureError, match="no step was enhanced"),
        enhancement(tiny_pipeline("wan"), EnhanceConfig(start=0, sites="joint")),
    ):
        pass


def test_identity_on_cross_attention_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="cross-attention has no identity map"),
        enhancement(tiny_pipeline("wan"), EnhanceConfig(start=0, sites="cross")),
    ):
        run("wan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": -1}, "enhancement scale is out of range"),
        ({"scale": float("nan")}, "enhancement scale is out of range"),
        ({"start": 0.5, "stop": 0.5}, "not a window of steps"),
        (
            {"perturbation": "swap"},
            "unknown perturbation; expected identity, .*, skip-block, random-block:AMOUNT, .*; got swap",
        ),
        ({"perturbation": "mix"}, "unknown perturbation; expected identity"),
        ({"perturbation": "mix:2"}, "weight of a mix is out of range"),
        ({"perturbation": "identity:2"}, "weight of the identity is out of range; expected 0..1; got 2"),
        ({"perturbation": "temperature:hot"}, "unknown perturbation; expected identity"),
    ],
)
def test_configurations_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EnhanceConfig(**arguments)
