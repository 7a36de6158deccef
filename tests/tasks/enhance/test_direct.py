"""Direct mode: one pass in which the maps are changed, Enhance-A-Video, FreeU; and entropy measured online."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ieadapt.attention import AttentionCall, DenoiserCall, denoisers_of, find_sites, intercept, wrap_denoiser
from ieadapt.errors import FailureError, UsageError
from ieadapt.interventions import Mix, Record, Temperature
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.measure.profile import EntropyProfile
from tests.families import GUIDED, PROMPTS, UNGUIDED, every_family, run, tiny_pipeline
from tests.tasks.enhance.test_guidance import one_site
from tests.tasks.test_generate import config_for

UNGUIDED = UNGUIDED | {"hunyuanvideo": {"true_cfg_scale": 1.0}}


@every_family
@pytest.mark.parametrize("guided", [True, False], ids=["guided", "no guidance"])
def test_a_share_of_the_uniform_map_is_the_mixture(family: str, guided: bool) -> None:
    arguments = GUIDED[family] if guided else UNGUIDED[family]
    site, pipe = one_site(family), tiny_pipeline(family)
    with enhancement(
        pipe, EnhanceConfig(start=0, mode="direct", perturbation="uniform", sites=site, scale=0.4)
    ) as told:
        enhanced = run(family, PROMPTS, **arguments)
    with intercept(pipe, Mix(0.4), site, guidance="all"):
        mixed = run(family, PROMPTS, **arguments)
    assert (mixed - run(family, PROMPTS, **arguments)).abs().max() > 1e-4
    torch.testing.assert_close(enhanced, mixed, rtol=1e-3, atol=1e-4)
    assert told.weak_passes == 0


@every_family
def test_scale_0_is_bit_equal_and_everything_is_restored(family: str) -> None:
    plain, pipe = run(family), tiny_pipeline(family)
    direct = {"mode": "direct", "sites": one_site(family)}
    with enhancement(pipe, EnhanceConfig(start=0, perturbation="uniform", scale=0, **direct)):
        assert torch.equal(plain, run(family))
    for perturbation in ("temperature:2", "cross-frame:50"):
        with enhancement(pipe, EnhanceConfig(start=0, perturbation=perturbation, **direct)):
            assert not torch.equal(plain, run(family))
        assert torch.equal(plain, run(family))


@every_family
def test_the_rest_is_sharpened(family: str) -> None:
    """Uniform half-way at one site, temperature .7 at the others of its kind."""
    pipe = tiny_pipeline(family)
    kind = "temporal" if any(site.kind == "temporal" for site in find_sites(pipe)) else "joint"
    config = EnhanceConfig(
        start=0,
        mode="direct",
        perturbation="uniform",
        sites=one_site(family),
        scale=0.5,
        sharpen=0.7,
        sharpen_sites=kind,
    )
    with enhancement(pipe, config) as told:
        enhanced = run(family)
    rest = [site for site in find_sites(pipe) if site.kind == kind and site not in told.sites]
    assert list(told.sharpened) == [site.name for site in rest]

    def half_sharp(call: AttentionCall) -> Tensor:
        sharp = Temperature(0.7)(call)
        assert sharp is not None
        return 0.5 * call.output + 0.5 * sharp

    with intercept(pipe, Mix(0.5), list(told.sites), guidance="all"), intercept(pipe, half_sharp, rest, guidance="all"):
        torch.testing.assert_close(enhanced, run(family), rtol=1e-3, atol=1e-4)


@every_family
def test_one_branch_and_a_window(family: str) -> None:
    changed: set[tuple[int, str]] = set()
    pipe, site = tiny_pipeline(family), one_site(family)
    config = EnhanceConfig(mode="direct", perturbation="temperature:3", sites=site, branch="cond", start=0.5)

    def kept(call: AttentionCall) -> None:
        plain = torch.nn.functional.scaled_dot_product_attention(
            call.query, call.key, call.value, attn_mask=call.mask, scale=call.scale
        )
        for row, branch in enumerate(call.rows.guidance):
            rows = call.rows.index([row])
            if (call.output - plain)[rows].abs().max() > 1e-4:
                changed.add((call.step, branch))

    with enhancement(pipe, config), intercept(pipe, kept, site, guidance="all"):
        run(family, steps=4)
    assert changed == {(2, "cond"), (3, "cond")}


def test_weighting_goes_by_entropy() -> None:
    pipe, site = tiny_pipeline("wan"), one_site("wan")
    profile = measure(pipe, PROMPTS[0], config_for("wan"))
    config = EnhanceConfig(start=0, mode="direct", perturbation="uniform", sites=site, weighting="ep")
    with enhancement(pipe, config, profile):
        enhanced = run("wan")
    with intercept(pipe, Mix(profile.ep[site] / 100), site, guidance="all"):
        torch.testing.assert_close(enhanced, run("wan"), rtol=1e-3, atol=1e-4)


class _Modules:
    """What the attention modules of some sites return, in order of the calls."""

    def __init__(self, pipe: Any, names: set[str]) -> None:
        self.returned: list[Any] = []
        denoiser = next(iter(denoisers_of(pipe).values()))
        self._handles = [denoiser.get_submodule(name).register_forward_hook(self._keep) for name in sorted(names)]

    def _keep(self, module: nn.Module, args: Any, output: Any) -> None:
        self.returned.append(output)

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _factor(call: AttentionCall, weight: float) -> list[float]:
    """max(1, (F + weight) * mean off-diagonal weight) per denoiser row, map by map."""
    frames, positions = call.layout.frames, call.layout.height * call.layout.width
    video, factors = call.layout.video.slice, []
    for row in range(len(call.rows.guidance)):
        entries = []
        for part in range(*call.rows.index([row]).indices(call.query.shape[0])):
            query = call.query[part][:, video].unflatten(1, (frames, positions))
            key = call.key[part][:, video].unflatten(1, (frames, positions))
            maps = (torch.einsum("hfpc,hgpc->hpfg", query, key) * call.scale).softmax(-1)
            entries.append(maps[..., ~torch.eye(frames, dtype=torch.bool)].mean())
        factors.append(max(1.0, (frames + weight) * float(torch.stack(entries).mean())))
    return factors


@every_family
def test_enhance_a_video_scales_what_attention_returns_for_video_tokens(family: str) -> None:
    """Against the module's own return value in a plain run, as the source's processors multiply it."""
    pipe, weight = tiny_pipeline(family), 50.0
    name = next(site.name for site in find_sites(pipe) if site.kind in ("temporal", "joint"))
    factors: list[list[float]] = []
    layouts: list[Any] = []

    def kept(call: AttentionCall) -> None:
        factors.append(_factor(call, weight))
        layouts.append(call)

    returned = []
    for config in (None, EnhanceConfig(start=0, mode="direct", perturbation=f"cross-frame:{weight:g}", sites=name)):
        with ExitStack() as stack:
            if config is not None:
                stack.enter_context(enhancement(pipe, config))
            modules = _Modules(pipe, {name})
            stack.callback(modules.close)
            stack.enter_context(intercept(pipe, kept, name, guidance="all"))
            run(family)
            returned.append(modules.returned[0])
    rows = factors[: 2 if family == "mochi" else 1]
    values = torch.tensor([value for each in rows for value in each]).repeat_interleave(layouts[0].rows.repeats)
    assert values.max() > 1.5
    plain, scaled = ([each] if isinstance(each, Tensor) else list(each) for each in returned)
    torch.testing.assert_close(scaled[0], plain[0] * values[:, None, None], rtol=1e-3, atol=1e-5)
    for before, after in zip(plain[1:], scaled[1:], strict=True):
        torch.testing.assert_close(after, before)


def test_enhance_a_video_without_an_output_projection() -> None:
    """HunyuanVideo's single-stream blocks project outside; the attention itself is scaled, text is not."""
    pipe, name = tiny_pipeline("hunyuanvideo"), "single_transformer_blocks.1.attn"
    outputs: list[Tensor] = []
    config = EnhanceConfig(start=0, mode="direct", perturbation="cross-frame:50", sites=name)
    factor: list[float] = []

    def kept(call: AttentionCall) -> None:
        outputs.append(call.output.clone())
        factor.append(_factor(call, 50)[0])

    with intercept(pipe, kept, name, guidance="all"):
        run("hunyuanvideo")
    with enhancement(pipe, config), intercept(pipe, kept, name, guidance="all"):
        run("hunyuanvideo")
    plain, scaled = outputs[0], outputs[4]
    tokens = 3 * 4 * 6 if plain.shape[2] > 72 else plain.shape[2]
    torch.testing.assert_close(scaled[:, :, :tokens], plain[:, :, :tokens] * factor[0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(scaled[:, :, tokens:], plain[:, :, tokens:])


def test_enhance_a_video_on_spatial_attention_is_refused() -> None:
    config = EnhanceConfig(start=0, mode="direct", perturbation="cross-frame:4", sites="spatial")
    with (
        pytest.raises(UsageError, match="cross-frame scaling needs attention between frames"),
        enhancement(tiny_pipeline("animatediff"), config),
    ):
        run("animatediff")


@pytest.mark.parametrize("family", ["animatediff", "modelscope"])
def test_freeu_is_the_pipelines_own_and_restored(family: str) -> None:
    pipe, config = tiny_pipeline(family), EnhanceConfig.preset("freeu")
    plain = run(family)
    before = [dict(vars(block)) for block in pipe.unet.up_blocks]
    with enhancement(pipe, config):
        enhanced = run(family)
    assert [set(vars(block)) for block in pipe.unet.up_blocks] == [set(kept) for kept in before]
    assert torch.equal(plain, run(family))
    pipe.unet.enable_freeu(0.9, 0.2, 1.5, 1.6)
    try:
        assert torch.equal(enhanced, run(family))
    finally:
        for block in pipe.unet.up_blocks:
            for name in ("s1", "s2", "b1", "b2"):
                delattr(block, name)
    assert not torch.equal(plain, enhanced)


@every_family
@pytest.mark.parametrize("mode", ["guidance", "direct"])
def test_online_plans_from_the_first_steps(family: str, mode: str) -> None:
    """The sites are those that a recording of the first two plain steps ranks highest; nothing changes before."""
    pipe = tiny_pipeline(family)
    kind = "temporal" if any(site.kind == "temporal" for site in find_sites(pipe)) else "joint"
    with intercept(pipe, Record(), kind, steps=(0.0, 0.5), guidance="all") as record:
        run(family, steps=4)
    figures = EntropyProfile.from_rows(record.records())
    changed = {"perturbation": "uniform"} if mode == "direct" else {}
    config = EnhanceConfig(start=0, mode=mode, sites=f"{kind}:top=0.5", entropy="online:2", **changed)
    first: list[Tensor] = []

    def latents(call: DenoiserCall, prediction: Tensor) -> None:
        first.append(prediction.clone()) if call.step == 1 else None

    with wrap_denoiser(pipe, latents):
        run(family, steps=4)
    with enhancement(pipe, config) as told:
        assert told.sites == ()
        with wrap_denoiser(pipe, latents):
            run(family, steps=4)
    assert list(told.sites) == figures.select(kind=kind, top=0.5)
    assert torch.equal(torch.cat(first[: len(first) // 2]), torch.cat(first[len(first) // 2 :]))
    assert told.changed_steps > 0


def test_every_run_is_measured_anew() -> None:
    pipe = tiny_pipeline("wan")
    with enhancement(pipe, EnhanceConfig(start=0, sites="joint:top=1", entropy="online:1")) as told:
        first = run("wan", steps=3)
        second = run("wan", steps=3)
    assert torch.equal(first, second)
    assert told.weak_passes == 4


def test_a_run_that_is_measured_to_its_end_is_an_error() -> None:
    with (
        pytest.raises(FailureError, match=r"no step was enhanced; got window 0.0..1.0, after 2 measured steps"),
        enhancement(tiny_pipeline("wan"), EnhanceConfig(start=0.0, entropy="online:2")),
    ):
        run("wan", steps=2)
