"""Each video row's mass on video and on text: what a replacement of the video part of a map leaves as it is."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ieadapt.functional.attention import Attention
from ieadapt.functional.kernels import fused_rows, uses_kernel
from ieadapt.functional.logits import logit_blocks
from ieadapt.functional.masks import Block


def place_in(block: Block, rows: slice) -> Block:
    """Return where a block lies in a result that holds only the given rows."""
    return block._replace(query=slice(block.query.start - rows.start, block.query.stop - rows.start))


def blend_by_attention_mass(attention: Attention, replacement: Tensor, memory_limit: int) -> Tensor:
    """Return m_video * replacement + m_text * text output for the video rows, in the type logits have.

    A row whose mask leaves it no key gives 0, as in PyTorch's attention.
    """
    rows = replace(attention.of_rows(attention.video_rows), video=attention.layout)
    if uses_kernel(rows, output=False):
        return _with_the_kernel(rows, replacement)
    return _streamed(attention, replacement, memory_limit)


def _with_the_kernel(rows: Attention, replacement: Tensor) -> Tensor:
    """With the share of text from the fused kernel, and the text output from an attention to the text alone."""
    found = fused_rows(rows, output=False)
    mask = rows.mask
    if mask is not None:
        mask = rows.text_of(mask.expand(*mask.shape[:-1], rows.key.shape[-2]), axis=-1)
        mask = mask if mask.dtype == torch.bool else mask.to(rows.query.dtype)
    text = replace(
        rows, key=rows.text_of(rows.key), value=rows.text_of(rows.value), mask=mask, video=None, padding=None
    ).output()
    share = found["text"][..., None]
    blended = (1 - share) * replacement + torch.where(share > 0, share * text, 0.0)
    return blended if rows.mask is None else torch.where(found["keys"][..., None] > 0, blended, 0.0)


def _streamed(attention: Attention, replacement: Tensor, memory_limit: int) -> Tensor:
    """With both from two log-sum-exps per row, in blocks of rows."""
    rows, text_value = attention.video_rows, attention.text_of(attention.value)
    shape = (*attention.query.shape[:2], rows.stop - rows.start, attention.value.shape[-1])
    result = replacement.to(attention.dtype).expand(shape).clone(memory_format=torch.contiguous_format)
    for block, values, counts in logit_blocks(attention, rows, memory_limit):
        text = attention.text_of(values, axis=-1)
        video_logsumexp = values[..., attention.layout.slice].logsumexp(dim=-1, keepdim=True)
        total = torch.logaddexp(video_logsumexp, text.logsumexp(dim=-1, keepdim=True))
        place = place_in(block, rows)
        result[place] *= (video_logsumexp - total).exp()
        result[place] += (text - total).exp() @ text_value[block[:2]].to(attention.dtype)
        if counts is not None:
            result[place] *= (counts > 0)[..., None]
    return result
