"""Prefix reuse: what a weak pass has in common with the pass before it is replayed, not computed.

Until the first perturbed site a weak pass equals the pass that it is compared with. So the outputs of the denoiser's
top-level stages before that site are kept for the length of one step and returned again in the weak pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ieadapt.attention.bypasses import Bypass
from ieadapt.attention.families import Family
from ieadapt.attention.restore import attribute
from ieadapt.attention.timing import Clock, Mark


class Prefix:
    """The stages of one denoiser before the first of some sites, and their outputs in the latest full pass.

    Args:
        denoiser: the denoiser.
        family: its row in the family table.
        modules: the attention modules that a weak pass perturbs.
        weak: tells whether a weak pass is running; its outputs are not kept.

    Attributes:
        denoiser: the denoiser.
        stages: the stages that a weak pass need not compute.
        perturbed: the attention modules that it perturbs.
        replayed: how many stages weak passes have replayed so far.
        computed: how many they have computed.
        saved: the time that the replayed stages took in the full pass, in proportion to the rows of the weak pass.
    """

    def __init__(
        self, denoiser: nn.Module, family: Family, modules: Collection[nn.Module], weak: Callable[[], bool]
    ) -> None:
        self.denoiser = denoiser
        self._all_stages = family.stages(denoiser)
        self._weak = weak
        self._all_needed = family.skips == "kept"
        self._outputs: dict[nn.Module, Any] = {}
        self._hooks = ExitStack()
        self._recording = False
        self._span: tuple[Mark | None, Mark | None] = (None, None)
        self.replayed = self.computed = 0
        self.saved = Clock(next(denoiser.parameters()).device)
        self.stages: Sequence[nn.Module] = []
        self.perturbed: Sequence[nn.Module] = []
        self.retarget(modules)

    def retarget(self, modules: Collection[nn.Module]) -> None:
        """Let weak passes perturb these attention modules from the next full pass on."""
        self.perturbed = list(modules)
        touched = [any(module in modules for module in stage.modules()) for stage in self._all_stages]
        outside = set(modules) - {module for stage in self._all_stages for module in stage.modules()}
        first = touched.index(True) if True in touched and not outside else 0
        self.stages = self._all_stages[:first]
        self._outputs.clear()
        if self._recording:
            self._watch()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the stages' outputs of every full pass inside the block; of a plain chain only the last is needed."""
        self._recording = True
        self._watch()
        try:
            yield
        finally:
            self._recording = False
            self._hooks.close()
            self._outputs.clear()

    def _watch(self) -> None:
        self._hooks.close()
        if self.stages:
            self._hooks.callback(self.stages[0].register_forward_pre_hook(self._begin).remove)
        for stage in self.stages if self._all_needed else self.stages[-1:]:
            self._hooks.callback(stage.register_forward_hook(self._keep).remove)

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
                stack.enter_context(attribute(stage, "forward", Bypass(_returning(output))))
            self.replayed += len(outputs)
            self.computed += len(self._all_stages) - len(outputs)
            begin, end = self._span
            if outputs and begin is not None and end is not None:
                self.saved.add(begin, end, share)
            yield

    def _cut(self, take: Callable[[Tensor], Tensor]) -> list[Any]:
        """What each stage returns in a weak pass: in a plain chain the last one's output, cut once for all."""
        if not self._outputs:
            return []
        if self._all_needed:
            return [map_tensors(self._outputs[stage], take) for stage in self.stages]
        return [map_tensors(self._outputs[self.stages[-1]], take)] * len(self.stages)


def _returning(output: Any) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return output

    return forward


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of tuples, lists and dicts with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, change) for item in value)
    if isinstance(value, dict):
        return {key: map_tensors(item, change) for key, item in value.items()}
    return value
