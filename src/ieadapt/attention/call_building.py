"""From one call of PyTorch's scaled dot-product attention to an `AttentionCall`: whose rows, which tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ieadapt.attention.calls import AttentionCall
from ieadapt.attention.denoiser_calls import DenoiserCall
from ieadapt.attention.families import UNLISTED
from ieadapt.attention.layouts import TokenLayout, token_layout
from ieadapt.attention.rows import RowMap
from ieadapt.attention.sites import AttentionSite
from ieadapt.errors import FailureError


@dataclass
class Visit:
    """One forward pass through one attention module: the calls that it has made so far."""

    site: AttentionSite
    module: nn.Module
    calls: list[AttentionCall] = field(default_factory=list)
    seen: int = 0


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
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    query, key, value = given["query"], given["key"], given["value"]
    if key.shape[1] != query.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    rows = _call_rows(outer, visit, query.shape[0])
    return AttentionCall(
        site=visit.site,
        step=outer.step,
        fraction=outer.fraction,
        query=query,
        key=key,
        value=value,
        mask=_causal(query, key) if given.get("is_causal") else given.get("attn_mask"),
        scale=query.shape[-1] ** -0.5 if given.get("scale") is None else given["scale"],
        layout=_call_layout(outer, visit, rows, query.shape[2], key.shape[2]),
        rows=rows,
        earlier=tuple(visit.calls),
        attend=lambda: attend(*args, **kwargs),
        steps=outer.steps,
        own=not given.get("dropout_p"),
    )


def _causal(query: Tensor, key: Tensor) -> Tensor:
    return torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()


def _call_rows(outer: DenoiserCall, visit: Visit, batch: int) -> RowMap:
    rows = outer.rows
    if outer.family.calls == "per row" and batch == 1:
        return rows.take([(visit.seen - 1) % len(rows.guidance)])
    repeats, rest = divmod(batch, len(rows.guidance))
    if not rest:
        return RowMap(rows.guidance, rows.stream, rows.video, repeats)
    if outer.family is UNLISTED:
        return RowMap.unknown(batch)
    raise FailureError(
        "the attention batch is no multiple of the denoiser's batch",
        expected=f"a multiple of {len(rows.guidance)}",
        got=batch,
        where=visit.site.name,
        remedy="the family's row in ieadapt/attention/families.py does not describe this model; please report it",
    )


def _call_layout(outer: DenoiserCall, visit: Visit, rows: RowMap, queries: int, keys: int) -> TokenLayout | None:
    if outer.grid is None:
        return None
    return token_layout(visit.site, outer.grid, rows.repeats, queries, keys, outer.family.text)
