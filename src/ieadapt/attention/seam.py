"""The seam: what is installed on a model while at least one interception is open.

Forward hooks on attention modules say which site is running; a `TorchFunctionMode`, active only inside the denoiser's
forward pass, catches `torch.nn.functional.scaled_dot_product_attention` there. No processor is replaced or copied.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ieadapt.attention.calls import AttentionCall, Intervention, Visit, attention_call
from ieadapt.attention.denoiser_calls import DenoiserCall, DenoiserWrapper, prediction_of, with_prediction
from ieadapt.attention.discovery import denoisers_of, site_modules
from ieadapt.attention.families import family_of
from ieadapt.attention.prefix import Prefix
from ieadapt.attention.rows import Guidance, StepWindow
from ieadapt.attention.run_state import RunState
from ieadapt.attention.sites import AttentionSite
from ieadapt.errors import FailureError, UsageError

_SEAM = "_ieadapt_seam"
NATIVE_BACKENDS = (None, "native", "_native_math", "_native_efficient", "_native_flash", "_native_cudnn")


@dataclass
class Interception:
    """One intervention on some sites, rows and heads in a window of steps, and how often each site fired."""

    intervention: Intervention
    sites: frozenset[AttentionSite]
    window: StepWindow
    guidance: tuple[Guidance, ...]
    heads: tuple[int, ...] | None
    fired: dict[AttentionSite, int] = field(default_factory=dict)

    def wants(self, site: AttentionSite, call: DenoiserCall) -> bool:
        """Whether the intervention acts at this site in this pass."""
        acts = site in self.sites and self.window.contains(call.step, call.steps)
        return acts and not set(self.guidance).isdisjoint(call.rows.guidance)

    def part(self, call: AttentionCall) -> AttentionCall | None:
        """The rows and heads of a call that the intervention is given, or None where it has no such row.

        Raises:
            UsageError: a head that the site does not have.
        """
        missing = [head for head in self.heads or () if not 0 <= head < call.query.shape[1]]
        if missing:
            raise UsageError(
                "the site has no such head", expected=f"0..{call.query.shape[1] - 1}", got=missing, where=call.site.name
            )
        rows = call.rows.denoiser_rows(self.guidance)
        if not rows:
            return None
        part = call.part(None if len(rows) == len(call.rows) else rows, self.heads)
        earlier = tuple(before for each in call.earlier if (before := self.part(each)) is not None)
        return replace(part, earlier=earlier) if call.earlier else part


class Seam:
    """Hooks, run state and open interceptions of one model. Shared by nested `intercept` blocks."""

    def __init__(self, denoisers: dict[str, nn.Module]) -> None:
        self.denoisers = denoisers
        self.sites = site_modules(denoisers)
        self.run = RunState()
        self.interceptions: list[Interception] = []
        self.wrappers: list[tuple[DenoiserWrapper, dict[nn.Module, Prefix]]] = []
        self._thread = threading.get_ident()
        self._visits: list[Visit] = []
        self._calls: list[DenoiserCall] = []
        self._modes: list[TorchFunctionMode] = []
        self._weak = 0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Install all hooks; remove exactly these afterwards, whatever happens."""
        self._refuse_other_backends()
        with ExitStack() as stack:
            for denoiser in self.denoisers.values():
                stack.enter_context(self.run.naming_calls(denoiser))
                stack.enter_context(_marked(denoiser, self))
                _hook(stack, denoiser, self._enter_denoiser, self._leave_denoiser)
            for module, site in self.sites.items():
                _hook(stack, module, self._enter_site(site), self._leave_site)
            if "torch._dynamo" in sys.modules:  # something may be compiled: run it eagerly, so that it can be seen
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield

    @contextmanager
    def wrapping(self, wrapper: DenoiserWrapper, perturbed: Collection[AttentionSite]) -> Iterator[list[Prefix]]:
        """Show every full pass to a wrapper; its weak passes replay what comes before the perturbed sites."""
        touched = [module for module, site in self.sites.items() if site in perturbed]
        prefixes = {
            denoiser: Prefix(denoiser, family_of(denoiser), own, lambda: self._weak > 0)
            for denoiser in self.denoisers.values()
            if (own := [module for module in touched if module in set(denoiser.modules())])
        }
        entry = (wrapper, prefixes)
        with ExitStack() as stack:
            for prefix in prefixes.values():
                stack.enter_context(prefix.recording())
            self.wrappers.append(entry)
            try:
                yield list(prefixes.values())
            finally:
                self.wrappers.remove(entry)

    @contextmanager
    def weak(self) -> Iterator[None]:
        """Calls of the denoiser inside the block are extra, perturbed passes: rows are `weak`, no step is counted."""
        self._weak += 1
        try:
            yield
        finally:
            self._weak -= 1

    def require_thread(self) -> None:
        """Refuse a call from another thread than the one that opened the block."""
        if threading.get_ident() != self._thread:
            raise FailureError(
                "the model is being intercepted by another thread",
                expected="one thread per model while an interception is open",
                remedy="enter the `with` block in the thread that calls the pipeline",
            )

    def _refuse_other_backends(self) -> None:
        for module, site in self.sites.items():
            backend = getattr(module.processor, "_attention_backend", None)
            if getattr(backend, "value", backend) not in NATIVE_BACKENDS:
                raise UsageError(
                    "this attention backend bypasses ieadapt",
                    expected="the native backend (PyTorch's scaled_dot_product_attention)",
                    got=getattr(backend, "value", backend),
                    where=site.name,
                    remedy='call pipe.transformer.set_attention_backend("native") first',
                )

    def _enter_denoiser(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.require_thread()
        family = family_of(module)
        arguments = _bound_arguments(module, args, kwargs)
        grid = family.grid(module, arguments) if family.grid else None
        batch = grid.batch if grid else next(v.shape[0] for v in arguments.values() if isinstance(v, Tensor) and v.ndim)
        if not self._weak:
            self.run.advance()
        rows = self.run.weak_rows(batch) if self._weak else self.run.rows(family, batch)
        self._calls.append(
            DenoiserCall(
                module,
                family,
                arguments,
                grid,
                rows,
                self.run.step,
                self.run.pipeline,
                self.weak,
                steps=self.run.total,
            )
        )
        mode = _CatchAttention(self._attention)
        mode.__enter__()
        self._modes.append(mode)

    def _leave_denoiser(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Runs after an exception too; then there is no output and nothing but the clean-up to do."""
        if not self._modes:
            return None
        self._modes.pop().__exit__(None, None, None)
        call = self._calls.pop()
        if output is None:
            self._visits.clear()
            return None
        prediction = prediction_of(output)
        changed = call.changed_by
        for wrapper, prefixes in [] if self._weak else self.wrappers:
            result = wrapper(replace(call, prefix=prefixes.get(module)), prediction)
            if result is not None:
                prediction, changed = result, [*changed, repr(wrapper)]
        if not changed:
            return None
        if not torch.isfinite(prediction).all():
            raise FailureError(
                "the denoiser's prediction is not finite",
                where=f"step {call.step}, changed at {', '.join(dict.fromkeys(changed))}",
                remedy="lower the scale, choose fewer sites, or use float32 or bfloat16 instead of float16",
            )
        return with_prediction(output, prediction)

    def _enter_site(self, site: AttentionSite) -> Callable[..., None]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._visits.append(Visit(site, module))

        return enter

    def _leave_site(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not self._visits or self._visits[-1].module is not module:
            return
        visit = self._visits.pop()
        if output is None or visit.seen or not self._calls or not self._wanting(visit.site):
            return
        raise FailureError(
            "this site's attention did not go through PyTorch's scaled_dot_product_attention",
            got=f"the processor {type(visit.module.processor).__name__}",
            where=visit.site.name,
            remedy="switch attention slicing and other backends off: pipe.disable_attention_slicing(), "
            'set_attention_backend("native"), no xformers',
        )

    def _wanting(self, site: AttentionSite) -> list[Interception]:
        return [entry for entry in self.interceptions if entry.wants(site, self._calls[-1])]

    def _attention(self, attend: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Called for every scaled dot-product attention inside a denoiser's forward pass."""
        if not self._visits:
            return attend(*args, **kwargs)
        visit = self._visits[-1]
        visit.seen += 1
        wanting = self._wanting(visit.site)
        if not wanting:
            return attend(*args, **kwargs)
        denoiser_call = self._calls[-1]
        call = attention_call(denoiser_call, visit, attend, args, kwargs)
        visit.calls.append(call)
        for entry in wanting:
            part = entry.part(call)
            if part is None:
                continue
            entry.fired[visit.site] = entry.fired.get(visit.site, 0) + 1
            result = entry.intervention(part)
            if result is not None:
                result = _same_form(result, part, entry)
                call = call.with_output(result if part is call else call.replaced([(part, result)]))
                denoiser_call.changed_by.append(visit.site.name)
        return call.output


class _CatchAttention(TorchFunctionMode):
    """Hands scaled dot-product attention to the seam and lets every other function pass."""

    def __init__(self, handler: Callable[[Callable[..., Tensor], tuple[Any, ...], dict[str, Any]], Tensor]) -> None:
        super().__init__()
        self._handler = handler

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._handler(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _same_form(result: Tensor, call: AttentionCall, entry: Interception) -> Tensor:
    expected = (*call.query.shape[:-1], call.value.shape[-1])
    if tuple(result.shape) != expected or result.dtype != call.value.dtype:
        raise FailureError(
            "an intervention returned a tensor of another form",
            expected=f"{expected} {call.value.dtype}",
            got=f"{tuple(result.shape)} {result.dtype}",
            where=f"{entry.intervention!r} at {call.site.name}",
            remedy="return (row, head, query, head_dim) in the value's dtype, or None",
        )
    return result


def _bound_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    arguments = dict(bound.arguments)
    arguments.pop("self", None)
    return {name: value for name, value in arguments.items() if name != "kwargs"} | arguments.get("kwargs", {})


def _hook(stack: ExitStack, module: nn.Module, enter: Callable[..., Any], leave: Callable[..., Any]) -> None:
    stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(leave, with_kwargs=True, always_call=True).remove)


@contextmanager
def _marked(denoiser: nn.Module, seam: Seam) -> Iterator[None]:
    vars(denoiser)[_SEAM] = seam
    try:
        yield
    finally:
        del vars(denoiser)[_SEAM]


@contextmanager
def open_seam(model: DiffusionPipeline | nn.Module) -> Iterator[Seam]:
    """The seam of a model: the one already open on its denoiser, or a new one for the length of the block."""
    denoisers = denoisers_of(model)
    seam = next((seam for part in denoisers.values() if (seam := vars(part).get(_SEAM)) is not None), None)
    with ExitStack() as stack:
        if seam is None:
            seam = Seam(denoisers)
            stack.enter_context(seam.installed())
        seam.require_thread()
        if isinstance(model, DiffusionPipeline) and seam.run.pipeline is None:
            stack.enter_context(seam.run.observing(model))
        yield seam
