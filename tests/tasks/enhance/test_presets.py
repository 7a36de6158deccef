"""The methods of the literature: each acts in every family where it is defined, and says why where it is not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ieadapt.attention import AttentionCall, find_sites, intercept
from ieadapt.errors import UsageError
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.enhance.presets import PRESETS
from tests.families import every_family, run, tiny_pipeline
from tests.tasks.enhance.test_guidance import added, one_site

U_NETS = ("animatediff", "modelscope")
MIDDLE = {
    "pag": {"spatial": 1, "temporal": 0},
    "seg": {"spatial": 1, "temporal": 0},
    "stg-a": {"spatial": 1, "temporal": 1},
    "stg-r": {"spatial": 1, "temporal": 1},
}


@every_family
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_acts_or_says_why_not(family: str, name: str) -> None:
    pipe, plain = tiny_pipeline(family), run(family, steps=6)
    if name == "freeu" and family not in U_NETS:
        with pytest.raises(UsageError, match=r"FreeU weighs the skip connections of a U-Net.*expected AnimateDiff"):
            enhancement(pipe, EnhanceConfig.preset(name)).__enter__()
        return
    if name == "fdg" and family == "ltx":
        with (
            pytest.raises(UsageError, match="predicts a list of tokens"),
            enhancement(pipe, EnhanceConfig.preset(name)),
        ):
            run(family)
        return
    # Mochi's and others' random maps attend little across frames: a larger weight lifts the factor above 1
    config = EnhanceConfig.preset(name, **({"perturbation": "cross-frame:50"} if name == "enhance-a-video" else {}))
    with enhancement(pipe, config) as state:
        # skip-layer guidance acts in the first fifth of the steps, the interval leaves out the first quarter
        assert (run(family, steps=6) - plain).abs().max() > 1e-4
    assert state.changed_steps
    if name in MIDDLE:
        kinds = [site.kind for site in state.sites]
        expected = {**MIDDLE[name], "joint": 0} if family in U_NETS else {"spatial": 0, "temporal": 0, "joint": 1}
        assert {kind: kinds.count(kind) for kind in expected} == expected
    if name == "enhance-a-video":
        kind = "temporal" if family in U_NETS else "joint"
        assert list(state.sites) == [site for site in find_sites(pipe) if site.kind == kind]
    assert (state.weak_passes > 0) == (config.mode == "guidance")


@every_family
def test_erg_is_attention_of_queries_times_a_hundredth(family: str) -> None:
    """As its source writes it: the queries are scaled before the softmax, nothing else."""
    config = EnhanceConfig.preset("erg", sites=one_site(family), start=0)
    call, plain, delta = added(family, config)

    def softened(each: AttentionCall) -> Tensor:
        return scaled_dot_product_attention(0.01 * each.query, each.key, each.value, each.mask, scale=each.scale)

    with intercept(call.module, softened, one_site(family)), torch.no_grad():
        weak = call.module(**call.arguments)[0][call.rows.denoiser_rows(("cond",))]
    assert delta.abs().max() > 1e-4
    torch.testing.assert_close(delta, plain - weak, rtol=1e-3, atol=1e-4)


def test_the_mid_block_is_the_middle_of_a_u_net() -> None:
    with enhancement(tiny_pipeline("animatediff"), EnhanceConfig.preset("pag")) as state:
        run("animatediff")
    assert [site.name.split(".")[0] for site in state.sites] == ["mid_block"]


def test_a_preset_with_other_values() -> None:
    config = EnhanceConfig.preset("pag", scale=1.5)
    assert (config.scale, config.scope) == (1.5, "video-renormalised")
    assert EnhanceConfig.preset("pag", scale=2, rescale=0.3) == dataclasses.replace(config, scale=2, rescale=0.3)
    assert EnhanceConfig.preset("pag", scale=EnhanceConfig().scale).scale == EnhanceConfig().scale
    with pytest.raises(
        UsageError,
        match=r"unknown preset; expected pag, softpag, seg, tpg, stg-a, .*, freeu, or a .json file; got",
    ):
        EnhanceConfig.preset("best")


@pytest.mark.parametrize(
    ("config", "guided", "passes", "steps"),
    [
        (EnhanceConfig(), True, 50, 25),
        (EnhanceConfig(), False, 30, 30),
        (EnhanceConfig(start=0, scale=0), True, 40, 20),
        (EnhanceConfig(start=0, stop=0.3), True, 46, 23),
        (EnhanceConfig(start=0.5, entropy="online:4"), True, 50, 25),
        (EnhanceConfig(start=0, entropy="online:4"), True, 56, 28),
        (EnhanceConfig(start=0, schedule=",".join("10" * 10)), True, 50, 25),
        (EnhanceConfig.preset("enhance-a-video"), True, 40, 20),
    ],
)
def test_passes_and_plain_steps_of_the_same_compute(
    config: EnhanceConfig, guided: bool, passes: int, steps: int
) -> None:
    assert config.passes(20, guided=guided) == passes
    assert config.matched_steps(20, guided=guided) == steps


def test_passes_are_those_of_a_run() -> None:
    config = EnhanceConfig(start=0, sites="joint", stop=0.5, entropy="online:1")
    with enhancement(tiny_pipeline("wan"), config) as state:
        run("wan", steps=4)
    assert state.passes + state.weak_passes == config.passes(4)
