"""From one call of PyTorch's attention to what an intervention is given: whose rows it holds, which tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ieadapt.attention.denoiser_calls import DenoiserCall
from ieadapt.attention.families import UNLISTED, Family, LatentGrid
from ieadapt.attention.layouts import TokenLayout, token_layout
from ieadapt.attention.run_state import RowMap
from ieadapt.attention.sites import AttentionSite
from ieadapt.errors import FailureError
from ieadapt.functional import (
    DEFAULT_MEMORY_LIMIT,
    Attention,
    AttentionStatistics,
    RowSample,
    measured_attention,
)
from ieadapt.functional.kernels import KernelChoice
from ieadapt.functional.statistics import attention_statistics

Output = Float[Tensor, "row head query channel"]


@dataclass(frozen=True)
class AttentionCall:
    """One call of scaled dot-product attention at one site: the rows and heads that the intervention acts on.

    Attributes:
        site: where.
        step: denoising step, from 0.
        steps: denoising steps of the run; None for a denoiser called by hand.
        attention: queries, keys, values, mask and scale, (row, head, token, dim), after rotary embedding and QK-norm.
        layout: which query tokens are video and which text; None for a model outside the family table.
        rows: guidance branch, stream and video of every row.
        attend: gives the attention output so far.
        earlier: calls that the same site made before this one in the same forward pass (Mochi calls once per row).
        own: whether `attend` is the model's plain attention over these very tensors, so that measuring may compute it.
        indices: denoiser rows and heads of a larger call that this one holds; None for all.
        keys_of: whose tokens the keys are where a module attends more than once (`text`, `image`), else empty.
        grid: the latents that the denoiser call works on; None for a model outside the family table.
    """

    site: AttentionSite
    step: int
    steps: int | None
    attention: Attention
    layout: TokenLayout | None
    rows: RowMap
    attend: Callable[[], Tensor] = field(repr=False)
    earlier: tuple[AttentionCall, ...] = field(default=(), repr=False)
    own: bool = False
    indices: tuple[Sequence[int] | None, Sequence[int] | None] = field(default=(None, None), repr=False)
    keys_of: str = ""
    grid: LatentGrid | None = None

    @property
    def query(self) -> Tensor:
        """(row, head, query, dim)."""
        return self.attention.query

    @property
    def key(self) -> Tensor:
        """(row, head, key, dim)."""
        return self.attention.key

    @property
    def value(self) -> Tensor:
        """(row, head, key, channel)."""
        return self.attention.value

    @property
    def mask(self) -> Tensor | None:
        """Bool (True attends) or additive, broadcastable to (row, head, query, key), or None."""
        return self.attention.mask

    @property
    def scale(self) -> float:
        """Factor on the logits."""
        return self.attention.factor

    @property
    def fraction(self) -> float:
        """Step / number of steps, in [0, 1); 0 where the number of steps is not known."""
        return self.step / self.steps if self.steps else 0.0

    @cached_property
    def output(self) -> Output:
        """The attention output so far: the model's own, or what an outer intervention put in its place."""
        return self.attend()

    @property
    def known_output(self) -> Tensor | None:
        """The output where it is there already, or is another's to compute; None where it need not be computed."""
        return self.output if not self.own or "output" in vars(self) else None

    @property
    def of_text(self) -> bool:
        """Whether the call is the site's main one: its only one, or that to the text."""
        return self.keys_of in ("", "text")

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

    def restricted(self, rows: Sequence[int] | None = None, heads: Sequence[int] | None = None) -> AttentionCall:
        """The same call with some of its denoiser rows and heads only; None = all."""
        if rows is None and heads is None:
            return self
        index: Any = slice(None) if rows is None else self.rows.index(rows, self.query.device)
        which: Any = slice(None) if heads is None else list(heads)
        return replace(
            self,
            attention=self.attention.part(index, which),
            rows=self.rows if rows is None else self.rows.take(rows),
            attend=lambda: self.output[index][:, which],
            own=self.known_output is None,
            indices=(rows, heads),
        )

    def replaced(self, parts: Sequence[tuple[AttentionCall, Tensor]]) -> Output:
        """The output with that of some parts of the call replaced.

        Where nobody needs the ordinary output of the replaced rows, it is not computed.
        """
        if self.known_output is not None or any(part.indices[1] is not None for part, _ in parts):
            output = self.output.clone()
        else:
            output = self.value.new_empty((*self.query.shape[:-1], self.value.shape[-1]))
            replaced = {row for part, _ in parts for row in part.indices[0] or range(len(self.rows))}
            others = [row for row in range(len(self.rows)) if row not in replaced]
            if others:
                output[self.rows.index(others, output.device)] = self.restricted(others).attention.output()
        for part, result in parts:
            rows, heads = part.indices
            index: Any = slice(None) if rows is None else self.rows.index(rows, output.device)
            if heads is not None:
                whole = output[index].clone()
                whole[:, list(heads)] = result
                result = whole
            output[index] = result
        return output

    def measured(
        self,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        sample: RowSample | None = None,
        kernel: KernelChoice | None = None,
    ) -> AttentionStatistics:
        """Entropy statistics and energy of this call.

        Where the fused kernel measures a call whose output nobody has asked for yet, that output comes from the same
        pass, and is what the model gets: measuring takes the place of its attention instead of running beside it.
        """
        attention = replace(self.attention, memory_limit=memory_limit)
        if self.known_output is None:
            vars(self)["output"], statistics = measured_attention(attention, self.attend, sample=sample, kernel=kernel)
            return statistics
        return attention_statistics(attention, self.output, sample=sample, kernel=kernel)


Intervention = Callable[[AttentionCall], Tensor | None]
"""Anything that can be called with an attention call: None means it looked, a tensor replaces the output."""


@dataclass
class Visit:
    """One forward pass through one attention module.

    Attributes:
        site: the module's site.
        module: the module.
        calls: what interventions were given of it so far.
        attentions: how many attentions it has computed so far, those without an intervention included.
    """

    site: AttentionSite
    module: nn.Module
    calls: list[AttentionCall] = field(default_factory=list)
    attentions: int = 0


def attention_call(
    outer: DenoiserCall, visit: Visit, attend: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> AttentionCall:
    """What the interventions see of one attention call.

    Args:
        outer: the denoiser call that is running.
        visit: the pass through the site that made the call.
        attend: PyTorch's function.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Raises:
        FailureError: the call does not fit the family's row in the table.
    """
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    inputs = _as_autocast(dict(zip(names, args, strict=False)) | dict(kwargs))
    query, key, value, mask = inputs["query"], inputs["key"], inputs["value"], inputs.get("attn_mask")
    if key.shape[1] != query.shape[1]:  # grouped heads (`enable_gqa`): each key head serves several of the queries
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if inputs.get("is_causal"):
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    rows = _call_rows(outer, visit, query.shape[0])
    layout = None
    if outer.grid is not None and visit.site.kind != "unknown":
        layout = token_layout(visit.site, outer.grid, rows.repeats, query.shape[2], key.shape[2], outer.family.text)
    video = layout.video if layout is not None and visit.site.kind == "joint" else None
    padding = None if layout is None else _padding(outer, layout, rows, query.shape[2])
    return AttentionCall(
        site=visit.site,
        step=outer.step,
        steps=outer.steps,
        attention=Attention(query, key, value, mask, inputs.get("scale"), video, padding),
        layout=layout,
        rows=rows,
        attend=lambda: attend(**inputs),
        earlier=tuple(visit.calls) if outer.family.calls == "per row" else (),
        own=not inputs.get("dropout_p"),  # dropout draws at random: what we computed would be another output
        keys_of="" if outer.family.calls == "per row" else _keys_of(outer.family, visit),
        grid=outer.grid,
    )


def _as_autocast(inputs: dict[str, Any]) -> dict[str, Any]:
    """The arguments in the type in which PyTorch's attention would compute them under `torch.autocast`.

    Autocast works below the function that the seam catches, so the tensors here still have their own types.
    """
    device = inputs["query"].device.type
    if not torch.is_autocast_enabled(device):
        return inputs
    dtype = torch.get_autocast_dtype(device)
    return tree_map_only(Tensor, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, inputs)


def _padding(outer: DenoiserCall, layout: TokenLayout, rows: RowMap, queries: int) -> Tensor | None:
    """Which query tokens only fill up a text, (row, query); None where none do, or nobody knows."""
    if outer.padding is None or outer.padding.shape != (len(rows), layout.text) or rows.repeats > 1:
        return None
    padding = outer.padding.new_zeros((len(rows), queries))
    first = 0 if layout.start or not layout.frames else layout.video.stop
    padding[:, first : first + layout.text] = outer.padding
    return padding


def _keys_of(family: Family, visit: Visit) -> str:
    """Whose tokens the keys are. A module with an IP-Adapter attends to the text, then to each adapter's image."""
    adapters = len(getattr(visit.module.processor, "to_k_ip", ()))
    names = family.attentions(visit.module) or (("text", *["image"] * adapters) if adapters else ("",))
    index = visit.attentions - 1
    if index >= len(names):
        return f"attention {visit.attentions}"
    same = names[: index + 1].count(names[index])
    return names[index] if same == 1 else f"{names[index]} {same}"


def _call_rows(outer: DenoiserCall, visit: Visit, batch: int) -> RowMap:
    rows = outer.rows
    if outer.family.calls == "per row" and batch == 1:
        return rows.take([(visit.attentions - 1) % len(rows)])
    repeats, rest = divmod(batch, len(rows))
    if not rest:
        return replace(rows, repeats=repeats)
    if outer.family is UNLISTED:
        return RowMap(("cond",) * batch, ("none",) * batch, (0,) * batch)  # type: ignore[arg-type]
    raise FailureError(
        "the attention batch is no multiple of the denoiser's batch",
        expected=f"a multiple of {len(rows)}",
        got=batch,
        where=visit.site.name,
        remedy="the family's row in ieadapt/attention/families.py does not describe this model; please report it",
    )
