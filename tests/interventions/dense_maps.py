"""Slow, obvious references: the attention map is built, changed cell by cell, and multiplied with the values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ieadapt.attention import AttentionCall


def dense_logits(call: AttentionCall) -> Tensor:
    """(row, head, query, key) logits in float64, masked."""
    logits = call.query.double() @ call.key.double().transpose(-1, -2) * call.scale
    if call.mask is None:
        return logits
    if call.mask.dtype == torch.bool:
        return logits.masked_fill(~call.mask, -torch.inf)
    return logits + call.mask.double()


def allowed(call: AttentionCall) -> Tensor:
    """(row, head, query, key): which keys a query may see."""
    return (dense_logits(call) > -5000).double()


def _video(call: AttentionCall) -> tuple[int, int] | None:
    if call.layout is None or call.site.kind != "joint" or not call.layout.text:
        return None
    return call.layout.start, call.layout.start + call.layout.frames * call.layout.height * call.layout.width


def _within_scope(call: AttentionCall, replaced: Tensor, scope: str) -> Tensor:
    """Put the replaced map in place; with scope `video`, only the video block, with its mass kept row by row."""
    own = dense_logits(call).softmax(-1)
    video = _video(call)
    if scope == "all" or video is None:
        return replaced
    start, stop = video
    result = own.clone()
    block = own[..., start:stop, start:stop]
    inner = replaced[..., start:stop, start:stop]
    inner = inner / inner.sum(-1, keepdim=True)
    result[..., start:stop, start:stop] = inner * block.sum(-1, keepdim=True)
    return result


def _finish(call: AttentionCall, attention_map: Tensor) -> Tensor:
    return (attention_map @ call.value.double()).to(call.value.dtype)


def identity(call: AttentionCall, weight: float = 1.0, scope: str = "video") -> Tensor:
    """Ones on the diagonal, or part of the way there."""
    eye = torch.eye(call.query.shape[2], dtype=torch.float64).expand(*call.query.shape[:2], -1, -1)
    own = dense_logits(call).softmax(-1)
    return _finish(call, (1 - weight) * own + weight * _within_scope(call, eye, scope))


def uniform(call: AttentionCall, scope: str = "video") -> Tensor:
    """The same weight for every key that the query may see."""
    weights = allowed(call)
    return _finish(call, _within_scope(call, weights / weights.sum(-1, keepdim=True), scope))


def mix(call: AttentionCall, weight: float, scope: str = "video") -> Tensor:
    """Part own map, part uniform."""
    own, video, weights = dense_logits(call).softmax(-1), _video(call), allowed(call)
    flat = weights / weights.sum(-1, keepdim=True)
    if scope == "video" and video is not None:
        start, stop = video
        own = own.clone()
        own[..., :start] = 0
        own[..., stop:] = 0
        own = own / own.sum(-1, keepdim=True)
        flat = flat.clone()
        flat[..., :start] = 0
        flat[..., stop:] = 0
        flat = flat / flat.sum(-1, keepdim=True)
    return _finish(call, _within_scope(call, (1 - weight) * own + weight * flat, scope))


def temperature(call: AttentionCall, value: float, scope: str = "video") -> Tensor:
    """Softmax of the logits divided by the temperature."""
    return _finish(call, _within_scope(call, (dense_logits(call) / value).softmax(-1), scope))


def shuffle(call: AttentionCall, order: Callable[[AttentionCall, int], Tensor], scope: str = "video") -> Tensor:
    """Row by row of the video, the row of the map that another token has; the text keeps its rows."""
    if not call.layout.frames:
        return call.output
    own, (start, stop) = dense_logits(call).softmax(-1), _video(call) or (0, call.query.shape[2])
    replaced = own.clone()
    for place, taken in enumerate(order(call, stop - start).tolist()):
        replaced[:, :, start + place] = own[:, :, start + taken]
    return _finish(call, _within_scope(call, replaced, scope))


def skip(call: AttentionCall) -> Tensor:
    """Nothing from the video tokens, what there is from the text."""
    own, video = dense_logits(call).softmax(-1), _video(call)
    if video is None:
        return torch.zeros_like(call.output)
    start, stop = video
    own[..., start:stop, start:stop] = 0
    return _finish(call, own)
