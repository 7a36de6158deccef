"""After any exception, in whatever order blocks are left, process and model are exactly as before."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
import torch._dynamo
from diffusers import DiffusionPipeline
from torch._dynamo import eval_frame
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from ieadapt.attention import AttentionCall, intercept
from ieadapt.attention.restore import around
from ieadapt.interventions import Record
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from tests.attention.test_seam import _state
from tests.families import every_family
from tests.tiny import build, call_arguments


def look(call: AttentionCall) -> None:
    """Do nothing at all."""


def run(pipe: DiffusionPipeline, family: str = "wan") -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipe(
        "a red ball", num_inference_steps=2, output_type="latent", generator=generator, **call_arguments(family)
    ).frames


def everything(pipe: Any) -> tuple[Any, ...]:
    """What a block could leave behind: on the model, the pipeline, its scheduler, the thread and the process."""
    denoiser = getattr(pipe, "transformer", None) or pipe.unet
    return (
        _state(denoiser),
        sorted(vars(pipe).keys() - {"_guidance_scale", "_interrupt", "_num_timesteps", "_current_timestep"}),
        "step" in vars(pipe.scheduler),
        list(_get_current_function_mode_stack()),
        eval_frame._stance.stance,
    )


@contextmanager
def unchanged(pipe: Any, family: str = "wan") -> Iterator[None]:
    """Check that a block leaves everything as it was, the model's output too."""
    plain, before = run(pipe, family), everything(pipe)
    yield
    assert everything(pipe) == before
    assert torch.equal(run(pipe, family), plain)


RAISED = [KeyboardInterrupt, SystemExit, GeneratorExit, ZeroDivisionError]


@every_family
@pytest.mark.parametrize("error", RAISED)
def test_after_any_exception_inside_a_site(family: str, error: type[BaseException]) -> None:
    pipe = build(family)

    def stop(call: AttentionCall) -> None:
        raise error

    with unchanged(pipe, family), pytest.raises(error), intercept(pipe, stop):
        run(pipe, family)


@pytest.mark.parametrize("error", RAISED)
def test_inside_the_block_too_after_it_was_caught(error: type[BaseException]) -> None:
    """An interrupted pass is forgotten: what follows is no part of it."""
    pipe, attempts, seen = build("wan"), iter([True]), []

    def stop_once(call: AttentionCall) -> None:
        if next(attempts, False):
            raise error
        seen.append(call.site.name)

    with unchanged(pipe), intercept(pipe, stop_once):
        with pytest.raises(error):
            run(pipe)
        query = torch.randn(1, 1, 3, 4)
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
        assert not seen
        run(pipe)
    assert len(seen) == 8


@pytest.mark.parametrize("error", RAISED)
def test_in_a_weak_pass(error: type[BaseException]) -> None:
    pipe = build("wan")

    def stop(call: AttentionCall) -> None:
        raise error

    config = EnhanceConfig(sites="blocks.1.attn1", start=0.0)
    with (
        unchanged(pipe),
        pytest.raises(error),
        enhancement(pipe, config),
        intercept(pipe, stop, "blocks.1.attn1", guidance="weak"),
    ):
        run(pipe)


def test_with_another_function_mode_around_the_pipeline() -> None:
    pipe = build("wan")

    def stop(call: AttentionCall) -> None:
        raise KeyboardInterrupt

    with unchanged(pipe), pytest.raises(KeyboardInterrupt), intercept(pipe, stop), torch.device("cpu"):
        run(pipe)
    assert not any(isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack())


def _blocks(pipe: Any) -> list[Callable[[], Any]]:
    return [
        lambda: intercept(pipe, look),
        lambda: intercept(pipe.transformer, look),
        lambda: enhancement(pipe, EnhanceConfig(sites="blocks.1.attn1", start=0.0, scale=1.0)),
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1)], ids=str)
def test_in_any_order_of_leaving(order: tuple[int, ...]) -> None:
    pipe = build("wan")
    with unchanged(pipe):
        stacks = []
        for block in _blocks(pipe):
            stacks.append(ExitStack())
            stacks[-1].enter_context(block())
        run(pipe)
        for index in order:
            stacks[index].close()
            run(pipe)


def test_of_two_models_in_any_order() -> None:
    one, two = build("wan"), build("wan", 1)
    with unchanged(one), unchanged(two):
        first, second = ExitStack(), ExitStack()
        seen = first.enter_context(intercept(one, Record()))
        second.enter_context(intercept(two, Record()))
        run(one)
        run(two)
        first.close()
        run(two)
        second.close()
        assert len(list(seen.records())) > 0


@pytest.mark.parametrize("error", RAISED)
def test_of_a_generator_that_is_closed_or_thrown_into(error: type[BaseException]) -> None:
    pipe = build("wan")

    def frames() -> Iterator[torch.Tensor]:
        with intercept(pipe, look):
            yield run(pipe)
            yield run(pipe)

    with unchanged(pipe):
        held = frames()
        next(held)
        with intercept(pipe, look):
            run(pipe)
            with pytest.raises(error):
                held.throw(error)
            run(pipe)


def test_of_a_generator_that_is_let_go() -> None:
    pipe = build("wan")

    def frames() -> Iterator[torch.Tensor]:
        with intercept(pipe, look):
            yield run(pipe)

    with unchanged(pipe):
        held = frames()
        next(held)
        del held
        gc.collect()


def test_the_model_is_freed_after_an_interrupt() -> None:
    pipe = build("wan")
    gone = weakref.ref(pipe.transformer)

    def stop(call: AttentionCall) -> None:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), intercept(pipe, stop):
            run(pipe)
    del pipe
    gc.collect()
    assert gone() is None


def _compiles() -> bool:
    calls: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(1)
        return graph.forward

    torch._dynamo.reset()
    torch.compile(lambda x: x * 2 + 1, backend=backend)(torch.ones(3))
    return bool(calls)


@pytest.mark.parametrize("fails", [False, True], ids=["leaving", "raising"])
def test_blocks_of_two_threads_that_overlap(fails: bool) -> None:
    """The one that was entered first is left first; compiled code runs compiled again afterwards."""
    one, two = build("wan"), build("wan", 1)
    entered, both = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    def hold(pipe: Any, before: Callable[[], Any], inside: Callable[[], Any]) -> None:
        try:
            before()
            with intercept(pipe, look):
                run(pipe)
                inside()
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError as error:
            caught.append(error)

    assert _compiles()
    with unchanged(one), unchanged(two):
        first = threading.Thread(target=hold, args=(one, lambda: None, lambda: (entered.set(), both.wait())))
        second = threading.Thread(target=hold, args=(two, entered.wait, lambda: (both.set(), first.join())))
        first.start()
        second.start()
        first.join()
        second.join()
    assert len(caught) == (2 if fails else 0)
    assert _compiles()


def test_layers_around_a_method_go_one_by_one() -> None:
    class Thing:
        def word(self, end: str) -> str:
            return "plain" + end

    thing, first, second = Thing(), ExitStack(), ExitStack()
    first.enter_context(around(thing, "word", lambda proceed, end: f"<{proceed(end)}>"))
    second.enter_context(around(thing, "word", lambda proceed, end: f"[{proceed(end)}]"))
    assert thing.word("!") == "[<plain!>]"
    first.close()
    assert thing.word("!") == "[plain!]"
    second.close()
    assert thing.word("!") == "plain!"
    assert not vars(thing)
