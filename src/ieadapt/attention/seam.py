"""The seam: what is installed on a model while at least one interception is open.

Forward hooks on attention modules say which site is running; a `TorchFunctionMode` catches
`torch.nn.functional.scaled_dot_product_attention` there. No processor is replaced or copied: each model has its own,
and all of them end in this one function, behind rotary embedding and normalisation of queries and keys. A function
mode sees the call wherever the function was imported; a patched attribute would miss modules that hold it by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ieadapt.attention.blocks import bound_arguments, passed_over, refuse_bypasses
from ieadapt.attention.calls import AttentionCall, Intervention, Visit, attention_call
from ieadapt.attention.denoiser_calls import DenoiserCall, DenoiserWrapper, Prefix, prediction_of, with_prediction
from ieadapt.attention.discovery import denoisers_of, site_modules
from ieadapt.attention.families import family_of
from ieadapt.attention.restore import around, attribute, eagerly, function_mode
from ieadapt.attention.run_state import RunState
from ieadapt.attention.sites import AttentionSite, Guidance, StepWindow, Stream
from ieadapt.errors import FailureError, UsageError

_SEAM = "_ieadapt_seam"


@dataclass(eq=False)
class Interception:
    """One intervention on some sites, rows and heads in a window of steps, and what became of it.

    Attributes:
        fired: how often it was called.
        passes: how many passes of the denoiser it was meant for.
    """

    intervention: Intervention
    sites: frozenset[AttentionSite]
    window: StepWindow
    guidance: tuple[Guidance, ...]
    heads: Sequence[int] | None
    streams: Sequence[Stream] | None
    fired: int = 0
    passes: int = 0

    def acts(self, call: DenoiserCall) -> bool:
        """Whether the intervention is meant for this pass: its step, and rows that it has.

        Raises:
            FailureError: nobody knows which rows of the pass are conditional.
        """
        if not self.window.contains(call.step, call.steps):
            return False
        if "unknown" in call.rows.guidance and "unknown" not in self.guidance and "weak" not in self.guidance:
            raise FailureError(
                "the pipeline does not say which rows of this call are conditional",
                expected="a named call, a family of the table, or two encoded prompts that differ",
                got=f"{len(call.rows)} rows",
                where=type(call.pipeline).__name__,
                remedy='intercept all rows with guidance="all", or describe the model in ieadapt/attention/families.py',
            )
        return not set(self.guidance).isdisjoint(call.rows.guidance)

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
        part = call.restricted(None if len(rows) == len(call.rows) else rows, self.heads)
        earlier = tuple(before for each in call.earlier if (before := self.part(each)) is not None)
        return replace(part, earlier=earlier) if call.earlier else part


class Seam:
    """Hooks, run state and open interceptions of one model. Shared by all blocks that are open on it."""

    def __init__(self, denoisers: dict[str, nn.Module]) -> None:
        self.denoisers = denoisers
        self.sites = site_modules(denoisers)
        self.run = RunState()
        self.interceptions: list[Interception] = []
        self.run.streams = lambda: next((e.streams for e in reversed(self.interceptions) if e.streams), None)
        self.wrappers: list[tuple[DenoiserWrapper, dict[nn.Module, Prefix]]] = []
        self._thread = threading.get_ident()
        self._visits: list[Visit] = []
        self._calls: list[DenoiserCall] = []
        self._weak = False
        self._blocks = 0
        self.passes = 0
        self._hooks = ExitStack()

    @contextmanager
    def open(self, model: DiffusionPipeline | nn.Module) -> Iterator[None]:
        """Keep the hooks on the model; the last block that is left, in whatever order, removes exactly these."""
        self._require_thread()
        if not self._blocks:
            self._install()
        self._blocks += 1
        try:
            with self.run.observing(model) if isinstance(model, DiffusionPipeline) else ExitStack():
                yield
        finally:
            self._blocks -= 1
            if not self._blocks:
                self._hooks.close()

    def _install(self) -> None:
        with ExitStack() as stack:
            for denoiser in self.denoisers.values():
                refuse_bypasses(denoiser, self.sites)
                stack.enter_context(self.run.naming_calls(denoiser))
                stack.enter_context(attribute(denoiser, _SEAM, self))
                stack.enter_context(around(denoiser, "forward", self._forget_if_interrupted))
                _hook(stack, denoiser, self._enter_denoiser, self._leave_denoiser)
            for module in self.sites:
                _hook(stack, module, self._enter_site, self._leave_site)
            stack.enter_context(eagerly())  # compiled code could not be seen
            stack.enter_context(function_mode(_CatchAttention(self._attention)))
            self._hooks = stack.pop_all()

    @contextmanager
    def wrapping(self, wrapper: DenoiserWrapper, perturbed: Collection[AttentionSite]) -> Iterator[list[Prefix]]:
        """Show every full pass to a wrapper; its weak passes replay what comes before the perturbed sites."""
        prefixes: dict[nn.Module, Prefix] = {}
        entry = (wrapper, prefixes)
        with ExitStack() as stack:
            for denoiser in self.denoisers.values():
                inside = set(denoiser.modules())
                own = [module for module, site in self.sites.items() if site in perturbed and module in inside]
                if own:
                    prefixes[denoiser] = Prefix(denoiser, family_of(denoiser), lambda: self._weak)
                    stack.enter_context(prefixes[denoiser].recording(own))
            self.wrappers.append(entry)
            try:
                yield list(prefixes.values())
            finally:
                self.wrappers.remove(entry)

    def weak(self) -> AbstractContextManager[None]:
        """Calls of the denoiser inside the block are extra, perturbed passes: rows are `weak`, no step is counted."""
        return attribute(self, "_weak", True)

    def _require_thread(self) -> None:
        """Refuse a call from another thread than the one that opened the block: function modes are a thread's own."""
        if threading.get_ident() != self._thread:
            raise FailureError(
                "the model is being intercepted by another thread",
                expected="one thread per model while an interception is open",
                remedy="enter the `with` block in the thread that calls the pipeline",
            )

    def _forget_if_interrupted(self, proceed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Forget the pass that Ctrl-C, SystemExit or GeneratorExit ends: PyTorch's hooks do not hear of these."""
        try:
            return proceed(*args, **kwargs)
        except Exception:
            raise
        except BaseException:
            self._calls.clear()
            self._visits.clear()
            raise

    def _enter_denoiser(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._require_thread()
        refuse_bypasses(module)
        family, run, arguments = family_of(module), self.run, bound_arguments(module, args, kwargs)
        grid = family.grid(module, arguments) if family.grid else None
        batch = grid.batch if grid else next(v.shape[0] for v in arguments.values() if isinstance(v, Tensor) and v.ndim)
        if not self._weak:
            run.denoiser_begins()
        rows = run.rows(family, arguments, batch, self._weak)
        padding = run.padding(family, arguments, rows)
        call = DenoiserCall(
            module, family, arguments, grid, rows, run.step, run.steps, run.pipeline, self.weak, padding
        )
        self._calls.append(call)
        self.passes += 1
        call.acting.extend(entry for entry in self.interceptions if entry.acts(call))

    def _leave_denoiser(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Runs after an exception too; then there is no output and nothing but the clean-up to do."""
        if not self._calls:
            return None
        call = self._calls.pop()
        if output is None:
            self._visits.clear()
            return None
        self._require_all_ran(call)
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

    def _require_all_ran(self, call: DenoiserCall) -> None:
        """Refuse a pass in which a planned site did not run: a step cache, known or not, computed something else.

        Planned are the sites of every intervention that acts in the pass, and where a wrapper compares passes, the
        sites that it perturbs; not those inside blocks that a pass of ours leaves out or replays.

        Raises:
            FailureError: with the sites.
        """
        own = {site for module, site in self.sites.items() if module in call.modules}
        planned = {site for entry in call.acting for site in entry.sites} & own
        for entry in call.acting:
            entry.passes += not own.isdisjoint(entry.sites)
        for _, prefixes in () if self._weak else self.wrappers:
            if call.module in prefixes:
                compared = prefixes[call.module].perturbed
                planned |= {site for module, site in self.sites.items() if module in compared}
        missing = planned - call.visited
        over = passed_over(call.module) if missing else ()
        names = [site.name for module, site in self.sites.items() if site in missing and module not in over]
        if names:
            raise FailureError(
                f"{len(names)} of {len(planned)} planned attention sites did not run in this pass",
                expected="every chosen site in every pass of the window",
                got="a pass that was answered from a cache, or a model that does not run these sites",
                where=f"step {call.step}: " + ", ".join(names[:3]) + (", ..." if len(names) > 3 else ""),
                remedy="switch step caches off (pipe.transformer.disable_cache(); TeaCache, cache-dit and the like), "
                "or choose sites that the model runs",
            )

    def _enter_site(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._visits.append(Visit(self.sites[module], module))

    def _leave_site(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not self._visits or self._visits[-1].module is not module:
            return
        visit = self._visits.pop()
        if output is None or not self._calls:
            return
        if visit.attentions:
            self._calls[-1].visited.add(visit.site)
        elif self._acting(visit.site):
            raise FailureError(
                "this site's attention did not go through PyTorch's scaled_dot_product_attention",
                got=f"the processor {type(visit.module.processor).__name__}",
                where=visit.site.name,
                remedy="switch attention slicing and other backends off: pipe.disable_attention_slicing(), "
                'set_attention_backend("native"), no xformers; linear attention has no map, so choose other sites',
            )

    def _acting(self, site: AttentionSite) -> list[Interception]:
        return [entry for entry in self._calls[-1].acting if site in entry.sites]

    def _attention(self, attend: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Called for every scaled dot-product attention inside the block, the pipeline's other models included."""
        if not self._visits or not self._calls:
            return attend(*args, **kwargs)
        visit, outer = self._visits[-1], self._calls[-1]
        visit.attentions += 1
        acting = self._acting(visit.site)
        if not acting:
            return attend(*args, **kwargs)
        call = attention_call(outer, visit, attend, args, kwargs)
        visit.calls.append(call)
        # Interventions compute in the precision of what they are given, whatever autocast would make of it.
        with torch.autocast(call.query.device.type, enabled=False):
            for entry in acting:
                part = entry.part(call)
                if part is None:
                    continue
                entry.fired += 1
                result = entry.intervention(part)
                if result is not None:
                    _require_form(result, part, entry)
                    call = call.with_output(result if part is call else call.replaced([(part, result)]))
                    outer.changed_by.append(visit.site.name)
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


def _require_form(result: Any, call: AttentionCall, entry: Interception) -> None:
    where = f"{entry.intervention!r} at {call.site.name}"
    if not isinstance(result, Tensor):
        raise UsageError(
            "an intervention returned neither a tensor nor None",
            expected="None (it looked), or the attention output to use instead",
            got=type(result).__name__,
            where=where,
        )
    expected = (*call.query.shape[:-1], call.value.shape[-1])
    if tuple(result.shape) != expected or result.dtype != call.value.dtype:
        raise FailureError(
            "an intervention returned a tensor of another form",
            expected=f"{expected} {call.value.dtype}",
            got=f"{tuple(result.shape)} {result.dtype}",
            where=where,
            remedy="return (row, head, query, head_dim) in the value's dtype, or None",
        )


def _hook(stack: ExitStack, module: nn.Module, enter: Callable[..., Any], leave: Callable[..., Any]) -> None:
    # always_call: the hook that closes a pass has to run after an exception too, else the next call would be inside it.
    stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(leave, with_kwargs=True, always_call=True).remove)


@contextmanager
def open_seam(model: DiffusionPipeline | nn.Module) -> Iterator[Seam]:
    """The seam of a model: the one already open on its denoiser, or a new one for the length of the block."""
    denoisers = denoisers_of(model)
    open_one = next((seam for part in denoisers.values() if (seam := vars(part).get(_SEAM)) is not None), None)
    seam = open_one or Seam(denoisers)
    with seam.open(model):
        yield seam
