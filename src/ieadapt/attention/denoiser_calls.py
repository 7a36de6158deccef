"""One call of the denoiser: its arguments, its rows, and a second pass over some of them that replays what it can."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ieadapt.attention.blocks import Bypass
from ieadapt.attention.families import Family, LatentGrid
from ieadapt.attention.restore import attribute
from ieadapt.attention.run_state import RowMap
from ieadapt.attention.sites import AttentionSite
from ieadapt.errors import FailureError, UsageError

Mark = Any
"""A moment: seconds of the wall clock, or an event in the GPU's stream."""


class Clock:
    """Adds up marked spans, in seconds; on CUDA by events in the stream, elsewhere by the wall clock.

    It does not make a GPU wait: spans are marked as they pass and added up when somebody asks.

    Args:
        device: where the work runs.

    Example:
        >>> import torch
        >>> clock = Clock(torch.device("cpu"))
        >>> with clock.span():
        ...     _ = torch.zeros(3) + 1
        >>> clock.seconds > 0
        True
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._spans: list[tuple[Mark, Mark, int | float]] = []
        self._known = 0.0

    def now(self) -> Mark:
        """The present moment of the device's work."""
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, begin: Mark, end: Mark, weight: int | float = 1.0) -> None:
        """Count the span between two moments, times a weight."""
        self._spans.append((begin, end, weight))

    @contextmanager
    def span(self) -> Iterator[None]:
        """Count the time inside the block."""
        begin = self.now()
        try:
            yield
        finally:
            self.add(begin, self.now())

    @property
    def seconds(self) -> float:
        """All spans added up; waits for the device."""
        for begin, end, weight in self._spans:
            if self._on_gpu:
                end.synchronize()
            self._known += weight * (begin.elapsed_time(end) / 1000 if self._on_gpu else end - begin)
        self._spans.clear()
        return self._known


class Prefix:
    """The stages of one denoiser before the first of some sites, and their outputs in the latest full pass.

    Until the first perturbed site a weak pass equals the pass that it is compared with. So the outputs of the
    denoiser's top-level stages before that site are kept for the length of one step and returned again in the weak
    pass: replayed, not computed.

    Args:
        denoiser: the denoiser.
        family: its row in the family table.
        weak: whether a weak pass is running; its outputs are not kept.

    Attributes:
        denoiser: the denoiser.
        stages: the stages that a weak pass need not compute.
        perturbed: the attention modules that it perturbs.
        replayed: how many stages weak passes have replayed so far.
        computed: how many they have computed.
        saved: the time that the replayed stages took in the full pass, in proportion to the rows of the weak pass.
    """

    def __init__(self, denoiser: nn.Module, family: Family, weak: Callable[[], bool]) -> None:
        self.denoiser = denoiser
        self._all_stages = family.stages(denoiser)
        self._weak = weak
        self._all_needed = family.skips == "kept"
        self._outputs: dict[nn.Module, Any] = {}
        self._hooks = ExitStack()
        self._span: tuple[Mark | None, Mark | None] = (None, None)
        self.replayed = self.computed = 0
        self.saved = Clock(next(denoiser.parameters()).device)
        self.stages: Sequence[nn.Module] = []
        self.perturbed: Sequence[nn.Module] = []

    def retarget(self, modules: Collection[nn.Module]) -> None:
        """Let weak passes perturb these attention modules from the next full pass on."""
        self._record(modules, self.before(modules), apart=not self._all_needed)
        if self.stages:
            self._hooks.callback(self.stages[0].register_forward_pre_hook(self._begin).remove)

    def retarget_each(self, modules: Collection[nn.Module]) -> None:
        """Let every weak pass perturb one of these modules (`only`); the output of every stage before any is kept."""
        self._record(modules, max((self.before([module]) for module in modules), key=len), apart=False)

    def before(self, modules: Collection[nn.Module]) -> Sequence[nn.Module]:
        """The stages that a weak pass need not compute if it perturbs these attention modules."""
        touched = [any(module in modules for module in stage.modules()) for stage in self._all_stages]
        outside = set(modules) - {module for stage in self._all_stages for module in stage.modules()}
        return self._all_stages[: touched.index(True) if True in touched and not outside else 0]

    @contextmanager
    def only(self, module: nn.Module) -> Iterator[None]:
        """Inside the block weak passes perturb this one of the modules of `retarget_each`."""
        with attribute(self, "stages", self.before([module])), attribute(self, "perturbed", [module]):
            yield

    def _record(self, modules: Collection[nn.Module], stages: Sequence[nn.Module], *, apart: bool) -> None:
        """Keep what these stages return in full passes; of a plain chain the last output is enough."""
        self.perturbed, self.stages = list(modules), stages
        self._outputs.clear()
        self._hooks.close()
        self._span = None, None
        for stage in stages[-1:] if apart else stages:
            self._hooks.callback(stage.register_forward_hook(self._keep).remove)

    @contextmanager
    def recording(self, modules: Collection[nn.Module]) -> Iterator[None]:
        """Keep what every full pass inside the block computes before the attention modules that weak passes perturb.

        Of a plain chain only the output of the last stage is needed.
        """
        try:
            self.retarget(modules)
            yield
        finally:
            self._hooks.close()
            self._outputs.clear()

    def _begin(self, stage: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not self._weak():
            self._span = self.saved.now(), None

    def _keep(self, stage: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if not self._weak():
            self._outputs[stage] = output
            if stage is self.stages[-1]:
                self._span = self._span[0], self.saved.now()

    @contextmanager
    def replaying(self, take: Callable[[Tensor], Tensor], share: int | float = 1.0) -> Iterator[None]:
        """Inside the block the stages return what they returned last.

        Args:
            take: cuts a tensor to the rows of the weak pass.
            share: rows of the weak pass per row of the full one.
        """
        outputs = self._cut(take)
        with ExitStack() as stack:
            for stage, output in zip(self.stages, outputs, strict=False):
                stack.enter_context(attribute(stage, "forward", Bypass(_given, output)))
            self.replayed += len(outputs)
            self.computed += len(self._all_stages) - len(outputs)
            begin, end = self._span
            if outputs and begin is not None and end is not None:
                self.saved.add(begin, end, share)
            yield

    def _cut(self, take: Callable[[Tensor], Tensor]) -> list[Any]:
        """What each stage returns in a weak pass: in a plain chain the last one's output, cut once for all."""
        if not self._outputs or not self.stages:
            return []
        if self._all_needed:
            return [tree_map_only(Tensor, take, self._outputs[stage]) for stage in self.stages]
        return [tree_map_only(Tensor, take, self._outputs[self.stages[-1]])] * len(self.stages)


def _given(output: Any, /, *args: Any, **kwargs: Any) -> Any:
    return output


@dataclass(frozen=True)
class DenoiserCall:
    """One call of a denoiser inside an open seam.

    Attributes:
        module: the denoiser.
        family: its row in the family table.
        arguments: the call's arguments by name.
        grid: the latent grid in tokens; None for a model outside the family table.
        rows: guidance branch, stream and video of every row of the batch.
        step: denoising step, from 0.
        steps: denoising steps of the run; None for a denoiser called by hand.
        pipeline: the pipeline that is running, or None.
        weak: opens a block in which denoiser calls are extra passes.
        prefix: the stages that a weak pass can replay, or None.
        changed_by: names of the sites where an intervention replaced the output in this call.
        padding: which text tokens of each row only fill it up, where that is known.
        visited: the sites that have run in this call.
        acting: the interceptions that are meant for this call.
    """

    module: nn.Module
    family: Family
    arguments: Mapping[str, Any]
    grid: LatentGrid | None
    rows: RowMap
    step: int
    steps: int | None
    pipeline: Any = field(repr=False)
    weak: Callable[[], AbstractContextManager[None]] = field(repr=False)
    padding: Tensor | None = field(default=None, repr=False)
    prefix: Prefix | None = field(default=None, repr=False)
    changed_by: list[str] = field(default_factory=list)
    visited: set[AttentionSite] = field(default_factory=set, repr=False)
    acting: list[Any] = field(default_factory=list, repr=False)

    @cached_property
    def modules(self) -> frozenset[nn.Module]:
        """All modules of the denoiser."""
        return frozenset(self.module.modules())

    @property
    def latents(self) -> Tensor:
        """The latents of all rows, as the denoiser is given them."""
        latents: Tensor | None = self.arguments.get(self.family.latents)
        if latents is None:
            raise UsageError(
                "where this denoiser is given its latents is not known",
                expected=f"an argument {self.family.latents}",
                got=", ".join(self.arguments),
                where=type(self.module).__name__,
                remedy="describe the model in ieadapt/attention/families.py",
            )
        return latents

    def forward_rows(self, rows: Sequence[int], latents: Tensor | None = None) -> Tensor:
        """A weak pass: the same call over these rows only. Its prediction, (row, ...) as the denoiser returns it.

        Args:
            rows: indices of denoiser rows.
            latents: of all rows, to be used instead of the call's own.

        Raises:
            FailureError: the call has a tensor argument of which the family's row does not say whether it is per row.
        """
        arguments = dict(self.arguments) | ({} if latents is None else {self.family.latents: latents})
        if len(rows) < len(self.rows):
            for name in [name for name in arguments if name not in self.family.shared]:
                arguments[name] = tree_map_only(Tensor, partial(self._take, name, rows), arguments[name])
        with ExitStack() as stack:
            if self.prefix is not None:
                share = len(rows) / len(self.rows)
                stack.enter_context(self.prefix.replaying(partial(self._chosen, rows), share))
            stack.enter_context(self.weak())
            stack.enter_context(torch.no_grad())
            return prediction_of(self.module(**arguments))

    def _take(self, name: str, rows: Sequence[int], tensor: Tensor) -> Tensor:
        """The rows of one tensor argument."""
        if tensor.ndim == 0:
            return tensor
        if name not in self.family.per_row or tensor.shape[0] % len(self.rows):
            raise FailureError(
                "a denoiser argument cannot be divided into the rows of the batch",
                expected=f"one of {sorted(self.family.per_row)} with a multiple of {len(self.rows)} entries",
                got=f"{name} of shape {tuple(tensor.shape)}",
                where=f"the {self.family.name} row of ieadapt/attention/families.py",
                remedy="add the argument to per_row or shared there",
            )
        return self._chosen(rows, tensor)

    def _chosen(self, rows: Sequence[int], tensor: Tensor) -> Tensor:
        """The entries of these rows, where a tensor has one, or a fixed number of them, per row."""
        if len(rows) == len(self.rows):
            return tensor
        return tensor.unflatten(0, (len(self.rows), -1))[list(rows)].flatten(0, 1)


DenoiserWrapper = Callable[[DenoiserCall, Tensor], Tensor | None]
"""Called with every denoiser call and its prediction: None means it looked, a tensor replaces the prediction."""


def prediction_of(output: Any) -> Tensor:
    """The predicted tensor in a denoiser's return value (tuple or diffusers output)."""
    return output[0]


def with_prediction(output: Any, prediction: Tensor) -> Any:
    """A denoiser's return value with another prediction in it, of the same type."""
    if isinstance(output, tuple):
        return (prediction, *output[1:])
    return type(output)(**{**output, next(iter(output)): prediction})
