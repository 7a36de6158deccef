"""One call of the denoiser: its arguments, its rows, and a second pass over some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ieadapt.attention.families import Family
from ieadapt.attention.layouts import LatentGrid
from ieadapt.attention.prefix import Prefix, map_tensors
from ieadapt.attention.rows import RowMap
from ieadapt.attention.sites import AttentionSite
from ieadapt.errors import FailureError, UsageError


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
        found: Tensor | None = self.arguments.get(self.family.latents)
        if found is None:
            raise UsageError(
                "where this denoiser is given its latents is not known",
                expected=f"an argument {self.family.latents}",
                got=", ".join(self.arguments),
                where=type(self.module).__name__,
                remedy="describe the model in ieadapt/attention/families.py",
            )
        return found

    def forward_rows(self, rows: Sequence[int], latents: Tensor | None = None) -> Tensor:
        """A weak pass: the same call over these rows only. Its prediction, (row, ...) as the denoiser returns it.

        Args:
            rows: indices of denoiser rows.
            latents: of all rows, to be used instead of the call's own.

        Raises:
            FailureError: the call has a tensor argument of which the family's row does not say whether it is per row.
        """
        given = dict(self.arguments) | ({} if latents is None else {self.family.latents: latents})
        arguments = {name: self._rows_of(name, value, rows) for name, value in given.items()}
        with ExitStack() as stack:
            if self.prefix is not None:
                share = len(rows) / len(self.rows)
                stack.enter_context(self.prefix.replaying(lambda tensor: self._chosen(tensor, rows), share))
            stack.enter_context(self.weak())
            stack.enter_context(torch.no_grad())
            return prediction_of(self.module(**arguments))

    def _rows_of(self, name: str, value: Any, rows: Sequence[int]) -> Any:
        if len(rows) == len(self.rows) or name in self.family.shared:
            return value
        return map_tensors(value, lambda tensor: self._take(name, tensor, rows))

    def _take(self, name: str, tensor: Tensor, rows: Sequence[int]) -> Tensor:
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
        return self._chosen(tensor, rows)

    def _chosen(self, tensor: Tensor, rows: Sequence[int]) -> Tensor:
        if len(rows) == len(self.rows):
            return tensor
        return tensor.unflatten(0, (len(self.rows), -1))[list(rows)].flatten(0, 1)


@runtime_checkable
class DenoiserWrapper(Protocol):
    """Called with every denoiser call and its prediction: None means it looked, a tensor replaces the prediction."""

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> Tensor | None:
        """Look at the call (return None) or give the prediction to use instead."""
        ...


def prediction_of(output: Any) -> Tensor:
    """The predicted tensor in a denoiser's return value (tuple or diffusers output)."""
    return output[0]


def with_prediction(output: Any, prediction: Tensor) -> Any:
    """A denoiser's return value with another prediction in it, of the same type."""
    if isinstance(output, tuple):
        return (prediction, *output[1:])
    return type(output)(**{**output, next(iter(output)): prediction})
