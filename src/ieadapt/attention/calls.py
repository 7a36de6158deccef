"""What an intervention is given: one attention call, with its place in the model, the run and the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.attention.layouts import TokenLayout
from ieadapt.attention.rows import RowMap
from ieadapt.attention.sites import AttentionSite
from ieadapt.functional import (
    AttentionStatistics,
    MeasuredAttention,
    RowSample,
    Scope,
    VideoTokens,
    attention_statistics,
    energy,
    measured_attention,
)
from ieadapt.functional.kernels import KernelChoice

DEFAULT_MEMORY_LIMIT = 256 * 2**20


@dataclass(frozen=True)
class AttentionCall:
    """One call of scaled dot-product attention at one site.

    Tensors are (batch, heads, tokens, head_dim), after rotary embedding and QK-norm.

    Attributes:
        site: where.
        step: denoising step, from 0.
        fraction: step / number of steps, in [0, 1); 0 where the number of steps is not known.
        query: (row, head, query, dim).
        key: (row, head, key, dim).
        value: (row, head, key, dim).
        mask: bool (True attends) or additive, broadcastable to (row, head, query, key), or None.
        scale: factor on the logits.
        layout: which query tokens are video and which text; None for a model outside the family table.
        rows: guidance branch, stream and video of every row.
        attend: gives the attention output so far.
        source_rows: rows of the whole call that a restricted call holds, None if it is whole.
        earlier: calls that the same site made before this one in the same forward pass (Mochi calls once per row).
        steps: denoising steps of the run; None for a denoiser called by hand.
        own: whether `attend` is the model's plain attention over these very tensors, so that measuring may compute it.
    """

    site: AttentionSite
    step: int
    fraction: float
    query: Float[Tensor, "row head query dim"]
    key: Float[Tensor, "row head key dim"]
    value: Float[Tensor, "row head key value_dim"]
    mask: Tensor | None
    scale: float
    layout: TokenLayout | None
    rows: RowMap
    earlier: tuple[AttentionCall, ...]
    attend: Callable[[], Tensor] = field(repr=False)
    source_rows: slice | Int[Tensor, " row"] | None = field(default=None, repr=False)
    steps: int | None = None
    own: bool = False

    @cached_property
    def output(self) -> Float[Tensor, "row head query value_dim"]:
        """The attention output so far: the model's own, or what an outer intervention put in its place."""
        return self.attend()

    @property
    def joint_video(self) -> VideoTokens | None:
        """The video tokens where text tokens or several frames share the sequence with them, else None."""
        joint = self.layout is not None and self.site.kind == "joint"
        return self.layout.video if joint and self.layout else None

    @property
    def tokens_per_frame(self) -> int | None:
        """The resolution at which the site works: video tokens of one frame, None where the layout is not known."""
        if self.layout is None or not self.layout.frames:
            return None
        positions = self.layout.height * self.layout.width
        return self.rows.repeats if self.site.kind == "temporal" else positions

    def with_output(self, output: Tensor) -> AttentionCall:
        """The same call, seen by the next intervention with this output."""
        return replace(self, attend=lambda: output, own=False)

    def restricted(self, denoiser_rows: Sequence[int]) -> AttentionCall:
        """The same call with the attention rows of these denoiser rows only."""
        index = self.rows.index(denoiser_rows, self.query.device)
        mask = self.mask
        if mask is not None and mask.ndim == 4 and mask.shape[0] > 1:
            mask = mask[index]
        parts = {name: getattr(self, name)[index] for name in ("query", "key", "value")}
        return replace(
            self,
            **parts,
            mask=mask,
            rows=self.rows.take(denoiser_rows),
            attend=lambda: self.output[index],
            source_rows=index,
            own=not self._computed,
        )

    def is_whole(self, scope: Scope) -> bool:
        """Whether a replacement of this scope takes over the whole map, so that nothing of a row's own stays."""
        video = self.joint_video
        return scope == "all" or video is None or not video.text_slices(self.key.shape[-2])

    def with_maps_of(self, order: Sequence[int]) -> Float[Tensor, "row head query value_dim"]:
        """The output if each denoiser row had the attention map of another one: its queries, keys and mask.

        Args:
            order: per denoiser row, whose map it has; rows with their own keep their output.
        """
        mask = self.mask
        if mask is not None and mask.ndim == 4 and mask.shape[0] > 1:
            mask = self._reordered(mask, order)
        query, key = self._reordered(self.query, order), self._reordered(self.key, order)
        found = F.scaled_dot_product_attention(query, key, self.value, attn_mask=mask, scale=self.scale)
        if not self._computed:
            return found
        output = self.output.clone()
        for row in (row for row, other in enumerate(order) if row != other):
            index = self.rows.index([row], output.device)
            output[index] = found[index]
        return output

    def _reordered(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        return torch.cat([tensor[self.rows.index([row], tensor.device)] for row in order])

    def kept_output(self, replaced: Sequence[int], scope: Scope) -> Float[Tensor, "row head query value_dim"]:
        """A new output in which some denoiser rows are to be replaced: theirs only as far as the scope keeps it.

        What is replaced is zero here, unless the whole output is there already: it is not computed.

        Args:
            replaced: the denoiser rows.
            scope: of the replacement.
        """
        if self._computed:
            return self.output.clone()
        output = self.value.new_zeros((*self.query.shape[:-1], self.value.shape[-1]))
        part = self.restricted(replaced)
        output[part.source_rows] = part._kept_output(scope)
        others = [row for row in range(len(self.rows.guidance)) if row not in replaced]
        if others:
            rest = self.restricted(others)
            output[rest.source_rows] = rest._attention(slice(None))
        return output

    def _attention(self, queries: slice) -> Tensor:
        """The model's own attention, of some query rows."""
        mask = self.mask
        if mask is not None and mask.ndim > 1 and mask.shape[-2] > 1:
            mask = mask[..., queries, :]
        query = self.query[..., queries, :]
        return F.scaled_dot_product_attention(query, self.key, self.value, attn_mask=mask, scale=self.scale)

    @property
    def _computed(self) -> bool:
        """Whether the output is there already, or is another's to compute."""
        return not self.own or "output" in vars(self)

    def _kept_output(self, scope: Scope) -> Tensor:
        """The output of the query rows that a replacement keeps; zero in the others, unless all is there already."""
        if self._computed:
            return self.output
        n_queries, n_keys = self.query.shape[-2], self.key.shape[-2]
        output = self.value.new_zeros((*self.query.shape[:-1], self.value.shape[-1]))
        video = self.joint_video
        if video is None or self.is_whole(scope):
            return output
        replaced = video.rows(n_queries, n_keys)
        for kept in (slice(0, replaced.start), slice(replaced.stop, n_queries)):
            if kept.start < kept.stop:
                output[..., kept, :] = self._attention(kept)
        return output

    def for_replacement(self, keeping: Scope | None = None) -> dict[str, Any]:
        """The arguments that every closed-form map replacement of `ieadapt.functional` takes.

        Args:
            keeping: the scope of a replacement that takes over the output of the rows outside it and reads no other;
                only theirs is then computed. None = it reads all rows.
        """
        return {
            "query": self.query,
            "key": self.key,
            "value": self.value,
            "output": self.output if keeping is None else self._kept_output(keeping),
            "mask": self.mask,
            "scale": self.scale,
            "video": self.joint_video,
            "memory_limit": DEFAULT_MEMORY_LIMIT,
        }

    def statistics(self, memory_limit: int = DEFAULT_MEMORY_LIMIT) -> AttentionStatistics:
        """Entropy and its parts per row and head, exact, in blocks of queries under `memory_limit` bytes."""
        return attention_statistics(
            self.query,
            self.key,
            mask=self.mask,
            scale=self.scale,
            video=self.joint_video,
            memory_limit=memory_limit,
        )

    def measured(
        self,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        sample: RowSample | None = None,
        kernel: KernelChoice | None = None,
    ) -> MeasuredAttention:
        """Output, entropy statistics and energy of this call.

        Where the fused kernel measures a call whose output nobody has asked for yet, that output comes from the same
        pass, and is what the model gets: measuring takes the place of its attention instead of running beside it.
        """
        how: dict[str, Any] = {
            "mask": self.mask,
            "scale": self.scale,
            "video": self.joint_video,
            "memory_limit": memory_limit,
            "sample": sample,
            "kernel": kernel,
        }
        if not self._computed:
            found = measured_attention(self.query, self.key, self.value, self.attend, **how)
            vars(self)["output"] = found.output
            return found
        statistics = attention_statistics(self.query, self.key, **how)
        return MeasuredAttention(self.output, statistics, energy(self.output))


@runtime_checkable
class Intervention(Protocol):
    """Anything that can be called with an attention call: None means it looked, a tensor replaces the output."""

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """Look at the call (return None) or give the attention output to use instead."""
        ...
