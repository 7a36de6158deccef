"""The seam itself: it fires, changes nothing by itself, restores everything, and refuses what would bypass it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import SlicedAttnProcessor
from torch import Tensor, nn

from ieadapt.attention import AttentionCall, DenoiserCall, find_sites, intercept, wrap_denoiser
from ieadapt.errors import FailureError, UsageError
from tests.families import PROMPTS, captured, every_family, predict, run, tiny_pipeline


def look(call: AttentionCall) -> None:
    """Do nothing at all."""


def own_output(call: AttentionCall) -> Tensor:
    """Replace the output by itself."""
    return call.output


def _state(denoiser: nn.Module) -> list[tuple[Any, ...]]:
    """Everything that the seam could leave behind on a model."""
    return [
        (
            name,
            sorted(vars(module)),
            list(module._forward_hooks),
            list(module._forward_pre_hooks),
            list(module._forward_hooks_always_called),
            list(module._forward_hooks_with_kwargs),
            id(getattr(module, "processor", None)),
        )
        for name, module in denoiser.named_modules()
    ]


@pytest.fixture(autouse=True)
def restored(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test of this file, whatever it did, the denoiser and the pipeline are as before."""
    family = getattr(request.node, "callspec", None) and request.node.callspec.params.get("family")
    if not family:
        yield
        return
    denoiser, _ = captured(family)
    pipe = tiny_pipeline(family)
    before, attributes = _state(denoiser), sorted(vars(pipe))
    yield
    assert _state(denoiser) == before
    assert sorted(name for name in vars(pipe) if name not in ("_guidance_scale",)) == sorted(
        name for name in attributes if name not in ("_guidance_scale",)
    )
    assert (
        torch.overrides._len_torch_function_stack() == 0
        if hasattr(torch.overrides, "_len_torch_function_stack")
        else True
    )


@every_family
@pytest.mark.parametrize("intervention", [look, own_output], ids=["look", "own output"])
def test_doing_nothing_leaves_the_output_bit_equal(family: str, intervention: Callable[[AttentionCall], Any]) -> None:
    plain = predict(family)
    with intercept(captured(family)[0], intervention):
        watched = predict(family)
    assert torch.equal(plain, watched)


@every_family
def test_a_whole_run_is_bit_equal_too(family: str) -> None:
    plain = run(family, PROMPTS)
    with intercept(tiny_pipeline(family), look):
        watched = run(family, PROMPTS)
    assert torch.equal(plain, watched)
    assert torch.equal(plain, run(family, PROMPTS))


@every_family
def test_the_model_is_restored_after_an_exception_inside_a_site(family: str) -> None:
    plain = predict(family)

    def explode(call: AttentionCall) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), intercept(captured(family)[0], explode):
        predict(family)
    assert torch.equal(plain, predict(family))


@every_family
def test_the_model_works_again_inside_the_block_after_an_exception(family: str) -> None:
    attempts = iter([True])

    def explode_once(call: AttentionCall) -> None:
        if next(attempts, False):
            raise ZeroDivisionError

    plain = predict(family)
    with intercept(captured(family)[0], explode_once):
        with pytest.raises(ZeroDivisionError):
            predict(family)
        assert torch.equal(plain, predict(family))


def test_sdpa_outside_a_site_is_left_alone() -> None:
    query = torch.randn(1, 1, 3, 4)
    with intercept(captured("wan")[0], lambda call: torch.zeros_like(call.output)):
        outside = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        predict("wan")
    assert outside.abs().sum() > 0


def test_every_call_of_a_chosen_site_is_seen_as_the_functions_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against an independent observer: the function itself, replaced."""
    shapes: list[torch.Size] = []
    original = torch.nn.functional.scaled_dot_product_attention

    def observer(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        shapes.append(query.shape)
        return original(query, *args, **kwargs)

    seen: list[torch.Size] = []
    with intercept(captured("animatediff")[0], lambda call: seen.append(call.query.shape)):
        predict("animatediff")
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", observer)
    predict("animatediff")
    assert seen == shapes


def test_only_chosen_sites_fire() -> None:
    fired = set()
    with intercept(captured("animatediff")[0], lambda call: fired.add(call.site), sites="temporal"):
        predict("animatediff")
    assert fired == {site for site in find_sites(captured("animatediff")[0]) if site.kind == "temporal"}


def test_nested_blocks_the_inner_sees_what_the_outer_left_and_wins() -> None:
    denoiser, _ = captured("wan")
    seen: list[float] = []

    def inner(call: AttentionCall) -> Tensor:
        seen.append(call.output.mean().item())
        return call.output + 2

    with intercept(denoiser, lambda call: torch.ones_like(call.output), "blocks.0.attn1"):
        with intercept(denoiser, inner, "blocks.0.attn1"):
            both = predict("wan")
        outer_alone = predict("wan")
    with intercept(denoiser, lambda call: torch.full_like(call.output, 3.0), "blocks.0.attn1"):
        three = predict("wan")
    assert seen == [1.0]
    assert torch.equal(both, three)
    assert not torch.equal(outer_alone, both)


def test_nested_blocks_on_the_pipeline_and_its_denoiser_share_the_run() -> None:
    pipe, branches = tiny_pipeline("wan"), []
    with (
        intercept(pipe, look, "joint"),
        intercept(pipe.transformer, lambda c: branches.extend(c.rows.guidance), "joint", guidance="all"),
    ):
        run("wan")
    assert set(branches) == {"cond", "uncond"}


@pytest.mark.parametrize("call", [False, True], ids=["not called", "called outside the window"])
def test_a_site_that_never_fires_is_an_error_on_leaving(call: bool) -> None:
    why = (
        r"no cond rows of their denoiser ran in the window 0\.9:1"
        if call
        else "the denoiser was not called inside the block"
    )
    with (
        pytest.raises(FailureError, match=rf"4 of 4 chosen attention sites never fired; got {why}"),
        intercept(tiny_pipeline("wan"), look, steps=(0.9, 1.0)),
    ):
        if call:
            run("wan", steps=2)


def test_an_exception_in_the_block_is_not_hidden_by_sites_that_did_not_fire() -> None:
    with pytest.raises(KeyError), intercept(tiny_pipeline("wan"), look):
        raise KeyError


def test_a_window_on_a_bare_denoiser_is_refused() -> None:
    with pytest.raises(UsageError, match="a bare denoiser has no known number of steps"):
        intercept(captured("wan")[0], look, steps=(0.0, 0.5)).__enter__()


def test_another_attention_backend_is_refused_on_entering() -> None:
    denoiser, _ = captured("wan")
    denoiser.set_attention_backend("flex")
    try:
        with pytest.raises(UsageError, match=r"backend bypasses ieadapt; expected the native.*got flex.*set_attention"):
            intercept(denoiser, look).__enter__()
    finally:
        denoiser.set_attention_backend("native")  # diffusers changes the process-wide default too
        denoiser.reset_attention_backend()


def test_attention_that_does_not_end_in_sdpa_is_refused_when_it_runs() -> None:
    denoiser, _ = captured("animatediff")
    before = denoiser.attn_processors
    denoiser.set_attn_processor(SlicedAttnProcessor(1))
    try:
        with (
            pytest.raises(FailureError, match=r"did not go through PyTorch's.*SlicedAttnProcessor.*slicing"),
            intercept(denoiser, look),
        ):
            predict("animatediff")
    finally:
        denoiser.set_attn_processor(before)


def test_a_call_from_another_thread_is_refused() -> None:
    caught: list[BaseException] = []

    def call() -> None:
        try:
            predict("wan")
        except FailureError as error:
            caught.append(error)

    with intercept(captured("wan")[0], look):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        predict("wan")
    assert "intercepted by another thread" in str(caught[0])


def test_a_tensor_of_another_form_is_refused() -> None:
    with (
        pytest.raises(FailureError, match=r"returned a tensor of another form; expected \(2, 2, 72, 12\)"),
        intercept(captured("wan")[0], lambda call: call.output[:1], "joint"),
    ):
        predict("wan")


def test_a_prediction_that_is_not_finite_stops_the_run_and_names_the_site() -> None:
    with (
        pytest.raises(FailureError, match=r"prediction is not finite; in step 0, changed at blocks\.1\.attn1"),
        intercept(tiny_pipeline("wan"), lambda call: call.output * float("nan"), "blocks.1.attn1"),
    ):
        run("wan")


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "regional"])
def test_a_compiled_denoiser_works(whole: bool) -> None:
    """Inside the block compiled code runs eagerly, so that its attention can be seen."""
    plain, (denoiser, arguments) = predict("wan"), captured("wan")
    seen: list[str] = []
    if whole:
        model = torch.compile(denoiser, backend="eager")
        with intercept(model, lambda call: seen.append(call.site.name)), torch.no_grad():
            output = model(**arguments)[0]
    else:
        for block in denoiser.blocks:
            block.compile(backend="eager")
        try:
            with intercept(denoiser, lambda call: seen.append(call.site.name)):
                output = predict("wan")
        finally:
            for block in denoiser.blocks:
                block._compiled_call_impl = None
    assert len(seen) == 4
    torch.testing.assert_close(output, plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs(dtype: torch.dtype) -> None:
    from ieadapt.interventions import Record

    query = torch.randn(1, 2, 72, 12)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention()

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (self.attention(x),)

    class Attention(nn.Module):
        processor, to_q, heads = None, None, 2

        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    model = Model()
    with intercept(model, Record()) as exact:
        model(query.to(dtype).float())
    with intercept(model, Record()) as half:
        model(query.to(dtype))
    for a, b in zip(exact.records(), half.records(), strict=True):
        assert abs(a["ep"] - b["ep"]) < 1e-3


@every_family
def test_wrapping_a_denoiser_looks_or_replaces(family: str) -> None:
    plain, steps = predict(family), []
    with wrap_denoiser(captured(family)[0], lambda call, prediction: steps.append(call.step)):
        assert torch.equal(plain, predict(family))
    with wrap_denoiser(captured(family)[0], lambda call, prediction: prediction + 1):
        assert torch.equal(plain + 1, predict(family))
    assert steps == [0]


@every_family
def test_a_weak_pass_over_some_rows_is_the_same_call_on_those_rows(family: str) -> None:
    again: list[tuple[Tensor, Tensor]] = []
    labels: set[str] = set()

    def wrapper(call: DenoiserCall, prediction: Tensor) -> None:
        chosen = [len(call.rows) - 1]
        again.append((prediction[chosen], call.forward_rows(chosen)))

    denoiser, _ = captured(family)
    with (
        intercept(denoiser, lambda call: labels.update(call.rows.guidance), guidance=("cond", "weak")),
        wrap_denoiser(denoiser, wrapper),
    ):
        predict(family)
    torch.testing.assert_close(*again[0])
    assert labels == {"cond", "weak"}
