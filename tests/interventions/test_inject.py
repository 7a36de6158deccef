"""Injection in every family: the target takes the source's map and keeps its own values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ieadapt.attention import AttentionCall, find_sites, intercept
from ieadapt.errors import UsageError
from ieadapt.interventions import Inject
from tests.families import PROMPTS, captured, every_family, predict, run, tiny_pipeline
from tests.interventions.dense_maps import dense_logits

STREAMS = {"animatediff": 4, "modelscope": 4, "cogvideox": 4, "ltx": 4, "mochi": 4, "wan": 2, "hunyuanvideo": 2}


def _self_sites(family: str) -> list[Any]:
    return [site for site in find_sites(captured(family)[0]) if site.kind in ("spatial", "temporal", "joint")]


def _dense(call: AttentionCall) -> torch.Tensor:
    """The captured batch is [source, target] or [source, target, source, target]; row 0 is the source everywhere."""
    output = call.output.double().clone()
    calls = (*call.earlier, call)
    source = calls[0].restricted([0])
    for index, stream in enumerate(call.rows.stream):
        if stream != "target":
            continue
        own = call.restricted([index])
        layout = call.layout
        start = layout.start if call.site.kind == "joint" else 0
        stop = start + layout.frames * layout.height * layout.width
        own_map = dense_logits(own).softmax(-1)
        offset = calls[0].layout.start if call.site.kind == "joint" else 0
        foreign = dense_logits(source)[..., offset : offset + stop - start, offset : offset + stop - start].softmax(-1)
        mass = own_map[..., start:stop, start:stop].sum(-1, keepdim=True)
        own_map[..., start:stop, start:stop] = foreign * mass
        output[call.rows.index([index])] = own_map @ own.value.double()
    return output.to(call.value.dtype)


@every_family
def test_equals_the_dense_reference(family: str) -> None:
    denoiser, _ = captured(family)
    streams = ("source", "target") * (STREAMS[family] // 2)
    with intercept(denoiser, Inject(), _self_sites(family), streams=streams):
        injected = predict(family)
    with intercept(denoiser, _dense, _self_sites(family), streams=streams):
        expected = predict(family)
    torch.testing.assert_close(injected, expected, rtol=1e-3, atol=1e-4)
    assert (injected - predict(family)).abs().max() > 1e-4


@pytest.mark.parametrize("family", ["animatediff", "wan", "hunyuanvideo", "ltx", "cogvideox"])
def test_the_whole_map_is_the_sources_with_scope_all(family: str) -> None:
    """The target's output is the source's map, its mask included, on the target's values."""
    denoiser, _ = captured(family)
    streams = ("source", "target") * (STREAMS[family] // 2)

    def dense(call: AttentionCall) -> torch.Tensor:
        output = call.output.double().clone()
        source_map = dense_logits(call.restricted([0])).softmax(-1)
        for index in call.rows.denoiser_rows(stream=("target",)):
            own = call.restricted([index])
            output[call.rows.index([index])] = source_map @ own.value.double()
        return output.to(call.value.dtype)

    with intercept(denoiser, Inject(scope="all"), _self_sites(family), streams=streams):
        injected = predict(family)
    with intercept(denoiser, dense, _self_sites(family), streams=streams):
        torch.testing.assert_close(injected, predict(family), rtol=1e-3, atol=1e-4)


def test_scope_all_needs_as_many_tokens() -> None:
    with (
        pytest.raises(UsageError, match=r"source and target differ in their number of tokens.*use scope=\"video\""),
        intercept(captured("mochi")[0], Inject(scope="all"), "joint", streams=("source", "target") * 2),
    ):
        predict("mochi")


@every_family
def test_the_source_rows_stay_bit_equal(family: str) -> None:
    plain = predict(family)
    streams = ("source", "target") * (STREAMS[family] // 2)
    with intercept(captured(family)[0], Inject(), _self_sites(family), streams=streams):
        injected = predict(family)
    source = [index for index, stream in enumerate(streams) if stream == "source"]
    torch.testing.assert_close(injected[source], plain[source], rtol=0, atol=1e-6)


@every_family
def test_equal_prompts_and_noise_give_the_source_again(family: str) -> None:
    generators = [torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)]
    with intercept(tiny_pipeline(family), Inject(), _self_sites(family), streams=("source", "target")):
        source, target = run(family, [PROMPTS[0]] * 2, generator=generators)
    torch.testing.assert_close(target, source, rtol=1e-4, atol=1e-4)


@every_family
@pytest.mark.parametrize("guidance", ["cond", "all"])
def test_only_the_branches_that_are_asked_for_change(family: str, guidance: str) -> None:
    """Of the unconditional rows, source and target, nothing changes by default."""
    changed: set[str] = set()

    def watch(call: AttentionCall) -> None:
        for index in call.rows.denoiser_rows(stream=("target",)):
            own = call.restricted([index])
            if not torch.allclose(own.output, own.attention.output(), atol=1e-5):
                changed.add(call.rows.guidance[index])

    pipe, streams = tiny_pipeline(family), ("source", "target")
    site = _self_sites(family)[-1]
    with (
        intercept(pipe, Inject(), [site], guidance=guidance, streams=streams),
        intercept(pipe, watch, [site], guidance="all", streams=streams),
    ):
        run(family, PROMPTS)
    assert changed == {"cond": {"cond"}, "all": {"cond", "uncond"}}[guidance]


def test_without_streams_there_is_no_source() -> None:
    with (
        pytest.raises(UsageError, match=r"injection has no source.*streams=\(\"source\", \"target\"\)"),
        intercept(tiny_pipeline("wan"), Inject(), "joint"),
    ):
        run("wan", PROMPTS)
