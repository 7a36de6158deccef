"""The slow, obvious references: whole attention maps in float64, replaced entry by entry."""

from __future__ import annotations

from collections.abc import Iterable
from math import log
from typing import Any

import torch
from torch import Tensor

from ieadapt.functional import Attention, AttentionStatistics, VideoTokens, attention_statistics


def measure(
    query: Tensor,
    key: Tensor,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    video: VideoTokens | None = None,
    padding: Tensor | None = None,
    memory_limit: int = 2**28,
    **how: Any,
) -> AttentionStatistics:
    """Measure the map of some queries and keys; not a reference, but what is tested."""
    attention = Attention(query, key, key, mask, scale, video, padding, memory_limit)
    return attention_statistics(attention, **how)


def attention_map(query: Tensor, key: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Return the map of (batch, head, query, key) in float64."""
    return logits(query, key, mask, scale).softmax(dim=-1)


def logits(query: Tensor, key: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Return scale * query . key + bias in float64, -inf at hidden keys."""
    values = query.double() @ key.double().transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None and mask.dtype == torch.bool:
        values = values.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        values = (values + mask.double()).masked_fill((mask <= -9984).expand_as(values), -torch.inf)
    return values


def entropy(probabilities: Tensor) -> Tensor:
    """Return -sum p ln p over the last axis, in nats."""
    return -torch.xlogy(probabilities, probabilities).sum(dim=-1)


def statistics(
    values: Tensor, video: VideoTokens | None = None, rows: Iterable[int] | None = None
) -> dict[str, Tensor]:
    """Return every statistic of a map given by its logits, from the definitions, one row at a time; None = all rows."""
    batch, heads, n_queries, n_keys = values.shape
    joint = video is not None and n_queries == n_keys
    text = joint and video is not None and video.count < n_keys
    found: dict[str, list[Tensor]] = {}

    def keep(name: str, value: Tensor) -> None:
        found.setdefault(name, []).append(value)

    for row in range(n_queries) if rows is None else rows:
        probabilities = values[:, :, row].softmax(dim=-1)
        visible = torch.isfinite(values[:, :, row]).sum(dim=-1).double()
        percent = 100 * entropy(probabilities) / visible.log()
        ep = torch.where(visible > 1, percent, torch.zeros(()))
        keep("all_ep", ep)
        if joint and video is not None and row not in range(video.start, video.stop):
            keep("text_ep", ep)
            continue
        keep("entropy", entropy(probabilities))
        keep("n_keys", visible)
        keep("ep", ep)
        if video is None:
            continue
        on_video = values[:, :, row, video.start : video.stop].softmax(dim=-1)
        grid = on_video.reshape(batch, heads, video.frames, video.positions)
        frames = grid.sum(dim=-1)
        within = torch.stack([entropy(grid[:, :, f] / frames[:, :, f, None]) for f in range(video.frames)], dim=-1)
        spatial = (frames * within.nan_to_num()).sum(dim=-1)
        keep("temporal_entropy", entropy(frames))
        keep("spatial_entropy", spatial)
        keep("temporal_ep", 100 * entropy(frames) / log(video.frames))
        keep("spatial_ep", 100 * spatial / log(video.positions))
        keep("text_mass", torch.cat([probabilities[..., : video.start], probabilities[..., video.stop :]], -1).sum(-1))
    means = {name: torch.stack(rows).mean(dim=0) for name, rows in found.items()}
    return means if text else {name: value for name, value in means.items() if name != "text_ep"}


def replaced_map(
    values: Tensor, replacement: str, amount: float | None, scope: str, video: VideoTokens | None
) -> Tensor:
    """Return the whole map of the logits with a part of it replaced, row by row."""
    original = values.softmax(dim=-1)
    n_queries, n_keys = values.shape[-2:]
    whole = video is None or scope == "all" or video.count == n_keys
    layout = VideoTokens(0, 1, n_keys) if whole or video is None else video
    part = slice(layout.start, layout.stop)
    result = original.clone()
    for row in range(n_queries):
        if n_queries == n_keys and row not in range(layout.start, layout.stop):
            continue
        own = row - layout.start
        if scope == "video-renormalised" and not whole:
            hidden = torch.arange(n_keys) != row
            hidden[: layout.start] = hidden[layout.stop :] = False
            result[:, :, row] = values[:, :, row].masked_fill(hidden, -torch.inf).softmax(dim=-1)
        else:
            mass = original[:, :, row, part].sum(dim=-1, keepdim=True)
            result[:, :, row, part] = mass * _row(values[:, :, row, part], replacement, amount, own)
    return result


def _row(values: Tensor, replacement: str, amount: float | None, own: int) -> Tensor:
    """Return the distribution that replaces one row's."""
    seen = torch.isfinite(values).double()
    uniform = seen / seen.sum(dim=-1, keepdim=True)
    if replacement == "identity":
        return torch.nn.functional.one_hot(torch.tensor(own), values.shape[-1]).double().expand_as(values)
    if replacement == "uniform":
        return uniform
    if replacement == "skip":
        return torch.zeros_like(values)
    assert amount is not None
    if replacement == "mix":
        return (1 - amount) * values.softmax(dim=-1) + amount * uniform
    return (values / amount).softmax(dim=-1)
