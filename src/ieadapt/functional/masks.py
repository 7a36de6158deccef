"""Attention masks as PyTorch's scaled dot-product attention takes them, read block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ieadapt.errors import UsageError

Mask = Shaped[Tensor, "..."]
"""A boolean (True = attend) or additive mask, broadcastable to (batch, head, query, key)."""

MASKED_BIAS = -9984.0
"""An additive bias at or below this hides its key: -1e4, the bias that diffusers uses, as bfloat16 rounds it."""

HIDDEN_LOGIT = -1e30
"""Logit of a hidden key: finite, so that zero probability times logit stays zero."""


class Block(NamedTuple):
    """A rectangle of query rows: slices of batch, head and query."""

    batch: slice
    head: slice
    query: slice


@dataclass(frozen=True)
class KeyMask:
    """Which keys each query row may attend to, and by what bias.

    Args:
        tensor: boolean (True = attend) or additive, broadcastable to (batch, head, query, key); None hides nothing.
        n_keys: number of keys.

    Raises:
        UsageError: when `tensor` has more than four axes or a key axis of another length.
    """

    tensor: Mask | None
    n_keys: int

    def __post_init__(self) -> None:
        if self.tensor is None:
            return
        if self.tensor.ndim > 4 or self.tensor.shape[-1:] not in {(1,), (self.n_keys,)}:
            raise UsageError(
                "the attention mask does not fit the keys",
                expected=f"a shape that broadcasts to (batch, head, query, {self.n_keys})",
                got=tuple(self.tensor.shape),
                where="mask",
            )

    @property
    def per_query(self) -> bool:
        """Whether query rows of one head may see different keys."""
        return self.tensor is not None and self.tensor.ndim > 1 and self.tensor.shape[-2] > 1

    def of_block(self, block: Block) -> Tensor | None:
        """Return the part of `tensor` for a block: four axes, those of length 1 kept."""
        if self.tensor is None:
            return None
        four = self.tensor[(None,) * (4 - self.tensor.ndim)]
        parts = (part if size > 1 else slice(None) for part, size in zip(block, four.shape, strict=False))
        return four[tuple(parts)].expand(*(-1,) * 3, self.n_keys)

    def keep(self, block: Block, keys: slice = slice(None)) -> Bool[Tensor, "_ _ _ key"] | None:
        """Return which of the given keys a block's rows may attend to, or None for all of them."""
        mask = self.of_block(block)
        if mask is None:
            return None
        return (mask if mask.dtype == torch.bool else mask > MASKED_BIAS)[..., keys]

    def apply(self, logits: Float[Tensor, "batch head query key"], block: Block) -> Int[Tensor, "_ _ _"] | None:
        """Add the bias to a block's logits in place, hide what is masked, and return the keys left of each row."""
        mask, kept = self.of_block(block), self.keep(block)
        if mask is None or kept is None:
            return None
        if mask.dtype != torch.bool:
            logits.add_(mask)
        logits.masked_fill_(~kept, HIDDEN_LOGIT)
        return kept.sum(dim=-1)
