"""Prefix reuse: what a weak pass has in common with the pass before it is replayed, not computed.

Until the first perturbed site a weak pass equals the pass that it is compared with. So the outputs of the denoiser's
top-level stages before that site are kept for the length of one step and returned again in the weak pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ieadapt.attention.families import Family
from ieadapt.attention.restore import attribute


class Prefix:
    """The stages of one denoiser before the first of some sites, and their outputs in the latest full pass.

    Args:
        denoiser: the denoiser.
        family: its row in the family table.
        modules: the attention modules that a weak pass perturbs.
        weak: tells whether a weak pass is running; its outputs are not kept.

    Attributes:
        stages: the stages that a weak pass need not compute.
        replayed: how many stages weak passes have replayed so far.
    """

    def __init__(
        self, denoiser: nn.Module, family: Family, modules: Collection[nn.Module], weak: Callable[[], bool]
    ) -> None:
        stages = family.stages(denoiser)
        touched = [any(module in modules for module in stage.modules()) for stage in stages]
        outside = set(modules) - {module for stage in stages for module in stage.modules()}
        first = touched.index(True) if True in touched and not outside else 0
        self.stages: Sequence[nn.Module] = stages[:first]
        self.replayed = 0
        self._weak = weak
        self._all_needed = family.skips == "kept"
        self._outputs: dict[nn.Module, Any] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the stages' outputs of every full pass inside the block; of a plain chain only the last is needed."""
        watched = self.stages if self._all_needed else self.stages[-1:]
        with ExitStack() as stack:
            for stage in watched:
                stack.callback(stage.register_forward_hook(self._keep).remove)
            try:
                yield
            finally:
                self._outputs.clear()

    def _keep(self, stage: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if not self._weak():
            self._outputs[stage] = output

    @contextmanager
    def replaying(self, take: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Inside the block the stages return what they returned last, cut to some rows by `take`."""
        kept = dict(self._outputs)
        with ExitStack() as stack:
            for stage in self.stages if kept else ():
                output = map_tensors(kept[stage if self._all_needed else self.stages[-1]], take)
                stack.enter_context(attribute(stage, "forward", _returning(output)))
                self.replayed += 1
            yield


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
