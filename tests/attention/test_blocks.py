"""Step caches, known and unknown, are refused; what a pass of ours leaves out is not missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import Any

import diffusers
import pytest
import torch
from diffusers import FirstBlockCacheConfig
from diffusers.hooks import apply_first_block_cache
from torch import Tensor, nn

from ieadapt.attention import (
    AttentionCall,
    SkippedBlocks,
    attention_modules,
    block_around,
    denoisers_of,
    find_sites,
    intercept,
    wrap_denoiser,
)
from ieadapt.errors import FailureError, UsageError
from ieadapt.interventions import Identity
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.measure.method import measure
from tests.families import captured, every_family, predict, run, tiny_pipeline
from tests.tiny import build, call_arguments

CACHES: dict[str, Callable[[Any], Mapping[str, Any]]] = {
    "FirstBlockCacheConfig": lambda pipe: {"threshold": 0.05},
    "PyramidAttentionBroadcastConfig": lambda pipe: _skipping(pipe),
    "FasterCacheConfig": lambda pipe: _skipping(pipe),
    "MagCacheConfig": lambda pipe: {"num_inference_steps": 4, "mag_ratios": torch.ones(4)},
    "TaylorSeerCacheConfig": lambda pipe: {},
    "SeaCacheConfig": lambda pipe: {},
    "TextKVCacheConfig": lambda pipe: {},
}
"""The step caches of diffusers by name, since older releases lack some, and the fields of their configs."""


def _skipping(pipe: Any) -> dict[str, Any]:
    return {"spatial_attention_block_skip_range": 2, "current_timestep_callback": lambda: pipe.current_timestep}


def look(call: AttentionCall) -> None:
    """Do nothing at all."""


@pytest.mark.parametrize("family", ["wan", "cogvideox", "ltx", "hunyuanvideo", "mochi"])
@pytest.mark.parametrize("name", CACHES)
def test_caches_of_diffusers_are_refused_with_the_line_that_turns_them_off(name: str, family: str) -> None:
    if not hasattr(diffusers, name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    pipe = build(family)
    try:
        pipe.transformer.enable_cache(getattr(diffusers, name)(**CACHES[name](pipe)))
    except Exception as error:
        pytest.skip(f"diffusers: {error}")
    with pytest.raises(UsageError, match=rf"step cache answers.*got {name}.*remedy: .*disable_cache\(\)"):
        intercept(pipe, look).__enter__()
    pipe.transformer.disable_cache()
    with intercept(pipe, look):
        pipe("a red ball", num_inference_steps=2, output_type="latent", **call_arguments(family))


def test_a_cache_that_is_applied_by_hand_is_refused_too() -> None:
    pipe = build("wan")
    apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=0.05))
    with pytest.raises(UsageError, match=r"step cache answers for this denoiser.*got FBC"):
        intercept(pipe, look).__enter__()


def test_a_cache_that_is_switched_on_inside_the_block_is_refused() -> None:
    pipe = build("wan")
    with pytest.raises(UsageError, match="step cache answers"), intercept(pipe, look):
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.05))
        pipe("a red ball", num_inference_steps=1, output_type="latent", **call_arguments("wan"))


@contextmanager
def answering_from_the_step_before(denoiser: nn.Module, block: nn.Module, first: int) -> Iterator[None]:
    """A cache that nobody knows: from one call on a block gives what it gave before, as TeaCache and cache-dit do."""
    original, kept, calls = block.forward, {}, Counter()

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        shape = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)).shape
        calls[shape] += 1
        if calls[shape] <= first:
            kept[shape] = original(*args, **kwargs)
        return kept[shape]

    block.forward = MethodType(forward, block)
    try:
        yield
    finally:
        del block.forward


def _last_block(pipe: Any, family: str) -> tuple[nn.Module, nn.Module, str]:
    """The denoiser, the block around its last self-attention site, and the site."""
    from ieadapt.attention import block_around

    site = [site for site in find_sites(pipe) if site.kind in ("spatial", "temporal", "joint")][-1]
    return next(iter(denoisers_of(pipe).values())), block_around(pipe, site), site.name


@every_family
def test_a_cache_that_nobody_knows_is_refused_by_intercept(family: str) -> None:
    pipe = tiny_pipeline(family)
    denoiser, block, site = _last_block(pipe, family)
    with (
        answering_from_the_step_before(denoiser, block, 2),
        pytest.raises(FailureError, match=r"1 of 1 planned attention sites did not run in this pass.*TeaCache"),
        intercept(pipe, Identity(), site),
    ):
        run(family, steps=4)


@every_family
def test_a_cache_that_nobody_knows_is_refused_by_measure(family: str) -> None:
    pipe = tiny_pipeline(family)
    denoiser, block, _ = _last_block(pipe, family)
    size = {name: value for name, value in call_arguments(family).items() if name in ("height", "width", "num_frames")}
    with (
        answering_from_the_step_before(denoiser, block, 2),
        pytest.raises(FailureError, match=r"planned attention sites did not run in this pass"),
    ):
        measure(pipe, "a red ball", GenerationConfig(4, guidance_scale=3.0, **size))


@every_family
def test_a_cache_that_answers_weak_passes_is_refused_by_enhancement(family: str) -> None:
    pipe = tiny_pipeline(family)
    denoiser, block, site = _last_block(pipe, family)
    with (
        answering_from_the_step_before(denoiser, block, 2),
        pytest.raises(FailureError, match=r"planned attention sites did not run in this pass"),
        enhancement(pipe, EnhanceConfig(sites=site, start=0.0)),
    ):
        run(family, steps=4)


@every_family
def test_a_replayed_prefix_is_not_missed(family: str) -> None:
    """An intervention on all sites, weak rows included, beside weak passes that replay what comes before the last."""
    pipe = tiny_pipeline(family)
    _, _, site = _last_block(pipe, family)
    weak: set[str] = set()

    def count(call: AttentionCall) -> None:
        if "weak" in call.rows.guidance:
            weak.add(call.site.name)

    def again(call: Any, prediction: Tensor) -> None:
        call.forward_rows(call.rows.denoiser_rows(("cond",))) if call.rows.denoiser_rows(("cond",)) else None

    own = [each for each in find_sites(pipe) if each.name == site]
    with intercept(pipe, count, guidance=("cond", "weak")), wrap_denoiser(pipe, again, own):
        run(family, steps=2)
    assert site in weak
    assert len(weak) < len(find_sites(pipe))


@every_family
def test_a_block_that_a_method_of_ours_leaves_out_is_not_missed(family: str) -> None:
    pipe = tiny_pipeline(family)
    _, _, site = _last_block(pipe, family)
    config = EnhanceConfig(perturbation="skip-block", sites=site, start=0.0)
    with intercept(pipe, look, site, guidance=("cond", "weak")), enhancement(pipe, config) as done:
        run(family, steps=2)
    assert done.weak_passes == 2


def test_a_denoiser_that_is_not_on_duty_is_not_missed() -> None:
    """Wan 2.2 has one denoiser for much noise and one for little."""
    pipe = build("wan")
    parts = dict(pipe.components) | {"transformer_2": build("wan", 1).transformer}
    both = type(pipe)(**parts, boundary_ratio=0.875, expand_timesteps=False)
    both.set_progress_bar_config(disable=True)
    seen: dict[str, set[int]] = {}
    with intercept(both, lambda call: seen.setdefault(call.site.name.split(".")[0], set()).add(call.step)):
        both("a red ball", num_inference_steps=4, output_type="latent", **call_arguments("wan"))
    assert set(seen) == {"transformer", "transformer_2"}
    assert set.union(*seen.values()) == {0, 1, 2, 3}
    assert not set.intersection(*seen.values())


@every_family
def test_steps_after_an_interrupt_are_not_missed(family: str) -> None:
    pipe, steps = tiny_pipeline(family), []
    if not hasattr(type(pipe), "interrupt"):
        pytest.skip("the pipeline cannot be interrupted")

    def stop(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = True
        return kwargs

    with (
        intercept(pipe, lambda call: steps.append(call.step), _last_block(pipe, family)[2]),
        intercept(pipe, Identity(), _last_block(pipe, family)[2], (0.5, 1.0)),
    ):
        run(family, steps=4, callback_on_step_end=stop)
    assert set(steps) == {0}


@every_family
def test_every_site_lies_in_a_block(family: str) -> None:
    denoiser, _ = captured(family)
    for site in find_sites(denoiser):
        block = block_around(denoiser, site)
        assert attention_modules(denoiser, [site])[0] in set(block.modules())
        assert sum(module is block for module in denoiser.modules()) == 1
        assert "Block" in type(block).__name__


@every_family
def test_a_pass_without_all_blocks_gives_what_they_were_given(family: str) -> None:
    """Every block's input goes through; afterwards the model is as before."""
    denoiser, _ = captured(family)
    plain = predict(family)
    blocks = [block_around(denoiser, site) for site in find_sites(denoiser) if site.kind != "text"]
    skipped = SkippedBlocks(blocks)
    assert len(skipped.blocks) == len(set(blocks))
    with skipped.observing():
        predict(family)
    with skipped.skipped():
        bare = predict(family)
    with skipped.skipped([skipped.blocks[-1]]):
        partly = predict(family)
    assert not torch.allclose(bare, plain)
    assert not torch.allclose(partly, bare)
    assert torch.equal(predict(family), plain)


class _Growing(nn.Module):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return torch.cat([hidden_states, hidden_states])


def test_a_block_of_another_form_is_refused() -> None:
    block = _Growing()
    with pytest.raises(FailureError, match="this block cannot be left out"), SkippedBlocks([block]).observing():
        block(torch.zeros(2, 3))
